"""A pretrained model as the app needs it: one state, and pictures that come with scikit-learn as examples."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch
import torch.nn.functional as F

from app.subject import Picture, Subject, of_still_images, transform_of
from prisma.loaded import Loaded, load
from prisma.pretrained.loading import is_folder
from prisma.view.browser import Packed, fractions

PROMPTS = (  # of a CLIP, unless the visitor has others: the examples, everyday pictures, a drawing
    *(f"a photo of {thing}" for thing in ("a temple", "a flower", "a cat", "a dog", "a bird", "a person", "a car")),
    "a photo of food",
    "a landscape",
    "a white drawing on black",
)
THUMBNAIL = 96  # pixels of the longer side, at most


class Pretrained(Subject):
    """A model of another library, or a checkpoint folder. The classes of a CLIP are prompts."""

    def __init__(self, ref: str, prompts: Sequence[str] = ()) -> None:
        """Raises PrismaError as `prisma.load`, or if it is no model of still images, or has no text for prompts."""
        self._name = Path(ref).expanduser().resolve().name if is_folder(ref) else ref
        self._final = _ready(load(ref), prompts)

    @property
    def name(self) -> str:
        return self._name

    @property
    def steps(self) -> list[int]:
        """One state, of no known step."""
        return [0]

    @property
    def final(self) -> Loaded:
        return self._final

    def _state(self, index: int) -> Loaded:
        return self._final

    def examples(self) -> list[Picture]:
        return self._examples

    def kinds(self) -> list[str]:
        """File names."""
        return [example.caption.split(",")[0] for example in self._examples]

    def thumbnails(self) -> Packed:
        return self._thumbnails

    @cached_property
    def _examples(self) -> list[Picture]:
        """Three squares of each picture."""
        from sklearn.datasets import load_sample_images

        pictures, transform = load_sample_images(), transform_of(self._final)
        found: list[Picture] = []
        for path, picture in zip(pictures.filenames, pictures.images, strict=True):
            side, spare = picture.shape[0], picture.shape[1] - picture.shape[0]
            for where, left in (("left", 0), ("middle", spare // 2), ("right", spare)):
                caption = f"{Path(path).name}, {where} (from scikit-learn)"
                found.append(Picture(caption, transform(picture[:, left : left + side]), len(found)))
        return found

    @cached_property
    def _thumbnails(self) -> Packed:
        images = transform_of(self._final).pixels(torch.stack([example.x for example in self._examples]))
        shrunk = min(1.0, THUMBNAIL / max(images.shape[2:]))
        size = [round(side * shrunk) for side in images.shape[2:]]
        return fractions(F.interpolate(images, size, mode="area").permute(0, 2, 3, 1))


def _ready(loaded: Loaded, prompts: Sequence[str]) -> Loaded:
    """In the precision of pictures, and with prompts as classes if there are any."""
    transform_of(of_still_images(loaded))
    loaded.model.float()
    if loaded.text is not None:
        loaded.text.model.float()
    return loaded.zero_shot(prompts or PROMPTS) if prompts or loaded.text is not None else loaded
