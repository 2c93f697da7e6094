"""Ablation: what does the metric lose when one part of one layer carries no information about the image?

    effect[layer, unit] = mean over images of metric(logits with the unit ablated) - metric(logits)

A unit's value is replaced in one of three ways. *Zero* is simple, but far from the values that the model has seen;
*mean* is the unit's average over reference images; *resample* is its value on another image, which keeps the
distribution of its values.

Sources: Michel et al. 1905.10650 (zero); Wang et al. 2211.00593 (mean); Chan et al. 2022, Causal Scrubbing (resample).

The runs share their common computations, as in activation patching: `prisma.analysis.patching.sweeping`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from prisma.analysis.border import guarded, record
from prisma.analysis.patching.corruptions import derangement
from prisma.analysis.patching.sweeping import patched_runs
from prisma.analysis.patching.units import Source, SourceRun, Units
from prisma.analysis.result import Effect
from prisma.batching import inputs_per_pass
from prisma.errors import PrismaError
from prisma.metrics import Metric, measure
from prisma.runs import Model, check_pixels


@dataclass(frozen=True, kw_only=True, eq=False)
class Ablation(Effect):
    """The metric of every run with one ablated unit, and of the run without ablation.

    `effect` is the change of the metric: negative where the metric needs the unit, zero where it does not.
    """

    AXES: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "effect": ("layer", "{axis}"),
        "stderr": ("layer", "{axis}"),
        "values": ("image", "layer", "{axis}"),
        "clean": ("image",),
    }

    values: Tensor  # [image, layer, unit]: the metric of the run with the unit ablated
    clean: Tensor  # [image]: of the run without ablation

    @property
    def per_image(self) -> Tensor:
        """How much the metric changes [image, layer, unit]."""
        return self.values - self.clean[:, None, None]


@guarded
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
    """Which parts of the model does the metric need?

    Every unit of a site (a head, a token, ...) in every layer is ablated, one at a time. `effect` is the change of the
    metric: negative where the metric needs the unit, zero where the unit does not matter, positive where it works
    against the metric.

    Args:
        images: as in `record`.
        site: a site of every block without its prefix: `"attn.z"`, `"attn_out"`, `"mlp.post"`.
        metric: logits [batch, class] -> one finite number per image [batch]. It sees all images at once, in order.
        by: "zero", "mean" or "resample".
        reference: images [any, ...] from which means and resampled values come; by default `images`.
        over: the axes of the mean: ("batch",) keeps positions apart, ("batch", "token") averages over them too.
        axis, groups: what the units are, as in `activation_patching`: "head", "token", "d_mlp", "component", ...
        seed: for "resample", which image each image gets its values from, never from itself; with `reference`, the
            reference images in random order, repeated if there are fewer of them than images.
        batch: inputs per pass at most; by default as in `activation_patching`.

    Returns:
        `.effect`, `.stderr` [layer, unit], `.values` [image, layer, unit], `.clean` [image].

    Raises:
        PrismaError: there are no images, `by` is unknown, the reference has another shape or is given for "zero", the
            mean is over one image or not over images; or as in `activation_patching`.
    """
    check_pixels(model, images)
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
    """A source that has the same values for every image."""

    values: Sequence[Tensor]  # one per layer

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
    """Rows of the images -> the source of the values that replace theirs."""
    if by not in ("zero", "mean", "resample"):
        raise PrismaError(f"expected by to be zero, mean or resample; found {by!r}")
    if by == "zero" and reference is not None:
        raise PrismaError("expected no reference images with by='zero'; found some")
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
    """The mean of the site in each layer over the given axes, which keep length 1."""
    if "batch" not in over or not set(over) <= set(units.axes) or len(set(over)) < len(over) or len(images) < 2:
        raise PrismaError(
            f"expected a mean over batch, and possibly {', '.join(units.axes[1:])}, of at least 2 images; "
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
    """[n]: indices of the reference images in random order, repeated as needed."""
    order = torch.randperm(of, generator=torch.Generator().manual_seed(seed))
    return order.repeat(-(-n // of))[:n]
