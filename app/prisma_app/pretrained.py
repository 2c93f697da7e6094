"""A pretrained model as the app needs it: one checkpoint. Examples come with scikit-learn and scikit-image."""

from collections.abc import Sequence
from copy import copy
from functools import cached_property
from pathlib import Path

from prisma.errors import PrismaError
from prisma.filesystem import given
from prisma.loaded import Loaded, load
from prisma.pretrained.loading import is_folder
from prisma_app.pictures import Picture, transform_of
from prisma_app.subject import Subject, expect_still_images

PROMPTS = (  # the default classes of a CLIP; they cover the examples, everyday pictures, and drawings
    *(f"a photo of {thing}" for thing in ("a temple", "a flower", "a cat", "a dog", "a bird", "a person", "a car")),
    "a photo of food",
    "a landscape",
    "a white drawing on black",
)
PICTURES = ("astronaut", "chelsea", "coffee", "rocket", "camera")  # of scikit-image, beside the two of scikit-learn
MOST_PROMPTS = 50


class Pretrained(Subject):
    """A model of another library, or a checkpoint folder. The classes of a CLIP are prompts."""

    def __init__(self, ref: str, prompts: Sequence[str] = ()) -> None:
        """Raises PrismaError as `prisma.load`, for a video model, and for prompts where there is no text model."""
        self._ref, self._loaded = ref, load(ref)
        self._name = given(ref).resolve().name if is_folder(ref) else ref
        self._final = _prepared(self._loaded, prompts)

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

    def _checkpoint(self, step: int) -> Loaded:
        return self._final

    @property
    def prompts(self) -> str | None:
        return None if self._loaded.text is None else "\n".join(self._final.labels)

    def prompted(self, prompts: str) -> "Pretrained":
        """The same weights with other prompts as the classes. Raises PrismaError if it has no text model."""
        lines = tuple(line.strip() for line in prompts.split("\n") if line.strip())
        if self._loaded.text is None:
            return super().prompted(prompts)  # type: ignore[return-value]  # raises
        if not 0 < len(lines) <= MOST_PROMPTS:
            raise PrismaError(f"expected 1 to {MOST_PROMPTS} prompts, one in each line; found {len(lines)}")
        other = copy(self)
        other._final = self._loaded.zero_shot(lines)
        return other

    def code(self, step: int) -> str:
        prompts = f".zero_shot({list(self._final.labels)!r})" if self._loaded.text is not None else ""
        return f"loaded = prisma.load({self._ref!r}){prompts}"

    def code_of(self, picture: Picture) -> str:
        if not picture.img.isdigit():
            return super().code_of(picture)
        self.examples()
        return f"loaded.transform({self._codes[int(picture.img)]})[None]"

    def examples(self) -> list[Picture]:
        return self._examples

    def kinds(self) -> list[str]:
        """The file names."""
        return [example.caption.split(",")[0] for example in self._examples]

    @cached_property
    def _examples(self) -> list[Picture]:
        """Three squares of each picture of scikit-learn, then the centres of those of scikit-image."""
        import skimage.data
        from sklearn.datasets import load_sample_images

        pictures, transform = load_sample_images(), transform_of(self._final)
        found: list[Picture] = []
        self._codes: list[str] = []
        for i, (path, picture) in enumerate(zip(pictures.filenames, pictures.images, strict=True)):
            side, spare = picture.shape[0], picture.shape[1] - picture.shape[0]
            for where, left in (("left", 0), ("middle", spare // 2), ("right", spare)):
                caption = f"{Path(path).name}, {where} (from scikit-learn)"
                found.append(Picture(caption, transform(picture[:, left : left + side]), str(len(found))))
                self._codes.append(f"load_sample_images().images[{i}][:, {left}:{left + side}]")
        for name in PICTURES:
            x = transform(getattr(skimage.data, name)())
            found.append(Picture(f"{name}, from scikit-image", x, str(len(found))))
            self._codes.append(f"skimage.data.{name}()")
        return found


def _prepared(loaded: Loaded, prompts: Sequence[str]) -> Loaded:
    """In float32, as the images are, and with prompts as its classes if it has a text model."""
    transform_of(expect_still_images(loaded))
    loaded.model.float()
    if loaded.text is not None:
        loaded.text.model.float()
    return loaded.zero_shot(prompts or PROMPTS) if prompts or loaded.text is not None else loaded
