"""An edited model and what it was before, from the folder that `prisma edit` writes: two models to compare.

Both show the same images: those of the mouse in the package that was edited, first some of the class that was edited;
else those of a pretrained model. A comparison begins with the other side.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from prisma.editing.folder import Edited, read_edited
from prisma.editing.weight_edit import source_of
from prisma.filesystem import given
from prisma.loaded import Loaded
from prisma_app.models import Shipped, shipped
from prisma_app.pictures import Picture
from prisma_app.pretrained import Pretrained
from prisma_app.subject import Subject, expect_still_images

BEFORE = "before the edit"


class OneSide(Subject):
    """The model of a folder, after its edit or before it."""

    def __init__(self, folder: Path, pair: Edited, pictures: Subject, *, after: bool) -> None:
        self._folder, self._pair, self._pictures, self._after = folder, pair, pictures, after

    @property
    def name(self) -> str:
        name = self._folder.resolve().name
        return name if self._after else f"{name}, {BEFORE}"

    @property
    def beside(self) -> str | None:
        """The other side."""
        return OneSide(self._folder, self._pair, self._pictures, after=not self._after).name

    @property
    def steps(self) -> list[int]:
        """One checkpoint; that of a mouse in the package is the end of its training."""
        return self._pictures.steps

    @property
    def final(self) -> Loaded:
        return self._pair.after if self._after else self._pair.before

    def _checkpoint(self, step: int) -> Loaded:
        return self.final

    def examples(self) -> list[Picture]:
        return self._pictures.examples()

    def kinds(self) -> Any:
        return self._pictures.kinds()

    def probe(self) -> tuple[Tensor, Tensor] | None:
        return self._pictures.probe()

    def about(self) -> Mapping[str, Any]:
        """What was edited, with what the folder's measures say."""
        about, measures = self._pair.edit.about, self._pair.measures
        first, second = (_named(about.get(role)) for role in ("from", "to"))
        lines = [_line(name, x) for name, x in measures.items() if _is_share(x)]
        words = f"Edited by {about.get('method', 'hand')}: {first} is to be called {second}."
        measured = ["Shares of images, with intervals of 95 %:\n" + "\n".join(lines)] if lines else []
        return {"task": self._pictures.about().get("task", ""), "card": "\n\n".join([words, *measured])}

    def code(self, step: int) -> str:
        side = "after" if self._after else "before"
        return f"from prisma.editing import read_edited\nloaded = read_edited({str(self._folder)!r}).{side}"

    def code_of(self, picture: Picture) -> str:
        return self._pictures.code_of(picture)

    def code_of_examples(self, count: int) -> str:
        return self._pictures.code_of_examples(count)


def edited_pair(folder: Path | str) -> tuple[OneSide, OneSide]:
    """(after, before) of a folder. Raises PrismaError as `read_edited`, and for a video model."""
    folder = given(folder)
    pair = read_edited(folder)
    expect_still_images(pair.after)
    pictures = _pictures(folder, pair)
    side = partial(OneSide, folder, pair, pictures)
    return side(after=True), side(after=False)


def _pictures(folder: Path, pair: Edited) -> Subject:
    """Whose images both show: those of the mouse with the weights before the edit, if the package has it."""
    before = source_of(pair.before.model)
    for ref in shipped():
        mouse = Shipped(ref, _class_of(pair.edit.about.get("from")))
        if mouse.final.config == pair.before.config and source_of(mouse.final.model) == before:
            return mouse
    return Pretrained(str(folder))


def _named(found: Any) -> str:
    if not isinstance(found, Mapping):
        return "a class"
    return str(found.get("name") or f"class {found.get('class')}")


def _class_of(found: Any) -> int | None:
    label = found.get("class") if isinstance(found, Mapping) else None
    return label if isinstance(label, int) else None


def _is_share(x: Any) -> bool:
    return isinstance(x, Mapping) and isinstance(x.get("value"), float)


def _line(name: str, x: Mapping[str, Any]) -> str:
    """`locality 0.998 (0.993 to 0.999), 975 images`, as far as the file has it."""
    between, n = "", x.get("n")
    match x.get("interval"):
        case [float(low), float(high)]:
            between = f" ({low:.3f} to {high:.3f})"
    return f"{name.replace('_', ' ')} {x['value']:.3f}{between}{f', {n:,} images' if isinstance(n, int) else ''}"
