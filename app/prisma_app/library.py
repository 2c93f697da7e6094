"""Which models the app shows, and what a state means: the model, checkpoint and image that it names."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from prisma.config import ViTConfig
from prisma.editing.folder import is_edited
from prisma.errors import PrismaError, nearest, quoted, shown
from prisma.filesystem import given
from prisma.loaded import Loaded
from prisma.pretrained.loading import is_folder
from prisma.pretrained.references import PREFIXES
from prisma.repository import Published, published_in
from prisma_app.cache import Cache
from prisma_app.edited import edited_pair
from prisma_app.models import Mouse, Shipped, mice, pinned, shipped
from prisma_app.pictures import Picture
from prisma_app.pretrained import Pretrained
from prisma_app.state import State
from prisma_app.subject import Subject

SUBJECTS = 64  # models at a commit whose lists and examples are kept


@dataclass(frozen=True)
class Library:
    """The models that visitors may choose from: an allow-list.

    Args:
        names: in the order of the page; the first is the default.
        make: the model of a name, at the commit of the list.
        build: what tells one build of a Space from another.
        folder: where the models lie, which no visitor is told.
    """

    names: Sequence[str]
    make: Callable[[str], Subject]
    build: str | None = None
    folder: Path | None = None

    @cached_property
    def _kept(self) -> Cache[Subject]:
        return Cache(SUBJECTS, lambda _: 1)

    def subject(self, name: str | None, rev: str | None) -> Subject:
        """The model of a name, at a commit; the first model by default.

        Raises:
            PrismaError: it is not in the list, or cannot be read, or has no such commit.
        """
        name = self.names[0] if name is None else name
        if name not in self.names:
            raise PrismaError(f"there is no model {quoted(name)} here; the nearest: {nearest(shown(name), self.names)}")
        made = self.make(name)
        if not isinstance(made, Mouse):
            if rev is not None:
                raise PrismaError(f"expected no commit for {name}, which has one state; found {quoted(rev, 40)}")
            return made
        commit = made.commit_of(rev)
        return self._kept.get((name, commit), lambda: pinned(made, commit))

    def words(self, error: PrismaError) -> str:
        """What a visitor is told of an error: its message, where files are named from the folder of the models on."""
        text = str(error)
        for folder in () if self.folder is None else (self.folder.absolute(), self.folder.resolve()):
            if folder.name:
                text = text.replace(f"{folder}{os.sep}", "").replace(str(folder), "the folder of the models")
        return text

    def scene(self, state: State) -> "Scene":
        """What a state names. Raises PrismaError for what does not exist."""
        subject = self.subject(state.model, state.rev)
        if state.prompts:
            subject = subject.prompted(state.prompts)
        return Scene(state, subject)


@dataclass(frozen=True)
class Scene:
    """A state, and the model, checkpoint and image that it names; each is found when it is asked for."""

    state: State
    subject: Subject

    @cached_property
    def loaded(self) -> Loaded:
        """The model after the state's training step. Raises PrismaError if there is no such step."""
        return self.subject.at(self.state.step)

    @cached_property
    def picture(self) -> Picture:
        """The image. Raises PrismaError if there is no such image."""
        return self.subject.picture(self.state.img)

    @cached_property
    def corrupt(self) -> Picture:
        """The other image of a pair. Raises PrismaError if there is no such image."""
        return self.subject.corrupt_picture(self.state.corrupt, self.picture)

    @property
    def config(self) -> ViTConfig:
        return self.loaded.config

    @property
    def step(self) -> int:
        """The training step that is shown."""
        return self.subject.steps[-1] if self.state.step is None else self.state.step

    def at_step(self, step: int) -> "Scene":
        """The same scene at another training step."""
        return Scene(self.state.model_copy(update={"step": step}), self.subject)

    def index(self, what: str, value: int | None, count: int, default: int = 0) -> int:
        """A layer, head, token or class of the state, checked. Raises PrismaError if the model has fewer."""
        value = default if value is None else value
        if not 0 <= value < count:
            raise PrismaError(f"expected a {what} from 0 to {count - 1}; found {value}")
        return value

    def resolved(self, **more: Any) -> dict[str, Any]:
        """The keys of the state that the server filled in or that name what is shown."""
        return {
            "model": self.subject.name,
            "rev": self.subject.rev,
            "img": self.picture.img,
            "step": self.step,
            **more,
        }


def library_of(hub: Path | None, model: str | None, prompts: Sequence[str]) -> Library:
    """Every mouse of a folder hub, one mouse of the Hugging Face Hub (`hub=None`), or one model of a library.

    With neither, the mice in the package. The folder of an edited model is two: after the edit and before.

    Args:
        model: the first model to show: a mouse of the hub. Or the only one: a folder, or a name in another library
            (see `prisma.load`). A mouse goes before a folder of the same name.
        prompts: the classes of a CLIP.

    Raises:
        PrismaError: the hub does not exist or is empty, or `model` does not exist or cannot be shown.
    """
    hub = None if hub is None else given(hub)
    published = hub is not None and hub.is_dir() and model in published_in(hub)
    if model is not None and model.startswith("mice/") and not published:
        hub = None
    elif model is not None and not published and (is_folder(model) or model.partition("/")[0] in PREFIXES):
        if is_folder(model) and is_edited(model) and not prompts:
            sides = {side.name: side for side in edited_pair(model)}
            return Library(list(sides), sides.__getitem__, folder=Path(model).parent)
        only = Pretrained(model, prompts)
        return Library([only.name], lambda _: only, folder=Path(model).parent if is_folder(model) else None)
    if prompts:
        raise PrismaError(f"prompts are the classes of a CLIP from a folder or a library; found model={model!r}")
    if hub is None and (model is None or model.startswith("mice/")):
        known = shipped()
        if model is not None and model not in known:
            raise PrismaError(
                f"there is no mouse {quoted(model)} in this package; the nearest: {nearest(model, known)}"
            )
        return Library(_with_first(model or known[0], known), Shipped)
    known = mice(hub, model)
    return Library(_with_first(model or best(known, hub), known), lambda name: Mouse(Published(name, hub)), folder=hub)


def _with_first(first: str, names: Sequence[str]) -> list[str]:
    return [first, *(name for name in names if name != first)]


def best(names: Sequence[str], hub: Path | None) -> str:
    """The mouse to show first: the one with the best test accuracy, and of those the one with most checkpoints."""

    def quality(name: str) -> tuple[float, int]:
        try:
            mouse = Mouse(Published(name, hub))
            accuracy = mouse.about().get("accuracy") or {"value": 0.0}
            return (round(accuracy["value"], 2), len(mouse.steps))
        except (PrismaError, ValueError, KeyError, TypeError):
            return (-1.0, 0)

    return names[0] if len(names) == 1 else max(names, key=quality)
