"""The app as a Hugging Face Space starts it: `app.py` beside this package calls `start`.

`prisma space` writes the file `space.json` beside `app.py`, which lists the models. Without that file, the mice of the
folder hub `hub/` are shown, if there is one; otherwise the published mouse that the variable PRISMA_MODEL names.
"""

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from prisma.errors import PrismaError
from prisma.files import read_json, sha256
from prisma.repository import Published
from prisma_app.library import Library, library_of
from prisma_app.main import launch
from prisma_app.models import Mouse

HUB, SPACE = "hub", "space.json"


def start(folder: Path) -> None:
    """Serve the app of a Space's folder. A mistake in the folder ends the process with one sentence."""
    _start_zero_gpu()
    try:
        library = library_in(folder)
    except PrismaError as error:
        source = SPACE if (folder / SPACE).is_file() else f"The variable PRISMA_MODEL or the folder {HUB}/"
        sys.exit(f"{source} is wrong: {error}")
    launch(lambda: library)


def library_in(folder: Path) -> Library:
    """The models of a Space's folder.

    Raises:
        PrismaError: `space.json` is not one, or the models that it or the variable names cannot be shown.
    """
    hub = folder / HUB if (folder / HUB).is_dir() else None
    if not (folder / SPACE).is_file():
        return library_of(hub, os.environ.get("PRISMA_MODEL", None if hub else "prisma/digits"), ())
    models = {mouse.repo: mouse for mouse in listed_models(folder)}
    names = list(models)
    return Library(names, lambda name: Mouse(models[name]), sha256(folder / SPACE), folder)


def listed_models(folder: Path) -> list[Published]:
    """The mice that `space.json` lists: `{"models": [{"repo": OWNER/NAME, "commit": 40 hex digits}], "hub": bool}`.

    Raises:
        PrismaError: it lists none, or something else.
    """
    found = read_json(folder / SPACE)
    hub = folder / HUB if found.get("hub") else None
    try:
        mice = [Published(model["repo"], hub, model["commit"]) for model in found["models"]]
    except (KeyError, TypeError):
        mice = []
    if not mice:
        raise PrismaError(f"expected a list of models, each with repo and commit, in {SPACE}; found something else")
    return mice


def _start_zero_gpu() -> None:
    """ZeroGPU ends a Space that has no function for the GPU. The app computes on the CPU, and so declares an idle one.

    The package `spaces` comes with the hardware, and starts with the first `launch` after its import.
    """
    if os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true"):
        spaces: Any = import_module("spaces")
        spaces.GPU(_idle)


def _idle() -> None: ...
