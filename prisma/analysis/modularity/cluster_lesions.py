"""Cluster lesions: does a community of units matter, and for some classes more than for others?

The units of a community in one layer are set to zero, and so are random sets of as many units of the same layer. With
the change of the accuracy on each class, d_c,

    importance    mean over classes of d_c             below those of random sets: the units matter together
    coherence     (max - min over classes of d_c) / |mean over classes of d_c|     above those of random sets: the units
                                                                                   do something of their own

p = (r + 1) / (n + 1), where r of the n random sets have such a number or a more extreme one. The p-values of all
communities are combined by Fisher's method. They are not independent (the communities of a layer share its units), so
read the combined one as a summary.

Two communities of different layers may do one thing together. A double lesion removes both:

    conditional    what removing the second costs once the first is gone, d(both) - d(first), against random sets in the
                   place of the second
    interaction    d(both) - d(first) - d(second): 0 where they do separate things

A community that is important alone, and not once another one is gone, does nothing but with the other.

Source: Hod et al. 2110.08058. The definitions agree with the authors' program, also that random sets leave out units
without edges and that the communities of a pair are of different layers. Four things differ. Units are ablated to zero,
for their weights and biases set to zero. A random set that ties counts as extreme, which theirs does not. Theirs lowers
p-values by half a step, 1 / (2n + 2), before it combines them, so ours are a little larger. And their double lesions,
which are of an earlier version (2003.04881), take the accuracy over all images, for our mean over classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypedDict, Unpack

import torch
from torch import Tensor, nn

from prisma.analysis.border import guarded
from prisma.analysis.class_space.ranks import expect_labels
from prisma.analysis.modularity.lesions import AXIS, Lesions, Sets
from prisma.analysis.modularity.modularity import Modularity
from prisma.analysis.result import Result
from prisma.errors import PrismaError, expect_packages
from prisma.plain import uncompiled
from prisma.runs import check_pixels, kind_of
from prisma.vit import ViT

_NO_CHANGE = 1e-9


@dataclass(frozen=True, kw_only=True, eq=False)
class ClusterLesions(Result):
    """What happens to the accuracy on each class when the units of a community in one layer are set to zero.

    A set is a community within one layer: `community`, `layer` and `size` say which. `p_importance` and `p_coherence`
    are those of all sets together; below 0.05, communities are more than random sets of units. With `pairs`, a pair is
    two sets of different layers, `first` and `second`, of which the first is removed and then the second.
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
        "first": ("pair",),
        "second": ("pair",),
        "conditional": ("pair",),
        "conditional_p": ("pair",),
        "interaction": ("pair",),
        "random_conditional": ("pair", "draw"),
    }
    UNDEFINED: ClassVar[frozenset[str]] = frozenset({"changes", "coherence", "random_coherence"})

    changes: Tensor  # [set, class]: of the accuracy; NaN for a class without images
    importance: Tensor  # [set]: their mean over classes
    importance_p: Tensor
    coherence: Tensor  # [set]: their range over the size of their mean; NaN where the mean is 0
    coherence_p: Tensor
    random_importance: Tensor  # [set, draw]
    random_coherence: Tensor
    layer: Tensor  # [set], int64: the place in `metadata["layers"]`; of a vision transformer, the block
    community: Tensor  # [set], int64
    size: Tensor  # [set], int64: units
    first: Tensor | None = None  # [pair], int64: the set that is removed first
    second: Tensor | None = None  # [pair], int64
    conditional: Tensor | None = None  # [pair]: the importance of the second once the first is gone
    conditional_p: Tensor | None = None
    interaction: Tensor | None = None  # [pair]: the importance of both together, less that of each alone
    random_conditional: Tensor | None = None  # [pair, draw]: of random sets in the place of the second

    @property
    def p_importance(self) -> float:
        """The p-values of importance of all sets, combined by Fisher's method."""
        return _combined(self.importance_p)

    @property
    def p_coherence(self) -> float:
        """The same of coherence."""
        return _combined(self.coherence_p)

    @property
    def p_conditional(self) -> float:
        """The same of the second set of each pair once the first is gone; NaN without pairs."""
        return float("nan") if self.conditional_p is None else _combined(self.conditional_p)

    @property
    def names(self) -> Mapping[str, Sequence[str]]:
        layers = self.metadata["layers"]
        rows = zip(self.layer.tolist(), self.community.tolist(), strict=True)
        sets = [f"{layers[layer]}, community {community}" for layer, community in rows]
        if self.first is None or self.second is None:
            return {"set": sets}
        pairs = zip(self.first.tolist(), self.second.tolist(), strict=True)
        return {"set": sets, "pair": [f"{sets[b]} without {sets[a]}" for a, b in pairs]}


class LesionSettings(TypedDict, total=False):
    """How communities are removed, and against what.

    Attributes:
        draws: random sets for each community; 100 by default.
        smallest: communities with fewer units in a layer are left out, as are those that are the whole layer; 1 by
            default.
        pairs: make double lesions too: each two communities of different layers, in both orders. They cost
            sets * sets * draws runs over the images.
        seed: of the random sets.
        batch: inputs per pass at most; by default as many as fit in 256 MiB, of networks of other libraries 256.
    """

    draws: int
    smallest: int
    pairs: bool
    seed: int
    batch: int | None


@guarded
@torch.no_grad()
def cluster_lesions(
    model: ViT, images: Tensor, labels: Tensor, communities: Modularity, **settings: Unpack[LesionSettings]
) -> ClusterLesions:
    """Do the communities of a graph matter for the answer, more than random sets of units of the same layer?

    Args:
        images, labels: as in `record`, and the class of each image.
        communities: of a graph of this model with neurons (`mlp.post`) or heads (`attn.z`) as units, such as
            `modularity(weight_graph(model))`.
        settings: `draws`, `smallest`, `pairs`, `seed`, `batch` of `LesionSettings`.

    Returns:
        `.importance`, `.importance_p`, `.coherence`, `.coherence_p` [set], `.changes` [set, class], `.p_importance` and
        `.p_coherence`; with pairs `.conditional`, `.conditional_p`, `.interaction` [pair]. Changes are shares of
        images, from -1 to 1.

    Raises:
        PrismaError: communities of another model or of other units, none that can be removed, labels that do not fit,
            or fewer than 2 random sets.
    """
    check_pixels(model, images)
    expect_labels(model, images, labels)
    return _lesions(model, images, labels, communities, **settings)


@guarded
@torch.no_grad()
def cluster_lesions_network(
    network: nn.Module, images: Tensor, labels: Tensor, communities: Modularity, **settings: Unpack[LesionSettings]
) -> ClusterLesions:
    """As `cluster_lesions`, for any network in `eval()` of which `weight_graph` makes a graph, such as a CNN.

    The network gives [image, class]. Its last layer is left out: its units are the answer.
    """
    if network.training:
        raise PrismaError("expected a network that is ready for inference; found one in training: use .eval()")
    if not len(images) or labels.shape != images.shape[:1] or labels.dtype != torch.int64:
        raise PrismaError(
            f"expected images, and the class of each as a whole number; found {len(images)} images and labels "
            f"{list(labels.shape)} of {labels.dtype}"
        )
    return _lesions(uncompiled(network), images, labels, communities, **settings)


def _lesions(
    model: nn.Module, images: Tensor, labels: Tensor, communities: Modularity, draws: int = 100, smallest: int = 1,
    pairs: bool = False, seed: int = 0, batch: int | None = None,
) -> ClusterLesions:  # fmt: skip
    """The lesions of a model, with the defaults of `LesionSettings`."""
    _expect(communities, draws, smallest)
    lesions = Lesions(model, images, labels, Sets.of(model, communities, draws, smallest, seed), batch)
    sets, values = lesions.sets, lesions.alone()
    importance, coherence = _scores(values)
    extreme = coherence.nan_to_num(torch.inf)
    return ClusterLesions(
        metadata={
            "analysis": "cluster_lesions", "site": sets.site, "layers": _called(sets), "images": len(lesions.images),
            "draws": draws, "smallest": smallest, "seed": seed, "graph": communities.metadata.get("graph"),
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
        **(_doubles(lesions, importance[:, 0]) if pairs else {}),
    )  # fmt: skip


def _expect(communities: Modularity, draws: int, smallest: int) -> None:
    if not isinstance(communities, Modularity):
        raise PrismaError(f"expected communities as `modularity` returns them; found {kind_of(communities)}")
    if draws < 2 or smallest < 1:
        raise PrismaError(f"expected at least 2 draws, and smallest at least 1; found {draws} and {smallest}")
    expect_packages("scipy", extra="analysis")


def _called(sets: Sets) -> list[str]:
    """The names of layers, as a person reads them."""
    return [f"block {i}" if sets.site in AXIS else name for i, name in enumerate(sets.names)]


def _doubles(lesions: Lesions, importance: Tensor) -> dict[str, Tensor]:
    """Each two communities of different layers, and random sets in the place of the second."""
    sets, per = lesions.sets, lesions.sets.per_community
    pairs = [
        (a, b) for a in range(len(sets.layers)) for b in range(len(sets.layers)) if sets.layers[a] != sets.layers[b]
    ]
    if not pairs:
        raise PrismaError("expected communities in two layers or more for pairs; found them in one")
    rows = []
    for a, b in pairs:
        gone, layer = (sets.names[sets.layers[a]], sets.units[a * per]), sets.names[sets.layers[b]]
        both = [lesions.change([gone, (layer, units)]) for units in sets.units[b * per : (b + 1) * per]]
        rows.append(torch.stack(both).nanmean(-1) - importance[a])
    found = torch.stack(rows)  # [pair, 1 + draw]
    first, second = torch.tensor(pairs).T
    return {
        "first": first.clone(), "second": second.clone(), "conditional": found[:, 0].clone(),
        "conditional_p": _p(found[:, 1:] <= found[:, :1] + _NO_CHANGE),
        "interaction": found[:, 0] - importance[second], "random_conditional": found[:, 1:].clone(),
    }  # fmt: skip


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
