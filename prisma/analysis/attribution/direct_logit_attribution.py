"""Direct logit attribution: how much of a logit is written by each head, neuron, token and bias.

With attention patterns, activations and the divisors of all norms on the way frozen, a metric that is linear in the
logits (a logit, a difference of two, a direction) is linear in the parts p of the residual stream, so that

    metric(logits) = sum over parts of  p . g_p,      g_p = d metric / d p  along the frozen direct path.

That is exact for every pooling and every place of the norms: a part passes each norm on its way (`direct_path`).

Frozen, a part is not credited for changing a norm's divisor. `norms="integrated"` does that, exactly too: on the
straight line from a baseline (each part's mean over some images, p0) to this image, with the norms live,

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

from prisma.analysis.attribution.direct_path import PartContributions, mean_parts, record_path, walk
from prisma.analysis.result import Result, standard_error
from prisma.config import ViTConfig
from prisma.errors import PrismaError
from prisma.metrics import Metric, measure
from prisma.view.figures.charts import draw_bars
from prisma.view.figures.plots import draw
from prisma.vit import ViT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NORMS = ("frozen", "integrated")
_UNITS = {"heads": ("attn", (1, 3)), "time_heads": ("time", (1, 3)), "neurons": ("mlp", (1,))}  # array: part, sum over


@dataclass(frozen=True, kw_only=True, eq=False)
class DirectLogitAttribution(Result):
    """`components.sum(1) + baseline` is `value`.

    `metadata["components"]` has their names, those of the model's modules and parameters (`direct_path.DirectPath`).
    Those that are written to tokens come first, and `tokens` has them alone.
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
    sources: Tensor | None = None  # of heads, by the token whose value they read; sums to `heads` (frozen norms only)
    neurons: Tensor | None = None  # of the blocks' MLPs, by coordinate of `mlp.post`
    time_heads: Tensor | None = None  # of divided attention: over time
    time_sources: Tensor | None = None
    pool_neurons: Tensor | None = None  # of an attention pooling's MLP
    value: Tensor  # the metric
    baseline: Tensor  # the metric at the baseline of integrated norms; zero for frozen ones

    @property
    def names(self) -> Mapping[str, Sequence[str]]:
        return dict.fromkeys(("component", "stream_component"), self.metadata["components"])

    def plot(self, array: str | None = None, *, image: int | None = None) -> "Figure":
        """By default a bar for each component; "heads", "tokens", "sources" and "neurons" are heat maps.

        Args:
            array: which one.
            image: of one image; the mean over images if none is given, and bars with its standard error.

        Raises:
            PrismaError: there is no such array or image, or it has too many panels.
        """
        name = array or "components"
        if len(self.axes.get(name, ())) < 2:
            return super().plot(name)  # a number for each image, or an error that says what there is
        values, axes, n = self.arrays[name].double(), self.axes[name][1:], len(self.value)
        if image is not None and not -n <= image < n:
            raise PrismaError(f"expected an image from 0 to {n - 1}, found {image}")
        of = "mean over images" if image is None else f"image {image}"
        shown, metric = values.mean(0) if image is None else values[image], self.metadata["metric"]
        title = f"{name} of {metric if len(metric) <= 40 else metric.partition('(')[0]}"
        if name != "components":
            return draw(shown, axes, title=f"{title}, {of}", names=self.names)
        error = standard_error(values) if image is None and n > 1 else None
        what = "all bars and the baseline" if self.metadata["norms"] == "integrated" else "all bars"
        whole = self.arrays["value"].double()
        label = f"share of the metric, {of}; {what} together are {whole.mean() if image is None else whole[image]:.2f}"
        return draw_bars(shown, self.metadata["components"], spread=error, title=title, label=label)

    def top(self, k: int = 10, array: str = "components", image: int | None = None) -> list[tuple[str, float]]:
        """The k largest entries by size, with their names, of one image or of the mean over images.

        Raises:
            PrismaError: there is no such array.
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

    def _name(self, axes: tuple[str, ...], at: list[int]) -> str:
        """`blocks.0.mlp.out.bias`, or `layer 1, head 3`."""
        names = self.metadata["components"]
        return ", ".join(names[i] if a.endswith("component") else f"{a} {i}" for a, i in zip(axes, at, strict=True))


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
    batch: int = 8,
) -> DirectLogitAttribution:
    """Share out a logit, or whatever is linear in the logits, among all that writes to the residual stream.

    Args:
        images: [batch, channel, (frame,) height, width].
        metric: linear in the logits: `Logit(3)`, `LogitDiff(labels, other)`, `lambda logits: logits @ direction`.
        norms: "frozen", or "integrated" from a baseline.
        baseline: images [any, ...] whose mean parts are where integrated norms start; default: `images`.
        steps: quadrature points of integrated norms.
        sources: of frozen norms, also by source token. It needs all patterns, [head, token, token] a layer and image.
        batch: at most so many images in one pass, which bounds the memory.

    Raises:
        PrismaError: the metric is not linear in the logits, an option is none of those above, or an integrated
            attribution has one image and no baseline.
    """
    start_images = images if baseline is None else baseline
    _expect_options(norms, images, start_images, steps, batch)
    c, exact = model.config, torch.promote_types(model.embed.patch.weight.dtype, torch.float32)
    none_BC = torch.zeros(len(images), c.n_classes or c.d_pooled, dtype=exact, device=images.device)
    direction_BC = _direction(metric, none_BC)
    start = mean_parts(model, start_images, batch) if norms == "integrated" else None
    chunks, names = [], list[str]()
    for some, direction in zip(images.split(batch), direction_BC.split(batch), strict=True):
        logits, acts = record_path(model, some, sources and start is None)
        found_parts = part_contributions(model, acts, direction, start, steps)
        names = list(found_parts.share)
        by_source = _by_source(acts, found_parts.gradient, c.n_layers) if sources and start is None else {}
        chunks.append({"logits": logits, "baseline": found_parts.start, **_arrays(found_parts, c), **by_source})
    arrays = {name: torch.cat([chunk[name] for chunk in chunks]) for name in chunks[0]}
    logits_BC = arrays.pop("logits")
    value, linear = measure(metric, logits_BC), (logits_BC * direction_BC).sum(1)
    if not torch.allclose(value, linear, rtol=1e-4, atol=1e-4 * linear.abs().max().item()):
        raise _nonlinear(metric)
    metadata = {"analysis": "direct_logit_attribution", "metric": _said(metric), "norms": norms, "components": names}
    return DirectLogitAttribution(metadata=metadata, value=value, **arrays)


def _arrays(found_parts: PartContributions, config: ViTConfig) -> dict[str, Tensor]:
    """Shares of parts, added up in each of the ways that a result has."""
    share = found_parts.share
    on_stream = [name for name in share if found_parts.tokens[name] is not None]
    found = {"components": torch.stack([x.flatten(1).sum(1) for x in share.values()], dim=1)}
    tokens_BCT = found["components"].new_zeros(len(found["components"]), len(on_stream), config.n_tokens)
    for row, name in enumerate(on_stream):
        tokens_BCT[:, row, found_parts.tokens[name]] = share[name].flatten(2).sum(2)
    found["tokens"] = tokens_BCT
    for array, (module, dims) in _UNITS.items():
        of_layers = [share[name] for layer in range(config.n_layers) if (name := f"blocks.{layer}.{module}") in share]
        if of_layers:
            found[array] = torch.stack([x.sum(dims) for x in of_layers], dim=1)
    if (pooling := "readout.attention_pool.mlp") in share:
        found["pool_neurons"] = share[pooling]
    return found


def _by_source(acts: Mapping[str, Tensor], gradient: Mapping[str, Tensor], n_layers: int) -> dict[str, Tensor]:
    """A head's z is the sum over keys of pattern times v, and so is its share."""
    found = {}
    for array, module in (("sources", "attn"), ("time_sources", "time")):
        names = [f"blocks.{layer}.{module}" for layer in range(n_layers) if f"blocks.{layer}.{module}" in gradient]
        if names:
            terms = [(acts[f"{name}.pattern"], gradient[name], acts[f"{name}.v"]) for name in names]
            found[array] = torch.stack([torch.einsum("bhqk,bqhd,bkhd->bhk", *term) for term in terms], dim=1)
    return found


def _direction(metric: Metric, zeros_BC: Tensor) -> Tensor:
    """The metric's gradient [batch, class], which is the same everywhere if it is linear."""
    with torch.enable_grad():
        value = metric(logits := zeros_BC.requires_grad_())
        if not isinstance(value, Tensor) or value.shape != zeros_BC.shape[:1] or not value.requires_grad:
            raise _nonlinear(metric)
        (direction_BC,) = torch.autograd.grad(value.sum(), logits)
    return direction_BC


def _nonlinear(metric: Metric) -> PrismaError:
    return PrismaError(
        f"expected a metric that is linear in the logits, such as Logit or LogitDiff; found {_said(metric):.80}"
    )


def _said(metric: Metric) -> str:
    return getattr(metric, "__name__", repr(metric))


def _expect_options(norms: str, images: Tensor, start: Tensor, steps: int, batch: int) -> None:
    if norms not in NORMS:
        raise PrismaError(f"norms must be one of {', '.join(NORMS)}; found {norms!r}")
    if batch < 1 or steps < 1:
        raise PrismaError(f"batch and steps must be at least 1; found {batch} and {steps}")
    if not len(images) or not len(start):
        raise PrismaError("expected at least one image, found none")
    if norms == "integrated" and images is start and len(images) == 1:
        raise PrismaError("integrated norms start at the mean of several images: found one image and no baseline")
