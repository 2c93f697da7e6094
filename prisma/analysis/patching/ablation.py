"""Ablation: what does the answer lose when one part of one layer says nothing of this image?

    effect[layer, unit] = mean over images of metric(logits, the unit ablated) - metric(logits)

Three ways to say nothing. *Zero*, which is far from what the model has seen; *mean*, what the unit says of some
reference images on average; *resample*, what it says of another image, which keeps its distribution.

Sources: Michel et al. 1905.10650 (zero); Wang et al. 2211.00593 (mean); Chan et al. 2022, Causal Scrubbing (resample).

The runs share what they have in common, as those of patching do: `prisma.analysis.patching.sweeping`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from prisma.analysis.patching.corruptions import derangement
from prisma.analysis.patching.sweeping import Source, SourceRun, Units, patched_runs
from prisma.analysis.result import Effect
from prisma.batching import inputs_per_pass
from prisma.errors import PrismaError
from prisma.metrics import Metric, measure
from prisma.runs import Model, record


@dataclass(frozen=True, kw_only=True, eq=False)
class Ablation(Effect):
    """The metric of every run with an ablated unit, and of the run with none."""

    AXES: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "effect": ("layer", "{axis}"),
        "stderr": ("layer", "{axis}"),
        "values": ("image", "layer", "{axis}"),
        "clean": ("image",),
    }

    values: Tensor
    clean: Tensor

    @property
    def per_image(self) -> Tensor:
        """How much the metric changes [image, layer, unit]."""
        return self.values - self.clean[:, None, None]


@torch.no_grad()
def ablation(
    model: Model,
    images: Tensor,
    site: str,
    metric: Metric,
    *,
    by: str = "zero",
    reference: Tensor | None = None,
    over: Sequence[str] = ("batch",),
    axis: str | None = None,
    groups: int | Sequence[Sequence[int]] | None = None,
    seed: int = 0,
    batch: int | None = None,
) -> Ablation:
    """Ablate every unit of a site in every layer, one at a time.

    Args:
        images: as in `record`.
        site: a site of every block without its prefix: `"attn.z"`, `"attn_out"`, `"mlp.post"`.
        metric: logits [batch, class] -> one finite number per image [batch]. It sees all images at once, in order.
        by: "zero", "mean" or "resample".
        reference: images [any, ...] that means and resampled values are of; default: `images`.
        over: axes that a mean is over: ("batch",) keeps positions apart, ("batch", "token") does not.
        axis, groups: what the units are, as in `patch`: "head", "token", "d_mlp", "component", ...
        seed: of "resample": which image each one gets its values from, never from itself; with `reference`, images of
            it in random order, again and again if they are fewer.
        batch: at most so many inputs in one pass; default: as `patch`.

    Returns:
        `.effect`, `.stderr` [layer, unit], `.values` [image, layer, unit], `.clean` [image].

    Raises:
        PrismaError: no images, another `by`, a reference of another shape or for "zero", a mean of one image or not
            over images, or as `patch`.
    """
    units = Units(model, site, axis, groups)
    found = patched_runs(
        model, images, units, _source_of_values(model, images, units, by, reference, tuple(over), seed, batch), batch
    )
    return Ablation(
        metadata={
            "analysis": "ablation", "site": units.site, "axis": units.axis, "by": by, "over": list(over), "seed": seed,
            "images": len(images), "reference": len(images if reference is None else reference),
        },
        values=found.measure(metric),
        clean=measure(metric, found.logits),
    )  # fmt: skip


@dataclass(frozen=True)
class _Constant:
    """A donor of the same values whatever the image."""

    values: Sequence[Tensor]  # of each layer

    def value(self, layer: int) -> Tensor:
        return self.values[layer]


def _source_of_values(
    model: Model,
    images: Tensor,
    units: Units,
    by: str,
    reference: Tensor | None,
    over: tuple[str, ...],
    seed: int,
    batch: int | None,
) -> Callable[[slice], Source]:
    """Rows of the images -> what says nothing of them."""
    if by not in ("zero", "mean", "resample") or (by == "zero" and reference is not None):
        raise PrismaError(
            f"ablation is by zero, or by mean or resample of reference images; found {by!r} and "
            f"{'no ' if reference is None else ''}reference"
        )
    others = images if reference is None else reference
    if not len(images) or not len(others) or others.shape[1:] != images.shape[1:]:
        raise PrismaError(
            "expected images, and reference images of the same shape; "
            f"found {list(images.shape)} and {list(others.shape)}"
        )
    if by == "zero":
        nothing = _Constant([next(model.parameters()).new_zeros(1)] * len(units.sites))
        return lambda rows: nothing
    if by == "mean":
        average = _Constant(_means(model, others, units, over, batch))
        return lambda rows: average
    order = derangement(len(images), seed) if reference is None else _drawn(len(images), len(others), seed)
    return lambda rows: SourceRun(model, others[order[rows].to(images.device)], units)


def _means(model: Model, images: Tensor, units: Units, over: tuple[str, ...], batch: int | None) -> list[Tensor]:
    """Of each layer: the mean of the site over the given axes, each of length 1."""
    if "batch" not in over or not set(over) <= set(units.axes) or len(set(over)) < len(over) or len(images) < 2:
        raise PrismaError(
            f"a mean is over batch and others of {', '.join(units.axes[1:])}, of at least 2 images; "
            f"found over={list(over)} and {len(images)} images"
        )
    dims = [units.axes.index(axis) for axis in over]
    means: list[Tensor] = []
    for some in images.split(inputs_per_pass(model, batch)):
        values = record(model, some, units.sites, stop=True)[1]
        exact = torch.promote_types(values[units.sites[0]].dtype, torch.float32)
        share = len(some) / len(images)
        parts = [values[site].mean(dims, keepdim=True, dtype=exact) * share for site in units.sites]
        means = [mean + part for mean, part in zip(means, parts, strict=True)] if means else parts
    return [mean.to(values[site].dtype) for mean, site in zip(means, units.sites, strict=True)]


def _drawn(n: int, of: int, seed: int) -> Tensor:
    """[n]: indices of all reference images in random order, again and again."""
    order = torch.randperm(of, generator=torch.Generator().manual_seed(seed))
    return order.repeat(-(-n // of))[:n]
