"""Published mice as the app needs them: checkpoints by index, and the probe images as examples."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from prisma.checkpoint import CONFIG, WEIGHTS
from prisma.errors import PrismaError, nearest
from prisma.loaded import Loaded, load
from prisma.repository import Published, published_in
from prisma.run_folder import PROBE
from prisma.view.browser import Packed, fractions
from prisma_app.subject import Picture, Subject, expect_still_images, transform_of

N_EXAMPLES = 20


@dataclass(frozen=True)
class Mouse(Subject):
    """One published mouse."""

    published: Published

    @property
    def name(self) -> str:
        return self.published.repo

    @property
    def steps(self) -> list[int]:
        return [int(entry["step"]) for entry in self._checkpoints()]

    @property
    def final(self) -> Loaded:
        """The model on the branch `main`."""
        return self._load(None)

    def _checkpoint(self, index: int) -> Loaded:
        entry = self._checkpoints()[index]
        return self._load(entry["commit" if self.published.commit else "revision"])  # a label may move, a commit not

    def examples(self) -> list[Picture]:
        """The first test images that are published with the mouse."""
        return _examples(self, self.published.file(PROBE))[0]

    def thumbnails(self) -> Packed:
        return _examples(self, self.published.file(PROBE))[1]

    def kinds(self) -> list[int]:
        """The class of each example."""
        labels: list[int] = self.published.probe()[1][:N_EXAMPLES].tolist()
        return labels

    def _load(self, revision: str | None) -> Loaded:
        folder = self.published.file(CONFIG, revision).parent
        self.published.file(WEIGHTS, revision)
        return _load(folder)

    def _checkpoints(self) -> list[dict[str, Any]]:
        entries = self.published.checkpoints()
        if not entries:
            raise PrismaError(f"expected a list of checkpoints in {self.published.repo}; found an empty one")
        return entries


@lru_cache(maxsize=16)
def _load(snapshot: Path) -> Loaded:
    """Cached by snapshot folder, which names the commit: when a label moves, its new commit is loaded."""
    return expect_still_images(load(snapshot))


@lru_cache(maxsize=16)
def _examples(mouse: Mouse, snapshot: Path) -> tuple[list[Picture], Packed]:
    images, labels = (x[:N_EXAMPLES] for x in mouse.published.probe())
    inputs = transform_of(mouse.final).normalise(images)
    known = mouse.labels
    names = [known[i] if i < len(known) else f"class {i}" for i in labels.tolist()]
    pictures = [
        Picture(f"Test image {i}, labelled {name}", x, i) for i, (x, name) in enumerate(zip(inputs, names, strict=True))
    ]
    return pictures, fractions(images.permute(0, 2, 3, 1))


def mice(hub: Path | None, model: str | None) -> list[str]:
    """The names of the mice that the app shows: all of a folder hub, or one on the Hugging Face Hub.

    Raises:
        PrismaError: the hub does not exist or is empty, or it does not have this model.
    """
    if hub is None:
        if model is None:
            raise PrismaError("expected a folder hub or the OWNER/NAME of a mouse; found neither")
        return [Published(model).repo]
    known = published_in(hub)
    if not known:
        raise PrismaError(f"expected a published mouse in the hub {hub}; found none. `prisma publish` adds one")
    if model is not None and model not in known:
        raise PrismaError(f"{model} is not published in the hub {hub}; the nearest: {nearest(model, known)}")
    return known
