"""Direct logit attribution: how much of a logit each head, neuron, token and bias writes.

With attention patterns, activations and the divisors of all norms on the path frozen, a metric that is linear in the
logits (a logit, a difference of two, a direction) is linear in the parts p of the residual stream, so that

    metric(logits) = sum over parts of  p . g_p,      g_p = d metric / d p  along the frozen direct path.

That is exact for every pooling and every placement of the norms: each part passes the norms after it (`direct_path`).

With frozen norms, a part gets no credit for changing a norm's divisor. `norms="integrated"` gives it, exactly too: on
the straight line from a baseline (each part's mean over some images, p0) to this image, with the norms live,

    metric(logits) - metric(baseline) = sum over parts of  (p - p0) . integral from 0 to 1 of g_p(p0 + s (p - p0)) ds,

by Gauss-Legendre quadrature. The line starts at a mean and not at zero, where a norm's divisor is sqrt(eps) and a part
at a right angle to the stream would count asinh(sigma / sqrt(eps)) times, about 7.6, instead of once.

Sources: Elhage et al. 2021, A Mathematical Framework for Transformer Circuits; Sundararajan et al. 1703.01365
(integrated gradients); for vision transformers Gandelsman et al. 2310.05916.

Shapes: B batch, T token, H head, D d_head, N d_mlp, Q query, K key, C class.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor

from prisma.analysis.attribution.direct_path import (
    PartContributions,
    baseline_parts,
    part_contributions,
    path_memory,
    record_path,
)
from prisma.analysis.border import guarded
from prisma.analysis.result import Result
from prisma.analysis.statistics import standard_error
from prisma.batching import inputs_per_pass
from prisma.config import ViTConfig
from prisma.errors import PrismaError
from prisma.metrics import Metric, measure
from prisma.view.browser import View
from prisma.view.browser.notebook import parts_view
from prisma.view.figures.charts import draw_bars
from prisma.view.figures.plots import draw
from prisma.vit import ViT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NORMS = ("frozen", "integrated")
_UNITS = {"heads": ("attn", (1, 3)), "time_heads": ("time", (1, 3)), "neurons": ("mlp", (1,))}  # array: part, sum over


@dataclass(frozen=True, kw_only=True, eq=False)
class DirectLogitAttribution(Result):
    """How much each part of the model writes to the metric, directly.

    A positive number raises the metric, a negative one lowers it, and 0 writes nothing in its direction; numbers are in
    units of the metric and add up: `components.sum(1) + baseline` is `value`. Effects through later heads and neurons
    are not included.

    `metadata["components"]` has the components' names: modules and parameters of the model (`direct_path.DirectPath`).
    Components that are written to tokens come first, and only they are in `tokens`.
    """

    AXES: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "components": ("image", "component"),
        "tokens": ("image", "stream_component", "token"),
        "heads": ("image", "layer", "head"),
        "sources": ("image", "layer", "head", "token"),
        "neurons": ("image", "layer", "neuron"),
        "time_heads": ("image", "layer", "head"),
        "time_sources": ("image", "layer", "head", "patch"),
        "pool_neurons": ("image", "neuron"),
        "value": ("image",),
        "baseline": ("image",),
    }

    components: Tensor  # sum over tokens
    tokens: Tensor  # by the token that the component is written to
    heads: Tensor | None = None
    sources: Tensor | None = None  # heads, by the token whose value they read; sums to `heads` (frozen norms only)
    neurons: Tensor | None = None  # in the blocks' MLPs: one for each unit of `mlp.post`
    time_heads: Tensor | None = None  # divided attention: the heads over time
    time_sources: Tensor | None = None
    pool_neurons: Tensor | None = None  # in the MLP of attention pooling
    value: Tensor  # the metric
    baseline: Tensor  # the metric at the baseline of integrated norms; zero for frozen norms

    @property
    def names(self) -> Mapping[str, Sequence[str]]:
        return dict.fromkeys(("component", "stream_component"), self.metadata["components"])

    def plot(self, array: str | None = None, *, image: int | None = None) -> "Figure":
        """By default a bar for each component; "heads", "tokens", "sources" and "neurons" are heat maps.

        Args:
            array: the array to draw.
            image: one image; if not given, the mean over images, and its standard error at the bars.

        Raises:
            PrismaError: no such array or image, or too many panels.
        """
        name = array or "components"
        if len(self.axes.get(name, ())) < 2:
            return super().plot(name)  # a number for each image, or an error that lists the arrays
        values, axes, n = self.arrays[name].double(), self.axes[name][1:], len(self.value)
        if image is not None and not -n <= image < n:
            raise PrismaError(f"expected an image from 0 to {n - 1}; found {image}")
        of = "mean over images" if image is None else f"image {image}"
        shown, metric = values.mean(0) if image is None else values[image], self.metadata["metric"]
        title = f"{name} of {metric if len(metric) <= 40 else metric.partition('(')[0]}"
        if name != "components":
            return draw(shown, axes, title=f"{title}, {of}", names=self.names)
        error = standard_error(values) if image is None and n > 1 else None
        what = "all bars and the baseline" if self.metadata["norms"] == "integrated" else "all bars"
        whole = self.arrays["value"].double()
        total = whole.mean() if image is None else whole[image]
        label = f"contribution to the metric, {of}; {what} together are {total:.2f}"
        return draw_bars(shown, self.metadata["components"], spread=error, title=title, label=label)

    def top(self, k: int = 10, array: str = "components", image: int | None = None) -> list[tuple[str, float]]:
        """The k entries with the largest absolute value and their names, for one image or the mean over images.

        Raises:
            PrismaError: no such array.
        """
        axes = self.axes.get(array, ())
        if axes[:1] != ("image",) or len(axes) < 2:
            raise PrismaError(
                f"expected one of {', '.join(a for a in self.axes if len(self.axes[a]) > 1)}; found {array!r}"
            )
        values = self.arrays[array].mean(0) if image is None else self.arrays[array][image]
        largest = values.flatten().abs().topk(min(k, values.numel())).indices
        named = []
        for index in largest.tolist():
            at = [int(i) for i in np.unravel_index(index, tuple(values.shape))]
            named.append((self._name(axes[1:], at), values.flatten()[index].item()))
        return named

    def _view(self) -> View:
        found = self.arrays
        return parts_view(found["components"], found.get("heads"), found["value"], found["baseline"], self.metadata)

    def _name(self, axes: tuple[str, ...], at: list[int]) -> str:
        """`blocks.0.mlp.out.bias`, or `layer 1, head 3`."""
        names = self.metadata["components"]
        return ", ".join(names[i] if a.endswith("component") else f"{a} {i}" for a, i in zip(axes, at, strict=True))


@guarded
@torch.inference_mode(False)  # the caller may be in it
def direct_logit_attribution(
    model: ViT,
    images: Tensor,
    metric: Metric,
    *,
    norms: str = "frozen",
    baseline: Tensor | None = None,
    steps: int = 32,
    sources: bool = True,
    batch: int | None = None,
) -> DirectLogitAttribution:
    """Which heads, neurons, tokens and biases write this logit?

    The metric is split into contributions of everything that is written to the residual stream: a large positive number
    is a part that pushes towards the class, a negative one pushes away from it, and all of them (with the baseline) sum
    to the metric. Only the direct path counts: a head whose output is used by a later head can be important and have 0.

    Args:
        images: [batch, channel, (frame,) height, width]. metric: linear in the logits: `Logit(3)`, `LogitDiff(labels,
        other)`, `lambda logits: logits @ direction`. norms: "frozen", or "integrated" from a baseline. baseline: images
        [any, ...] whose mean parts are the baseline of integrated norms; default: `images`. steps: quadrature points of
        integrated norms. sources: with frozen norms, also by source token. It needs all patterns: [head, token, token]
        per layer and image. batch: images in one pass; by default as many as have about 256 MiB of recorded
        activations.

    Returns:
        `components` [image, component], `tokens` [image, component, token], `heads` [image, layer, head], `sources`
        [image, layer, head, token], `neurons` [image, layer, neuron], `value` and `baseline` [image], all in units of
        the metric.

    Raises:
        PrismaError: the metric is not linear in the logits, an option has another value than those above, or integrated
            norms have one image and no baseline.

    Source: Elhage et al. 2021.
    """
    baseline_images = images if baseline is None else baseline
    _expect_options(norms, images, baseline_images, steps)
    by_source = sources and norms == "frozen"
    size = inputs_per_pass(model, batch, memory=path_memory(model, by_source))
    c, exact = model.config, torch.promote_types(model.embed.prefix.dtype, torch.float32)
    none_BC = torch.zeros(len(images), c.n_classes or c.d_pooled, dtype=exact, device=images.device)
    direction_BC = _direction(metric, none_BC)
    start, names = baseline_parts(model, baseline_images, size) if norms == "integrated" else None, list[str]()
    passes = []
    for some, direction in zip(images.split(size), direction_BC.split(size), strict=True):
        logits, acts = record_path(model, some, by_source)
        parts = part_contributions(model, acts, direction, start, steps)
        names = list(parts.contribution)
        of_sources = _by_source(acts, parts.gradient, c.n_layers) if by_source else {}
        passes.append({"logits": logits, "baseline": parts.baseline, **_arrays(parts, c), **of_sources})
    arrays = {name: torch.cat([found[name] for found in passes]) for name in passes[0]}
    logits_BC = arrays.pop("logits")
    metadata = {
        "analysis": "direct_logit_attribution",
        "metric": _metric_name(metric),
        "norms": norms,
        "components": names,
    }
    return DirectLogitAttribution(metadata=metadata, value=_linear_value(metric, logits_BC, direction_BC), **arrays)


def _arrays(parts: PartContributions, config: ViTConfig) -> dict[str, Tensor]:
    """Contributions of the parts, summed to the arrays of a result."""
    share = parts.contribution
    on_stream = [name for name in share if parts.tokens[name] is not None]
    found = {"components": torch.stack([x.flatten(1).sum(1) for x in share.values()], dim=1)}
    tokens_BCT = found["components"].new_zeros(len(found["components"]), len(on_stream), config.n_tokens)
    for row, name in enumerate(on_stream):
        tokens_BCT[:, row, parts.tokens[name]] = share[name].flatten(2).sum(2)
    found["tokens"] = tokens_BCT
    for array, (module, dims) in _UNITS.items():
        of_layers = [share[name] for layer in range(config.n_layers) if (name := f"blocks.{layer}.{module}") in share]
        if of_layers:
            found[array] = torch.stack([x.sum(dims) for x in of_layers], dim=1)
    if (pooling := "readout.attention_pool.mlp") in share:
        found["pool_neurons"] = share[pooling]
    return found


def _by_source(acts: Mapping[str, Tensor], gradient: Mapping[str, Tensor], n_layers: int) -> dict[str, Tensor]:
    """A head's z is the sum over keys of pattern times v, so its contribution is a sum over keys too."""
    found = {}
    for array, module in (("sources", "attn"), ("time_sources", "time")):
        names = [f"blocks.{layer}.{module}" for layer in range(n_layers) if f"blocks.{layer}.{module}" in gradient]
        if names:
            terms = [(acts[f"{name}.pattern"], gradient[name], acts[f"{name}.v"]) for name in names]
            found[array] = torch.stack([torch.einsum("bhqk,bqhd,bkhd->bhk", *term) for term in terms], dim=1)
    return found


def _direction(metric: Metric, zeros_BC: Tensor) -> Tensor:
    """The metric's gradient [batch, class], which does not depend on the logits if the metric is linear."""
    with torch.enable_grad():
        value = metric(logits := zeros_BC.requires_grad_())
        if not isinstance(value, Tensor) or value.shape != zeros_BC.shape[:1] or not value.requires_grad:
            raise _nonlinear(metric)
        (direction_BC,) = torch.autograd.grad(value.sum(), logits)
    return direction_BC


def _linear_value(metric: Metric, logits_BC: Tensor, direction_BC: Tensor) -> Tensor:
    """The metric [batch], checked to be the product of logits and direction."""
    value, linear = measure(metric, logits_BC), (logits_BC * direction_BC).sum(1)
    if not torch.allclose(value, linear, rtol=1e-4, atol=1e-4 * linear.abs().max().item()):
        raise _nonlinear(metric)
    return value


def _nonlinear(metric: Metric) -> PrismaError:
    return PrismaError(
        f"expected a metric that is linear in the logits, such as Logit or LogitDiff; found {_metric_name(metric):.80}"
    )


def _metric_name(metric: Metric) -> str:
    return getattr(metric, "__name__", repr(metric))


def _expect_options(norms: str, images: Tensor, start: Tensor, steps: int) -> None:
    if norms not in NORMS:
        raise PrismaError(f"expected norms to be one of {', '.join(NORMS)}; found {norms!r}")
    if steps < 1:
        raise PrismaError(f"expected steps to be at least 1; found {steps}")
    if not len(images) or not len(start):
        raise PrismaError("expected at least one image; found none")
    if norms == "integrated" and images is start and len(images) == 1:
        raise PrismaError(
            "integrated norms need a baseline, the mean of several images; found one image and no baseline"
        )
