"""Loading a model by its own library, whichever that is, and comparing our conversion with it on its own weights."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from prisma.bounds import LARGEST
from prisma.checkpoint import CONFIG, MODEL_TYPE
from prisma.errors import PrismaError
from prisma.files import read_json
from prisma.pretrained.families import family_of, text_family_of
from prisma.pretrained.family import Family
from prisma.pretrained.open_clip import loading as open_clip
from prisma.pretrained.parity import Parity, compare, random_inputs
from prisma.pretrained.source import ImageSize, SourceModel
from prisma.pretrained.timm import loading as timm
from prisma.pretrained.transformers import loading as transformers

LIBRARIES: Mapping[str, Any] = {"timm": timm, "transformers": transformers, "open_clip": open_clip}
"""Library -> the module that loads its models: `load_name`, `load_folder`, `load_module`."""
PREFIXES = {"timm": "timm", "hf": "transformers", "open_clip": "open_clip"}
"""First part of a reference -> library."""


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
        source: SourceModel = LIBRARIES[family_of(ref).library].load_module(ref, image_size)
        return source
    prefix, _, name = str(ref).partition("/")
    if is_folder(ref):
        folder = Path(ref).expanduser()
        expect_no_revision(str(folder), revision)
        library = library_of(folder)
        return None if library is None else LIBRARIES[library].load_folder(folder, image_size)
    if not name:
        raise PrismaError(
            "expected a folder, timm/NAME, hf/ORG/NAME, open_clip/NAME, mice/NAME, or OWNER/NAME of a published mouse; "
            f"found {str(ref)!r:.80}"
        )
    return None if prefix not in PREFIXES else LIBRARIES[PREFIXES[prefix]].load_name(name, revision, image_size)


def _expected(image_size: Any) -> ImageSize:
    """The image size. Raises PrismaError unless it is None, a side, or (height, width)."""
    pair = (image_size, image_size) if isinstance(image_size, int) else image_size
    if image_size is None:
        return None
    if isinstance(pair, tuple | list) and len(pair) == 2 and all(type(x) is int and 0 < x <= LARGEST for x in pair):
        return image_size if isinstance(image_size, int) else (pair[0], pair[1])
    raise PrismaError(f"expected image_size as a side in pixels or (height, width); found {image_size!r}")


def is_folder(ref: str | Path) -> bool:
    """Whether a reference means a folder on this machine: the folder exists, or the reference looks like a path."""
    try:
        exists = Path(ref).expanduser().is_dir()
    except (OSError, RuntimeError):  # the name is too long, or there is no such home folder
        return False
    return isinstance(ref, Path) or exists or ref.startswith(("/", ".", "~"))


def library_of(folder: Path) -> str | None:
    """The library that wrote a folder; None if it is Prisma, or no library that Prisma knows."""
    if (folder / "open_clip_config.json").is_file():
        return "open_clip"
    try:
        config = read_json(folder / CONFIG)
    except PrismaError:
        return None
    if config.get("model_type") == MODEL_TYPE:
        return None
    if "architecture" in config and "model_type" not in config:
        return "timm"
    return "transformers" if "model_type" in config else None


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
    """The module itself if all its weights are float32, else a copy in float32."""
    precise = all(x.dtype == torch.float32 for x in module.state_dict().values() if x.is_floating_point())
    return module if precise else copy.deepcopy(module).float()


def expect_no_revision(what: str, revision: str | None) -> None:
    """Raise PrismaError if a revision is given for something on this machine, which has no revisions."""
    if revision is not None:
        raise PrismaError(f"expected no revision for {what}, which is on this machine; found revision={revision!r}")
