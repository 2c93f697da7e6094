"""A model as the views need it: its checkpoints by training step, its classes, its example images."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from prisma.errors import PrismaError, quoted, shown
from prisma.loaded import Loaded
from prisma.view.browser import Array, pictures
from prisma_app.pictures import Picture, changed, drawing, ink_levels, transform_of, uploaded


class Subject(ABC):
    """One model with all its checkpoints, at one commit."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The name on the page and in its address."""

    @property
    def rev(self) -> str | None:
        """The commit that is shown; None if the model has none."""
        return None

    @property
    def beside(self) -> str | None:
        """The name of the model that a comparison begins with; None: this model, with another image or step."""
        return None

    @property
    @abstractmethod
    def steps(self) -> list[int]:
        """The training step of every checkpoint, in order."""

    @property
    @abstractmethod
    def final(self) -> Loaded:
        """The model at the end of training."""

    @abstractmethod
    def _checkpoint(self, step: int) -> Loaded: ...

    @abstractmethod
    def examples(self) -> list[Picture]:
        """Example images, from which a visitor can choose."""

    @abstractmethod
    def kinds(self) -> Sequence[Any]:
        """The label of each example: two examples with different labels make a pair for patching."""

    def probe(self) -> tuple[Tensor, Tensor] | None:
        """Test images as model input and their classes, for accuracy; None if there are none."""
        return None

    def test_images(self, most: int) -> list[Picture]:
        """At most this many test images, those of which `code_of_examples` makes the input; by default the examples."""
        return self.examples()[:most]

    def metrics(self) -> list[dict[str, Any]]:
        """The lines that training logged: `{"step", "loss", ...}`."""
        return []

    def about(self) -> Mapping[str, Any]:
        """What else to say of the model: `{"accuracy": {"value", "n"}, "task", "card": Markdown}`, as far as known.

        A model whose logits are not classes has `"result": {"name", "value", "n"}` in place of an accuracy.
        """
        return {}

    def code(self, step: int) -> str:
        """The Python that loads the model after a training step, as `loaded`."""
        return f"loaded = prisma.load({self.name!r})"

    def code_of(self, picture: Picture) -> str:
        """The Python that makes a picture's model input [1, channel, height, width], as an expression."""
        if picture.img.startswith("ink:"):
            side, levels = ink_levels(picture.img)
            made = f"np.array([17 * int(level, 16) for level in {levels!r}], np.uint8).reshape({side}, {side})"
            return f"loaded.transform({made})[None]"
        return 'loaded.transform(decoded(Path("your-image.png").read_bytes()).pixels)[None]'

    def code_of_examples(self, count: int) -> str:
        """The Python that makes the model input of the first test images, with the model as `loaded`."""
        return f"torch.cat([{', '.join(map(self.code_of, self.examples()[:count]))}])"

    def at(self, step: int | None) -> Loaded:
        """The model after a training step; the last by default.

        Raises:
            PrismaError: no checkpoint was published for it, it cannot be read, or it is a video model.
        """
        known = self.steps
        if step is not None and step not in known:
            near = sorted(known, key=lambda other: abs(other - step))[:5]
            raise PrismaError(
                f"{self.name} publishes {len(known)} training steps from {known[0]} to {known[-1]}; found step {step}; "
                f"the nearest: {', '.join(map(str, sorted(near)))}"
            )
        return self._checkpoint(known[-1] if step is None else step)

    @property
    def prompts(self) -> str | None:
        """The classes of a CLIP, a line each; None for a model with classes of its own."""
        return None

    def prompted(self, prompts: str) -> "Subject":
        """The same model with prompts, one in each line, as its classes. Raises PrismaError if it is no CLIP."""
        raise PrismaError(f"expected a CLIP for prompts; found {self.name}, which has classes of its own")

    @property
    def labels(self) -> list[str]:
        """A name for each logit; without classes, the logits are features."""
        config, named = self.final.config, self.final.labels
        what, count = ("class", config.n_classes) if config.n_classes else ("feature", config.d_pooled)
        return [*map(shown, named), *(f"{what} {i}" for i in range(len(named), count))]

    def picture(self, img: str) -> Picture:
        """The image that an address names (`pictures`). Raises PrismaError if there is no such image."""
        if img.startswith("sha256:"):
            return uploaded(img, self.final)
        if img.startswith("ink:"):
            return drawing(img, self.final)
        known = self.examples()
        if not (img.isascii() and img.isdigit() and len(img) < 6 and int(img) < len(known)):
            raise PrismaError(f"expected an example from 0 to {len(known) - 1}; found {quoted(img, 40)}")
        return known[int(img)]

    def corrupt_picture(self, corrupt: str | None, clean: Picture) -> Picture:
        """The other image of a pair; by default the first example with another label.

        Raises:
            PrismaError: there is no such image, or it is the clean image.
        """
        if corrupt is None:
            return self._other(clean)
        if corrupt[:1].isalpha() and not corrupt.startswith(("sha256:", "ink:")):
            return changed(corrupt, clean, self.final.config)
        picture = self.picture(corrupt)
        if picture.img == clean.img:
            raise PrismaError("expected a corrupt image that differs from the clean image; found the same image")
        return picture

    def _other(self, clean: Picture) -> Picture:
        kinds, examples = self.kinds(), self.examples()
        mine = kinds[int(clean.img)] if clean.img.isdigit() else None
        others = (example for example, kind in zip(examples, kinds, strict=True) if kind != mine)
        return next((other for other in others if other.img != clean.img), examples[0])

    def shown(self, x: Tensor) -> Array:
        """Model inputs [image, channel, height, width] as images to show."""
        return pictures(transform_of(self.final).pixels(x))


def expect_still_images(loaded: Loaded) -> Loaded:
    """Returns its argument. Raises PrismaError if it is a video model."""
    if loaded.config.frames > 1:
        raise PrismaError(f"expected a model for still images; found a video model with {loaded.config.frames} frames")
    return loaded


def prefix_names(loaded: Loaded) -> list[str]:
    """A name for each token before the patches."""
    config = loaded.config
    return ["class token"] * config.class_token + [f"register {i}" for i in range(config.registers)]
