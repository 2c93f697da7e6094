"""Class maps: where in the picture can a class be read, at each stage?

The map of a stage is the logit lens of each patch alone, for one class, laid out as the patches are. What can be read
from a patch need not be what the answer needs, and need not be where the object is: a model may keep a copy of its
answer in the smooth patches of the background, as the sprites mouse does. `segmentation` scores maps against masks.

Source: Vilas et al. 2310.18969 (class projections of patches).

Shapes: B batch, S stage (0 is the embedding, s is after block s - 1), P patch, M d_model, C class, N patches of all
images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from prisma.analysis.border import guarded
from prisma.analysis.lens.logit_lens import read_alone, stages_of
from prisma.analysis.result import Result
from prisma.errors import PrismaError, quoted
from prisma.metrics import NAMED, Target, measure, named_metric
from prisma.view.figures.maps import chosen_images, draw_images
from prisma.vit import ViT

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassMaps(Result):
    """How much a class can be read from each patch alone, at each stage.

    In the units of `metadata["value"]`: a large logit or probability is a patch from which the model's own readout
    would answer this class. Bright patches need not lie on the object.
    """

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
        """A column for each image (or for each time of a video), a row for each stage.

        Args:
            pictures: the same images, [image, channel, (frame,) height, width] in [0, 1], drawn above the maps.
            masks: [image, (frame,) height, width], true where the object is: its outline is drawn.
            images: indices of the images to draw, by default the first six.
            stages: the stages to draw, by default four from the embedding to the last.

        Raises:
            PrismaError: an image or stage that does not exist, or pictures or masks that do not fit.
        """
        if array not in (None, "maps"):
            return super().plot(array)  # whose error lists the arrays
        last = self.maps.shape[1] - 1
        rows = sorted({round(last * i / 3) for i in range(4)}) if stages is None else list(stages)
        if not rows or not all(0 <= stage <= last for stage in rows):
            raise PrismaError(f"expected stages from 0 to {last}; found {rows}")
        chosen, maps = chosen_images(len(self.maps), images), self.arrays["maps"]
        title = f"{self.metadata['analysis']}: where the class could be read ({self.metadata['value']})".replace(
            "_", " "
        )
        by_stage = {f"stage {s}": maps[:, s] for s in rows}
        return draw_images(by_stage, pictures, masks, chosen, title=title, signs=False)


@guarded
@torch.no_grad()
def class_maps(
    model: ViT, images: Tensor, target: Target, *, value: str = "logit", batch: int | None = None
) -> ClassMaps:
    """Where in the picture can this class be read, at each stage?

    Each patch alone is given to the model's own readout: a large number is a patch from which the readout would answer
    the class. Compare patches within a stage; a map that is bright on the background means that the class is readable
    there, not that an object is there.

    Args:
        images: [batch, channel, (frame,) height, width]. target: the class, or one for each image. For
        `loaded.zero_shot(prompts).model`, the number of the prompt. value: "logit", "probability" or "logit_diff" (to
        the patch's own next best class), as in `prisma.metrics.NAMED`. batch: images in one pass; by default as many as
        have about 256 MiB of activations.

    Returns:
        `maps` [image, stage, (time,) row, column], in units of `value`.

    Raises:
        PrismaError: the model has no classes or not this class, or an option has another value than those above.

    Source: Vilas et al. 2310.18969.
    """
    if value not in NAMED:
        raise PrismaError(f"expected value to be one of {', '.join(NAMED)}; found {value!r}")
    c = model.config
    try:
        classes = torch.as_tensor(target)
    except (TypeError, ValueError, RuntimeError):
        raise PrismaError(
            f"expected a class, or one for each of {len(images)} images; found {quoted(target)}"
        ) from None
    if classes.is_floating_point() or classes.shape not in ((), images.shape[:1]):
        found = f"{list(classes.shape)} with {classes.dtype}"
        raise PrismaError(f"expected a class, or one for each of {len(images)} images; found {found}")
    if c.n_classes and not ((classes >= 0) & (classes < c.n_classes)).all():
        raise PrismaError(f"expected classes from 0 to {c.n_classes - 1}; found {classes.tolist()}")
    target_N = classes.expand(len(images)).repeat_interleave(c.n_patches)
    grid = c.grid if c.frames > 1 else c.grid[1:]
    stages = [read_alone(model, x_BTM[:, c.n_prefix :], batch) for x_BTM in stages_of(model, images, batch)]
    per_patch = [x_BPC.flatten(0, 1) for x_BPC in stages]
    values = [measure(named_metric(value, x_NC, target_N.to(x_NC.device)), x_NC).view(-1, *grid) for x_NC in per_patch]
    metadata = {"analysis": "class_maps", "target": classes.tolist(), "value": value}
    return ClassMaps(metadata=metadata, maps=torch.stack(values, dim=1))
