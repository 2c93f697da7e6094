"""Cluster lesions: does a community of units matter, and for some classes more than for others?

The units of a community in one layer are set to zero, and so are random sets of as many units of the same layer. With
the change of the accuracy on each class, d_c,

    importance    mean over classes of d_c             below those of random sets: the units matter together
    coherence     (max - min over classes of d_c) / |mean over classes of d_c|     above those of random sets: the units
                                                                                   do something of their own

p = (r + 1) / (n + 1), where r of the n random sets have such a number or a more extreme one. The p-values of all
communities are combined by Fisher's method. They are not independent (the communities of a layer share its units), so
read the combined one as a summary.

Source: Hod et al. 2110.08058, with zero ablation for their weights set to zero.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from prisma.analysis.border import guarded
from prisma.analysis.class_space.ranks import expect_labels
from prisma.analysis.modularity.modularity import Modularity
from prisma.analysis.patching.sweeping import Units, patched_runs
from prisma.analysis.result import Result
from prisma.errors import PrismaError, expect_packages
from prisma.metrics import above_and_tied, measure, top_share
from prisma.runs import check_pixels, kind_of, sites_of_every_block
from prisma.vit import ViT

AXIS = {"mlp.post": "d_mlp", "attn.z": "head"}
"""The site whose units are removed -> their axis."""
_NO_CHANGE = 1e-9


@dataclass(frozen=True, kw_only=True, eq=False)
class ClusterLesions(Result):
    """What happens to the accuracy on each class when the units of a community in one layer are set to zero.

    A set is a community within one layer: `community`, `layer` and `size` say which. `p_importance` and `p_coherence`
    are those of all sets together; below 0.05, communities are more than random sets of units.
    """

    AXES: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "changes": ("set", "class"),
        "importance": ("set",),
        "importance_p": ("set",),
        "coherence": ("set",),
        "coherence_p": ("set",),
        "random_importance": ("set", "draw"),
        "random_coherence": ("set", "draw"),
        "layer": ("set",),
        "community": ("set",),
        "size": ("set",),
    }
    UNDEFINED: ClassVar[frozenset[str]] = frozenset({"changes", "coherence", "random_coherence"})

    changes: Tensor  # [set, class]: of the accuracy; NaN for a class without images
    importance: Tensor  # [set]: their mean over classes
    importance_p: Tensor
    coherence: Tensor  # [set]: their range over the size of their mean; NaN where the mean is 0
    coherence_p: Tensor
    random_importance: Tensor  # [set, draw]
    random_coherence: Tensor
    layer: Tensor  # [set], int64: the block
    community: Tensor  # [set], int64
    size: Tensor  # [set], int64: units

    @property
    def p_importance(self) -> float:
        """The p-values of importance of all sets, combined by Fisher's method."""
        return _combined(self.importance_p)

    @property
    def p_coherence(self) -> float:
        """The same of coherence."""
        return _combined(self.coherence_p)

    @property
    def names(self) -> Mapping[str, Sequence[str]]:
        rows = zip(self.layer.tolist(), self.community.tolist(), strict=True)
        return {"set": [f"block {layer}, community {community}" for layer, community in rows]}


@guarded
@torch.no_grad()
def cluster_lesions(
    model: ViT,
    images: Tensor,
    labels: Tensor,
    communities: Modularity,
    *,
    draws: int = 100,
    smallest: int = 1,
    seed: int = 0,
    batch: int | None = None,
) -> ClusterLesions:
    """Do the communities of a graph matter for the answer, more than random sets of units of the same layer?

    Args:
        images, labels: as in `record`, and the class of each image.
        communities: of a graph of this model with neurons (`mlp.post`) or heads (`attn.z`) as units, such as
            `modularity(weight_graph(model))`.
        draws: random sets for each community.
        smallest: communities with fewer units in a layer are left out, as are those that are the whole layer.
        seed: of the random sets.
        batch: inputs per pass at most; by default as many as fit in 256 MiB.

    Returns:
        `.importance`, `.importance_p`, `.coherence`, `.coherence_p` [set], `.changes` [set, class], `.p_importance` and
        `.p_coherence`. Changes are shares of images, from -1 to 1.

    Raises:
        PrismaError: communities of another model or of other units, none that can be removed, labels that do not fit,
            or fewer than 2 random sets.
    """
    check_pixels(model, images)
    expect_labels(model, images, labels)
    if not isinstance(communities, Modularity):
        raise PrismaError(f"expected communities as `modularity` returns them; found {kind_of(communities)}")
    if draws < 2 or smallest < 1:
        raise PrismaError(f"expected at least 2 draws, and smallest at least 1; found {draws} and {smallest}")
    expect_packages("scipy", extra="analysis")
    sets = _Sets.of(model, communities, draws, smallest, seed)
    values = _changes(model, images, labels, sets, batch)
    importance, coherence = _scores(values)
    extreme = coherence.nan_to_num(torch.inf)
    return ClusterLesions(
        metadata={
            "analysis": "cluster_lesions", "site": sets.site, "images": len(images), "draws": draws,
            "smallest": smallest, "seed": seed, "graph": communities.metadata.get("graph"),
        },
        changes=values[:, 0].clone(),
        importance=importance[:, 0].clone(),
        importance_p=_p(importance[:, 1:] <= importance[:, :1] + _NO_CHANGE),
        coherence=coherence[:, 0].clone(),
        coherence_p=_p(extreme[:, 1:] >= extreme[:, :1] - _NO_CHANGE),
        layer=torch.tensor(sets.layers),
        community=torch.tensor(sets.communities),
        size=torch.tensor(sets.sizes),
        random_importance=importance[:, 1:].clone(),
        random_coherence=coherence[:, 1:].clone(),
    )  # fmt: skip


@dataclass(frozen=True)
class _Sets:
    """Communities within layers, each followed by random sets of as many units of its layer."""

    site: str
    units: list[list[int]]  # all sets
    layers: list[int]  # the block of each community
    communities: list[int]
    sizes: list[int]

    @classmethod
    def of(cls, model: ViT, found: Modularity, draws: int, smallest: int, seed: int) -> "_Sets":
        layers: Sequence[str] = found.metadata["layers"]
        site = next((site for site in AXIS if any(name.endswith(f".{site}") for name in layers)), None)
        if site is None:
            raise PrismaError(
                f"expected communities of units of {' or '.join(AXIS)}; found those of {layers[0]} and more"
            )
        names = sites_of_every_block(model, site)
        sizes = {name: int((found.layer == i).sum()) for i, name in enumerate(layers) if name.endswith(f".{site}")}
        width = model.config.n_heads if site == "attn.z" else model.config.d_mlp
        if wrong := [name for name, size in sizes.items() if name not in names or size != width]:
            raise PrismaError(
                f"expected communities of this model; found a layer {wrong[0]} of {sizes[wrong[0]]} units"
            )
        sets, random = cls(site, [], [], [], []), np.random.default_rng(seed)
        for name in sizes:
            own = found.labels[found.layer == list(layers).index(name)]
            for community in sorted(set(own[own >= 0].tolist())):
                units = (own == community).nonzero()[:, 0].tolist()
                if smallest <= len(units) < width:
                    drawn = [random.choice(width, len(units), replace=False).tolist() for _ in range(draws)]
                    sets.units.extend([units, *drawn])
                    sets.layers.append(names.index(name))
                    sets.communities.append(community)
                    sets.sizes.append(len(units))
        if not sets.units:
            raise PrismaError(
                f"expected a community with at least {smallest} units of a layer, and not all {width}; found none"
            )
        return sets


class _Nothing:
    """A source that is zero."""

    def __init__(self, value: Tensor) -> None:
        self._value = value

    def value(self, layer: int) -> Tensor:
        return self._value


def _changes(model: ViT, images: Tensor, labels: Tensor, sets: _Sets, batch: int | None) -> Tensor:
    """[set, 1 + draw, class]: the change of the accuracy on each class, of each community and then its random sets."""
    nothing, classes = next(model.parameters()).new_zeros(1), model.config.n_classes
    metric = partial(_right, labels=labels.to(nothing.device))
    layer = torch.tensor(sets.layers).repeat_interleave(len(sets.units) // len(sets.layers))  # [set and draw]
    cells = torch.arange(model.config.n_layers)[:, None] == layer
    units = Units(model, sets.site, AXIS[sets.site], sets.units)
    found = patched_runs(model, images, units, lambda rows: _Nothing(nothing), batch, cells)
    values = found.measure(metric)[:, layer, torch.arange(len(layer))]  # [image, set and draw]
    clean = _by_class(measure(metric, found.logits), labels, classes)
    return (_by_class(values, labels, classes) - clean[:, None]).mT.unflatten(0, (len(sets.layers), -1))


def _right(logits: Tensor, labels: Tensor) -> Tensor:
    """1 for each image whose label comes first [image]; a share where classes tie."""
    return top_share(*above_and_tied(logits, labels))


def _by_class(values: Tensor, labels: Tensor, classes: int) -> Tensor:
    """The mean over the images of each class [class, ...] of values [image, ...]; NaN for a class without images."""
    member = torch.nn.functional.one_hot(labels.cpu(), classes).double().T
    counts = member.sum(1).view(-1, *[1] * (values.ndim - 1))
    return torch.tensordot(member, values.double().cpu(), 1) / torch.where(counts > 0, counts, torch.nan)


def _scores(changes: Tensor) -> tuple[Tensor, Tensor]:
    """(importance, coherence) of changes [..., class]; it is 0 where nothing changes, NaN where the mean is 0."""
    known = ~changes.isnan()
    mean = changes.nanmean(-1)
    high = changes.masked_fill(~known, -torch.inf).amax(-1)
    low = changes.masked_fill(~known, torch.inf).amin(-1)
    spread = high - low
    coherence = torch.where(mean.abs() > _NO_CHANGE, spread / mean.abs(), torch.nan)
    return mean, torch.where(spread > _NO_CHANGE, coherence, 0.0)


def _p(as_extreme: Tensor) -> Tensor:
    """[set] of whether each random set is as extreme [set, draw]."""
    return (as_extreme.sum(-1).double() + 1) / (as_extreme.shape[-1] + 1)


def _combined(p: Tensor) -> float:
    from scipy.stats import combine_pvalues

    return float(combine_pvalues(p.numpy(), method="fisher").pvalue)
