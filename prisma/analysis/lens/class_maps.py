"""Class maps: where in the picture could a class be read, at each stage? And does it stand where the object is?

The map of a stage is the logit lens of each patch alone, for one class, laid out as the patches are. Scored against
masks it is segmentation by a model that never saw a mask. Readable is not used: a model may keep what it knows in the
smooth patches of the background, as the sprites mouse does, and then its maps avoid the object (AUROC below 0.5).

A patch is *object* where at least half of it is covered by the mask, *background* where nothing of it is, and *mixed*
in between: mixed patches are not scored, since they are right and wrong whatever a map says. Sources: Vilas et al.
2310.18969 (class projections of patches, and the rule of patches); Chefer et al. 2012.09838 (scores of maps, and the
threshold at the mean of the map).

Shapes: B batch, S stage (0 is the embedding, s is after block s - 1), P patch, M d_model, C class.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from prisma.analysis.lens.logit_lens import read_alone, stages_of
from prisma.analysis.result import Result
from prisma.errors import PrismaError
from prisma.metrics import Logit, Metric, Probability, Target
from prisma.view.figures.charts import draw_stages
from prisma.view.figures.maps import chosen_images, draw_images
from prisma.vit import ViT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

VALUES: Mapping[str, Callable[[Target], Metric]] = {"logit": Logit, "probability": Probability}
OBJECT = 0.5
"""A patch that is covered so much is object; one that is not covered at all is background."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassMaps(Result):
    """What each patch alone says of a class."""

    AXES: ClassVar[Mapping[str, tuple[str, ...]]] = {"maps": ("image", "stage", "time", "row", "column")}

    maps: Tensor  # [image, stage, (time,) row, column]: time for video only

    @property
    def axes(self) -> dict[str, tuple[str, ...]]:
        return super().axes if self.maps.ndim == 5 else {"maps": ("image", "stage", "row", "column")}

    def plot(
        self,
        array: str | None = None,
        *,
        pictures: Tensor | None = None,
        masks: Tensor | None = None,
        images: Sequence[int] | None = None,
        stages: Sequence[int] | None = None,
    ) -> "Figure":
        """A column for each image (of a video, for each of its times), a row for each stage.

        Args:
            pictures: of the same images, [image, channel, (frame,) height, width] in [0, 1], to be drawn above.
            masks: [image, (frame,) height, width], true where the object is, to be outlined.
            images: which ones, by default the first six.
            stages: which ones, by default four from the embedding to the last.

        Raises:
            PrismaError: an image or stage that is not there, or pictures or masks that do not fit.
        """
        if array not in (None, "maps"):
            return super().plot(array)  # which says what there is
        last = self.maps.shape[1] - 1
        rows = sorted({round(last * i / 3) for i in range(4)}) if stages is None else list(stages)
        if not rows or not all(0 <= stage <= last for stage in rows):
            raise PrismaError(f"expected stages from 0 to {last}; found {rows}")
        chosen, maps = chosen_images(len(self.maps), images), self.arrays["maps"]
        title = f"where the class could be read ({self.metadata['value']})"
        by_stage = {f"stage {s}": maps[:, s] for s in rows}
        return draw_images(by_stage, pictures, masks, chosen, title=title, signs=False)


@dataclass(frozen=True, kw_only=True, eq=False)
class Segmentation(Result):
    """How well maps tell object patches from background; NaN where an image lacks what a score needs."""

    AXES: ClassVar[Mapping[str, tuple[str, ...]]] = dict.fromkeys(
        ("iou", "mean_iou", "accuracy", "average_precision", "auroc"), ("image", "stage")
    )

    iou: Tensor  # of the object: patches above the threshold and object, over patches that are either
    mean_iou: Tensor  # mean of that and of the background's
    accuracy: Tensor  # share of scored patches on the right side of the threshold
    average_precision: Tensor  # of the object, by the map's own order; its mean over images is the mAP
    auroc: Tensor  # probability that the map is larger at an object patch than at a background patch

    def means(self) -> dict[str, Tensor]:
        """Score -> [stage], its mean over the images that have it."""
        return {name: scores.double().nanmean(0) for name, scores in self.arrays.items()}

    def plot(self, array: str | None = None) -> "Figure":
        """The mean of every score by stage, or of one of them; an AUROC of 0.5 is chance."""
        if array is not None and array not in self.axes:
            return super().plot(array)  # which says what there is
        lines = {name: x for name, x in self.arrays.items() if array in (None, name)}
        return draw_stages(lines, chance={"auroc": 0.5}, title="segmentation by the lens: scores against the masks")


@torch.no_grad()
def class_maps(
    model: ViT, images: Tensor, target: Target, *, value: str = "logit", batch: int | None = None
) -> ClassMaps:
    """The lens of every patch, for one class.

    Args:
        images: [batch, channel, (frame,) height, width].
        target: the class, or one for each image. Of `loaded.zero_shot(prompts).model`, the prompt.
        value: "logit" or "probability".
        batch: at most so many images in one pass; by default as many as have about 256 MiB of activations.

    Raises:
        PrismaError: the model has no classes or not this one, or an option is none of those above.
    """
    if value not in VALUES:
        raise PrismaError(f"value must be one of {', '.join(VALUES)}; found {value!r}")
    c, classes = model.config, torch.as_tensor(target)
    if classes.shape not in ((), images.shape[:1]):
        raise PrismaError(f"expected a class, or one for each of {len(images)} images; found {list(classes.shape)}")
    metric = VALUES[value](classes.expand(len(images)).repeat_interleave(c.n_patches))
    grid = c.grid if c.frames > 1 else c.grid[1:]
    stages = [read_alone(model, x_BTM[:, c.n_prefix :], batch) for x_BTM in stages_of(model, images, batch)]
    maps = torch.stack([metric(x_BPC.flatten(0, 1)).view(-1, *grid) for x_BPC in stages], dim=1)
    said = {"analysis": "class_maps", "target": classes.tolist(), "value": value}
    return ClassMaps(metadata=said, maps=maps)


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
    """The class maps of a model, scored against masks: `class_maps`, then `score_maps`, with their arguments."""
    maps = class_maps(model, images, target, value=value, batch=batch)
    return score_maps(maps.maps, coverage, threshold=threshold)


def score_maps(maps: Tensor, coverage: Tensor, *, threshold: str | float = "mean") -> Segmentation:
    """Maps of any analysis against masks, image by image and stage by stage.

    Args:
        maps: [image, stage, (time,) row, column], larger where the object is said to be.
        coverage: [image, (time,) row, column] in [0, 1]: the share of each patch that the mask covers
            (`prisma.data.task.coverage`).
        threshold: what a map must exceed: "mean", its own mean over all patches of the image, or a number.

    Raises:
        PrismaError: shapes that do not go together, coverage outside [0, 1], or another threshold.
    """
    if maps.ndim < 4 or maps.shape[:1] + maps.shape[2:] != coverage.shape:
        raise PrismaError(
            "expected maps [image, stage, row, column] and coverage [image, row, column]; "
            f"found {list(maps.shape)} and {list(coverage.shape)}"
        )
    if not ((coverage >= 0) & (coverage <= 1)).all():
        raise PrismaError("coverage is the share of each patch that the mask covers, from 0 to 1; found other numbers")
    if isinstance(threshold, str) and threshold != "mean":
        raise PrismaError(f"threshold must be mean or a number; found {threshold!r}")
    scores_BSP, share_BP = maps.flatten(2).double(), coverage.flatten(1).to(maps.device)
    level_BS1 = scores_BSP.mean(-1, keepdim=True) if threshold == "mean" else float(threshold)
    rows = [_scores(*of_image) for of_image in zip(scores_BSP, scores_BSP > level_BS1, share_BP, strict=True)]
    arrays = {name: torch.stack([row[name] for row in rows]) for name in Segmentation.AXES}
    said = {"analysis": "segmentation", "threshold": threshold, "object": f"coverage of at least {OBJECT}"}
    return Segmentation(metadata={**said, "background": "coverage of 0", "mixed": "not scored"}, **arrays)


def _scores(scores_SP: Tensor, above_SP: Tensor, share_P: Tensor) -> dict[str, Tensor]:
    """Each score [stage] of one image."""
    object_P, scored_P = share_P >= OBJECT, (share_P >= OBJECT) | (share_P == 0)
    background_P = scored_P & ~object_P
    inside_SO, outside_SG = scores_SP[:, object_P, None], scores_SP[:, None, background_P]
    wins_S = (inside_SO > outside_SG).double() + (inside_SO == outside_SG).double() / 2
    at_least = [(of >= inside_SO).sum(-1).double() for of in (inside_SO.mT, scores_SP[:, None, scored_P])]
    ious = [_iou(above_SP, object_P, scored_P), _iou(~above_SP, background_P, scored_P)]
    return {
        "iou": ious[0],
        "mean_iou": (ious[0] + ious[1]) / 2,
        "accuracy": (above_SP == object_P)[:, scored_P].double().mean(-1),
        "average_precision": (at_least[0] / at_least[1]).mean(-1),  # the precision at each object patch's own score
        "auroc": wins_S.flatten(1).mean(-1),
    }


def _iou(said_SP: Tensor, true_P: Tensor, scored_P: Tensor) -> Tensor:
    said_SP, true_P = said_SP[:, scored_P], true_P[scored_P]
    return (said_SP & true_P).sum(-1).double() / (said_SP | true_P).sum(-1)
