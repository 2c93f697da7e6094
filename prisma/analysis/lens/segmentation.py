"""Segmentation: does a map over patches show where the object is? Maps scored against masks.

A patch is *object* where at least half of it is covered by the mask, *background* where nothing of it is covered, and
*mixed* in between: mixed patches are not scored, since neither answer would be right.

Sources: Chefer et al. 2012.09838 (scores of maps, and the threshold at the mean of the map); Vilas et al. 2310.18969
(which patches are object, for class maps).

Shapes: S stage (0 is the embedding, s is after block s - 1), P patch, O object patch, G background patch.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from prisma.analysis.border import guarded
from prisma.analysis.lens.class_maps import class_maps
from prisma.analysis.result import Result
from prisma.errors import PrismaError
from prisma.metrics import Target
from prisma.view.figures.charts import draw_stages
from prisma.vit import ViT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OBJECT = 0.5
"""A patch is object if the mask covers at least this share of it, and background if the mask covers nothing of it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Segmentation(Result):
    """How well maps separate the object's patches from the background.

    Every score is 1 for a perfect map. By chance `auroc` is 0.5, and below 0.5 a map avoids the object. NaN where an
    image lacks the patches that a score needs (no object, no background).
    """

    AXES: ClassVar[Mapping[str, tuple[str, ...]]] = dict.fromkeys(
        ("iou", "mean_iou", "accuracy", "average_precision", "auroc"), ("image", "stage")
    )

    UNDEFINED: ClassVar[frozenset[str]] = frozenset(AXES)

    iou: Tensor  # of the object: patches that are both above the threshold and object, over patches that are either
    mean_iou: Tensor  # mean of the object's IoU and the background's
    accuracy: Tensor  # share of scored patches on the right side of the threshold
    average_precision: Tensor  # of the object, with patches in the order of the map; its mean over images is the mAP
    auroc: Tensor  # probability that the map is larger at an object patch than at a background patch; a tie is 1/2

    def means(self) -> dict[str, Tensor]:
        """Score -> [stage], the mean over the images that have the score."""
        return {name: scores.double().nanmean(0) for name, scores in self.arrays.items()}

    def plot(self, array: str | None = None) -> "Figure":
        """The mean of every score by stage, or of one of them; an AUROC of 0.5 is chance."""
        if array is not None and array not in self.axes:
            return super().plot(array)  # whose error lists the arrays
        lines = {name: x for name, x in self.arrays.items() if array in (None, name)}
        return draw_stages(lines, chance={"auroc": 0.5}, title=f"{self.metadata['analysis']}: scores against the masks")


@guarded
def segmentation(maps: Tensor, coverage: Tensor, *, threshold: str | float = "mean") -> Segmentation:
    """Do these maps show where the object is? Maps from any analysis, scored against masks.

    Each score is 1 for a map that separates the object from the background perfectly. `auroc` needs no threshold and is
    easiest to read: 0.5 is chance, below 0.5 the map is larger on the background than on the object. Patches that tie
    are in no order: a constant map has an AUROC of 0.5 and an average precision of the share of object patches, and it
    predicts no object, because no patch is above the mean.

    Args:
        maps: [image, stage, (time,) row, column], larger where the object should be.
        coverage: [image, (time,) row, column] in [0, 1]: the share of each patch that the mask covers
            (`prisma.data.task.coverage`).
        threshold: a patch is predicted to be object above it: "mean", the map's mean over all patches, or a number.

    Returns:
        `iou`, `mean_iou`, `accuracy`, `average_precision`, `auroc`, each [image, stage], from 0 to 1.

    Raises:
        PrismaError: shapes that do not fit each other, coverage outside [0, 1], or another threshold.

    Source: Chefer et al. 2012.09838.
    """
    if maps.ndim < 4 or maps.shape[:1] + maps.shape[2:] != coverage.shape:
        raise PrismaError(
            "expected maps [image, stage, row, column] and coverage [image, row, column]; "
            f"found {list(maps.shape)} and {list(coverage.shape)}"
        )
    if not ((coverage >= 0) & (coverage <= 1)).all():
        raise PrismaError(
            "expected coverage to be the share of each patch that the mask covers, from 0 to 1; found other numbers"
        )
    if threshold != "mean" and (isinstance(threshold, str) or not math.isfinite(threshold)):
        raise PrismaError(f"expected threshold to be mean or a number; found {threshold!r}")
    scores_BSP, share_BP = maps.flatten(2).double(), coverage.flatten(1).to(maps.device)
    if threshold == "mean":
        relative_BSP = scores_BSP - scores_BSP[..., :1]  # so that no patch of a constant map is above its rounded mean
        above_BSP = relative_BSP > relative_BSP.mean(-1, keepdim=True)
    else:
        above_BSP = scores_BSP > float(threshold)
    rows = [_scores(*of_image) for of_image in zip(scores_BSP, above_BSP, share_BP, strict=True)]
    arrays = {name: torch.stack([row[name] for row in rows]) for name in Segmentation.AXES}
    settings = {"analysis": "segmentation", "threshold": threshold, "object": f"coverage of at least {OBJECT}"}
    return Segmentation(metadata={**settings, "background": "coverage of 0", "mixed": "not scored"}, **arrays)


@guarded
def lens_segmentation(
    model: ViT,
    images: Tensor,
    coverage: Tensor,
    target: Target,
    *,
    value: str = "logit",
    threshold: str | float = "mean",
    batch: int | None = None,
) -> Segmentation:
    """Can the class be read where the object is? `class_maps`, then `segmentation`, with their arguments."""
    maps = class_maps(model, images, target, value=value, batch=batch)
    return segmentation(maps.maps, coverage, threshold=threshold)


def _scores(scores_SP: Tensor, above_SP: Tensor, share_P: Tensor) -> dict[str, Tensor]:
    """Name -> the score [stage], for one image."""
    object_P, scored_P = share_P >= OBJECT, (share_P >= OBJECT) | (share_P == 0)
    background_P = scored_P & ~object_P
    inside_SO, outside_SG = scores_SP[:, object_P, None], scores_SP[:, None, background_P]
    wins_S = (inside_SO > outside_SG).double() + (inside_SO == outside_SG).double() / 2
    at_least = [(x >= inside_SO).sum(-1).double() for x in (inside_SO.mT, scores_SP[:, None, scored_P])]
    ious = [_iou(above_SP, object_P, scored_P), _iou(~above_SP, background_P, scored_P)]
    return {
        "iou": ious[0],
        "mean_iou": (ious[0] + ious[1]) / 2,
        "accuracy": (above_SP == object_P)[:, scored_P].double().mean(-1),
        "average_precision": (at_least[0] / at_least[1]).mean(-1),  # the precision at each object patch's own score
        "auroc": wins_S.flatten(1).mean(-1),
    }


def _iou(predicted_SP: Tensor, true_P: Tensor, scored_P: Tensor) -> Tensor:
    predicted_SP, true_P = predicted_SP[:, scored_P], true_P[scored_P]
    return (predicted_SP & true_P).sum(-1).double() / (predicted_SP | true_P).sum(-1)
