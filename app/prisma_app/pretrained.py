"""A pretrained model as the app needs it: one checkpoint. Examples come with scikit-learn and scikit-image."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F

from prisma.filesystem import given
from prisma.loaded import Loaded, load
from prisma.pretrained.loading import is_folder
from prisma.view.browser import Packed, fractions
from prisma_app.subject import Picture, Subject, expect_still_images, transform_of

PROMPTS = (  # the default classes of a CLIP; they cover the examples, everyday pictures, and drawings
    *(f"a photo of {thing}" for thing in ("a temple", "a flower", "a cat", "a dog", "a bird", "a person", "a car")),
    "a photo of food",
    "a landscape",
    "a white drawing on black",
)
PICTURES = ("astronaut", "chelsea", "coffee", "rocket", "camera")  # of scikit-image, beside the two of scikit-learn
THUMBNAIL = 96  # most pixels of the longer side


class Pretrained(Subject):
    """A model of another library, or a checkpoint folder. The classes of a CLIP are prompts."""

    def __init__(self, ref: str, prompts: Sequence[str] = ()) -> None:
        """Raises PrismaError as `prisma.load`, for a video model, and for prompts where there is no text model."""
        self._name = given(ref).resolve().name if is_folder(ref) else ref
        self._final = _prepared(load(ref), prompts)

    @property
    def name(self) -> str:
        return self._name

    @property
    def steps(self) -> list[int]:
        """One checkpoint; its step is not known."""
        return [0]

    @property
    def final(self) -> Loaded:
        return self._final

    def _checkpoint(self, index: int) -> Loaded:
        return self._final

    def examples(self) -> list[Picture]:
        return self._examples

    def kinds(self) -> list[str]:
        """The file names."""
        return [example.caption.split(",")[0] for example in self._examples]

    def thumbnails(self) -> Packed:
        return self._thumbnails

    @cached_property
    def _examples(self) -> list[Picture]:
        """Three squares of each picture of scikit-learn, then the centres of those of scikit-image."""
        import skimage.data
        from sklearn.datasets import load_sample_images

        pictures, transform = load_sample_images(), transform_of(self._final)
        found: list[Picture] = []
        for path, picture in zip(pictures.filenames, pictures.images, strict=True):
            side, spare = picture.shape[0], picture.shape[1] - picture.shape[0]
            for where, left in (("left", 0), ("middle", spare // 2), ("right", spare)):
                caption = f"{Path(path).name}, {where} (from scikit-learn)"
                found.append(Picture(caption, transform(picture[:, left : left + side]), len(found)))
        for name in PICTURES:
            found.append(Picture(f"{name}, from scikit-image", transform(getattr(skimage.data, name)()), len(found)))
        return found

    @cached_property
    def _thumbnails(self) -> Packed:
        images = transform_of(self._final).pixels(torch.stack([example.x for example in self._examples]))
        shrunk = min(1.0, THUMBNAIL / max(images.shape[2:]))
        size = [round(side * shrunk) for side in images.shape[2:]]
        return fractions(F.interpolate(images, size, mode="area").permute(0, 2, 3, 1))


def _prepared(loaded: Loaded, prompts: Sequence[str]) -> Loaded:
    """In float32, as the images are, and with prompts as its classes if it has a text model."""
    transform_of(expect_still_images(loaded))
    loaded.model.float()
    if loaded.text is not None:
        loaded.text.model.float()
    return loaded.zero_shot(prompts or PROMPTS) if prompts or loaded.text is not None else loaded
