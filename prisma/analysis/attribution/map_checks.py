"""Checks of a map that do not remove patches: against masks, against other weights, and against small changes.

Sources: Arras et al. 2003.07258 (mass and rank accuracy); Adebayo et al. 1810.03292 (other weights); Yeh et al.
1901.09392 (maximum sensitivity).

Shapes: B image, P patch, S stage.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from prisma.analysis.attribution.map_curves import OTHER, drawn_for_each
from prisma.analysis.border import guarded
from prisma.analysis.lens.segmentation import OBJECT, segmentation
from prisma.analysis.result import Effect, Result
from prisma.errors import PrismaError
from prisma.view.figures.charts import draw_stages
from prisma.vit import ViT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Explain = Callable[[ViT, Tensor], Tensor]
"""A model and images -> maps over patches [image, patch]."""


@dataclass(frozen=True, kw_only=True, eq=False)
class MapScores(Result):
    """How well maps agree with masks. NaN where an image lacks what a score needs."""

    AXES: ClassVar[Mapping[str, tuple[str, ...]]] = dict.fromkeys(("auroc", "mass", "rank"), ("image",))
    UNDEFINED: ClassVar[frozenset[str]] = frozenset(AXES)

    auroc: Tensor  # probability that the map is larger at an object patch than at a background patch; chance is 0.5
    mass: Tensor  # share of the positive part of the map that is on the object; by chance the share of its area
    rank: Tensor  # share of the object's k patches among the k largest numbers of the map


@guarded
def map_scores(maps_BP: Tensor, coverage_BP: Tensor) -> MapScores:
    """Do the large numbers of a map lie on the object?

    A mask of nothing, or of everything, says nothing of a map: its scores are NaN.

    Args:
        maps_BP: [image, patch].
        coverage_BP: [image, patch], the share of each patch that the mask covers.
    """
    maps, coverage = maps_BP.double(), coverage_BP.double().to(maps_BP.device)
    auroc = segmentation(maps[:, None, None], coverage[:, None]).auroc[:, 0]
    positive = maps.clamp(min=0)
    mixed = (coverage > 0).any(1) & (coverage < 1).any(1)
    mass = torch.where(mixed, (positive * coverage).sum(1) / positive.sum(1), torch.nan)
    rank = torch.stack([_rank(*pair) for pair in zip(maps, coverage >= OBJECT, strict=True)]).double()
    return MapScores(metadata={"analysis": "map_scores"}, auroc=auroc, mass=mass, rank=rank)


def _rank(map_P: Tensor, object_P: Tensor) -> Tensor:
    """The share of the k object patches among the k largest; patches that tie at the limit count by their share."""
    k = int(object_P.sum())
    if k in (0, len(object_P)):
        return map_P.new_tensor(torch.nan)
    limit = map_P.sort(descending=True).values[k - 1]
    above, tied = map_P > limit, map_P == limit
    room = (k - above.sum()) / tied.sum()
    return ((above & object_P).sum() + room * (tied & object_P).sum()) / k


@dataclass(frozen=True, kw_only=True, eq=False)
class MapSanity(Result):
    """How similar maps stay when the model's weights are shuffled: rank correlations, 1 for the same order.

    A map of what the model learned changes: it should be near 0 at the last stage of `cascade`. `stages` names the part
    that is shuffled: from the head down in `cascade`, where all before it are shuffled too, and each alone in `alone`.
    """

    AXES: ClassVar[Mapping[str, tuple[str, ...]]] = dict.fromkeys(("cascade", "alone"), ("image", "stage"))

    cascade: Tensor
    alone: Tensor

    @property
    def names(self) -> Mapping[str, Sequence[str]]:
        return {"stage": self.metadata["stages"]}

    def plot(self, array: str | None = None) -> "Figure":
        """The mean over images by stage."""
        if array is not None:
            return super().plot(array)
        return draw_stages({"from the head down": self.cascade, "alone": self.alone}, title="maps of shuffled weights")


def stages_of(model: ViT) -> list[str]:
    """The parts whose weights are shuffled, from the head down."""
    return ["readout", *(f"blocks.{layer}" for layer in reversed(range(model.config.n_layers))), "embed"]


@guarded
def map_sanity(model: ViT, images: Tensor, explain: Explain, *, seed: int = 0) -> MapSanity:
    """Does a map depend on what the model has learned? Its weights are shuffled within each tensor, part after part."""
    whole, stages = explain(model, images), stages_of(model)
    cascade, alone, falling = [], [], deepcopy(model)
    for stage in stages:
        falling = shuffled(falling, [stage], seed)
        cascade.append(rank_correlation(explain(falling, images), whole))
        alone.append(rank_correlation(explain(shuffled(model, [stage], seed), images), whole))
    metadata = {"analysis": "map_sanity", "stages": stages, "seed": seed}
    return MapSanity(metadata=metadata, cascade=torch.stack(cascade, 1), alone=torch.stack(alone, 1))


@torch.no_grad()
def shuffled(model: ViT, stages: Sequence[str], seed: int) -> ViT:
    """A copy whose weights in these parts are in another order within each tensor, so that their sizes stay."""
    copy, generator = deepcopy(model), torch.Generator().manual_seed(seed)
    for stage in stages:
        for parameter in copy.get_submodule(stage).parameters():
            order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
            parameter.copy_(parameter.flatten()[order].view_as(parameter))
    return copy


def rank_correlation(one_BP: Tensor, other_BP: Tensor) -> Tensor:
    """Spearman's correlation over patches [image]; 0 for a constant map."""
    ranks = [_ranks(x.double()) for x in (one_BP, other_BP)]
    centred = [x - x.mean(1, keepdim=True) for x in ranks]
    sizes = centred[0].norm(dim=1) * centred[1].norm(dim=1)
    return torch.where(sizes > 0, (centred[0] * centred[1]).sum(1) / sizes.clamp(min=1e-300), 0)


def _ranks(x_BP: Tensor) -> Tensor:
    """Ranks, with the mean for those that tie."""
    below = (x_BP[:, None] < x_BP[..., None]).sum(-1)
    at_most = (x_BP[:, None] <= x_BP[..., None]).sum(-1)
    return (below + at_most - 1).double() / 2


@dataclass(frozen=True, kw_only=True, eq=False)
class MapSensitivity(Effect):
    """How far a map moves when the image moves a little, as a share of the map's size: 0 is a map that stays."""

    AXES: ClassVar[Mapping[str, tuple[str, ...]]] = {"per_image": ("image",)}

    largest: Tensor  # [image], over the draws

    @property
    def per_image(self) -> Tensor:
        return self.largest


@guarded
def map_sensitivity(
    model: ViT, images: Tensor, explain: Explain, *, radius: float = 0.05, draws: int = 4, seed: int = 0
) -> MapSensitivity:
    """How much does a map change with changes of the image that nobody sees? The largest over a few random ones.

    Args:
        radius: every pixel moves by at most this share of the standard deviation of its image.
        draws: how many random images near each are tried; the largest of more draws is larger.
    """
    if draws < 1 or radius <= 0:
        raise PrismaError(f"expected a radius above 0 and at least one draw; found {radius} and {draws}")
    whole, size = explain(model, images).double(), images.flatten(1).std(1).view(-1, *[1] * (images.ndim - 1))
    found = []
    for draw in range(draws):
        noise = (2 * drawn_for_each(images.shape, seed + OTHER * draw) - 1).to(images) * radius * size
        moved = explain(model, images + noise).double() - whole
        found.append(moved.norm(dim=1) / whole.norm(dim=1).clamp(min=1e-300))
    metadata = {"analysis": "map_sensitivity", "radius": radius, "draws": draws, "seed": seed}
    return MapSensitivity(metadata=metadata, largest=torch.stack(found).amax(0))
