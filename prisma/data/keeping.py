"""Drawn images that are kept on this machine, by their hash, so that they are drawn once.

They are safetensors in `$PRISMA_CACHE`, which is `~/.cache/prisma` if it is not set; if it is set to nothing, none is
kept. What is read is compared with its hash as what is drawn is, so a file may be damaged or removed at any time.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from torch import Tensor

from prisma.checkpoint import read_tensors, to_safetensors
from prisma.errors import PrismaError
from prisma.files import write_atomic
from prisma.filesystem import given


def cache_folder() -> Path | None:
    """Where this machine keeps images; None if it keeps none."""
    folder = os.environ.get("PRISMA_CACHE")
    if folder is None:
        folder = str(Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "prisma")
    return given(folder) if folder else None


def _file(sha256: str) -> Path | None:
    folder = cache_folder()
    return folder and folder / "tasks" / f"{sha256}.safetensors"


def read_kept(sha256: str) -> Mapping[str, Tensor] | None:
    """The tensors that are kept for data of this hash, not compared with it; None if there are none."""
    path = _file(sha256)
    if path is None or not path.is_file():
        return None
    try:
        return read_tensors(path)[0]
    except PrismaError:  # damaged: it is written again
        return None


def keep(sha256: str, tensors: Mapping[str, Tensor]) -> None:
    """Keep tensors for data of this hash, if this machine lets us."""
    if (path := _file(sha256)) is not None:
        with suppress(PrismaError):
            write_atomic(path, to_safetensors({name: x.contiguous() for name, x in tensors.items()}, {}))
