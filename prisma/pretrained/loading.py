"""Loading a model by its own library, whichever that is, and comparing our conversion with it on its own weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from prisma.bounds import NUMBERS
from prisma.checkpoint import CONFIG
from prisma.errors import PrismaError, quoted
from prisma.filesystem import given
from prisma.pretrained.families import family_of, text_family_of
from prisma.pretrained.family import Family
from prisma.pretrained.folders import expect_model, library_of
from prisma.pretrained.open_clip import loading as open_clip
from prisma.pretrained.parity import Parity, compare, random_inputs
from prisma.pretrained.references import FORMS, PREFIXES, expect_spelling
from prisma.pretrained.source import ImageSize, SourceModel
from prisma.pretrained.timm import loading as timm
from prisma.pretrained.transformers import loading as transformers
from prisma.pretrained.twin import in_float32, twin
from prisma.pretrained.values import expect_values

LIBRARIES: Mapping[str, Any] = {"timm": timm, "transformers": transformers, "open_clip": open_clip}
"""Library -> the module that loads its models: `load_name`, `load_folder`, `load_module`."""


def load_source(
    ref: str | Path | nn.Module, revision: str | None = None, image_size: ImageSize = None
) -> SourceModel | None:
    """A model of another library; None if `ref` is a folder that Prisma wrote, or the name of a published mouse.

    Raises:
        PrismaError: there is no such model, or it is incomplete.
        UnsupportedModelError: the model cannot be converted exactly.
    """
    image_size = _expected(image_size)
    if isinstance(ref, nn.Module):
        expect_no_revision(type(ref).__name__, revision)
        library = LIBRARIES[family_of(ref).library]
        expect_values(ref.state_dict(), type(ref).__name__)
        source: SourceModel = library.load_module(ref, image_size)
        return source
    if is_folder(ref):
        folder = given(ref)
        expect_no_revision(str(folder), revision)
        if not _is_there(folder):
            raise PrismaError(f"expected a checkpoint folder with {CONFIG} at {folder}; found no such folder")
        expect_model(folder)
        wrote = library_of(folder)
        return None if wrote is None else LIBRARIES[wrote].load_folder(folder, image_size)
    expect_spelling(str(ref))
    prefix, _, name = str(ref).partition("/")
    if not name:
        raise PrismaError(f"expected {FORMS}; found {quoted(ref)}, and there is no such folder here")
    return None if prefix not in PREFIXES else LIBRARIES[PREFIXES[prefix]].load_name(name, revision, image_size)


def _expected(image_size: Any) -> ImageSize:
    """The image size. Raises PrismaError unless it is None, a side, or (height, width)."""
    pair = (image_size, image_size) if isinstance(image_size, int) else image_size
    if image_size is None:
        return None
    low, high = NUMBERS["image_size"]
    if isinstance(pair, tuple | list) and len(pair) == 2 and all(type(x) is int and low <= x <= high for x in pair):
        return image_size if isinstance(image_size, int) else (pair[0], pair[1])
    raise PrismaError(
        f"expected image_size as a side in pixels or (height, width), from {low:,} to {high:,}; found "
        f"{quoted(image_size)}"
    )


def is_folder(ref: str | Path) -> bool:
    """Whether a reference means a folder on this machine: it exists, also as a file, or it looks like a path."""
    return isinstance(ref, Path) or ref.startswith(("/", ".", "~")) or (bool(ref) and _is_there(Path(ref)))


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # the name is too long, or has a NUL or half of a character
        return False


def check(ref: str | Path | nn.Module, revision: str | None = None, image_size: ImageSize = None) -> dict[str, Parity]:
    """The largest differences between a model of another library and our conversion of it, on the model's own weights.

    Returns:
        `{"image": Parity}`, and `"text"` for a pair. Inputs are noise. Both are computed in float32, whatever the
        precision of the weights: in half precision, rounding would hide a difference.

    Raises:
        PrismaError: as `prisma.load` does; or the reference means a model that Prisma wrote.
    """
    source = load_source(ref, revision, image_size)
    if source is None:
        raise PrismaError(f"expected a model of timm, transformers or open_clip to check; found {ref}")
    towers: dict[str, tuple[Family, nn.Module]] = {"image": (family_of(source.module), source.module)}
    if source.text is not None:
        towers["text"] = (text_family_of(source.text), source.text)
    return {
        name: compare(family, _in_float32(module), random_inputs(family.read(module).config))
        for name, (family, module) in towers.items()
    }


def _in_float32(module: nn.Module) -> nn.Module:
    """The module itself if all its weights are float32, else a twin in float32."""
    precise = all(x.dtype == torch.float32 for x in module.state_dict().values() if x.is_floating_point())
    return module if precise else twin(module, in_float32)


def expect_no_revision(what: str, revision: str | None) -> None:
    """Raise PrismaError if a revision is given for something on this machine, which has no revisions."""
    if revision is not None:
        raise PrismaError(f"expected no revision for {what}, which is on this machine; found revision={revision!r}")
