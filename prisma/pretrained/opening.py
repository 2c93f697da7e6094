"""Finding out which library a model is of, and opening it; the parity check of real weights."""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prisma.checkpoint import CONFIG, MODEL_TYPE
from prisma.config import LARGEST, TextConfig, ViTConfig
from prisma.errors import PrismaError
from prisma.pretrained import from_open_clip, from_timm, from_transformers
from prisma.pretrained.families import family_of, text_family_of
from prisma.pretrained.family import Family
from prisma.pretrained.opened import ImageSize, Opened
from prisma.pretrained.parity import Parity, compare

SOURCES: Mapping[str, Any] = {"timm": from_timm, "transformers": from_transformers, "open_clip": from_open_clip}
"""Library -> how its models are opened: `open_ref`, `open_folder`, `of_module`."""
PREFIXES = {"timm": "timm", "hf": "transformers", "open_clip": "open_clip"}
"""First part of a name -> library."""


def open_source(
    ref: str | Path | nn.Module, revision: str | None = None, image_size: ImageSize = None
) -> Opened | None:
    """A model of another library; None if the reference is not to one: a folder of Prisma's, or a published mouse.

    Raises:
        PrismaError: nothing there, or it is not a whole model.
        UnsupportedModelError: the model cannot be had exactly.
    """
    image_size = _expected(image_size)
    if isinstance(ref, nn.Module):
        expect_no_revision(type(ref).__name__, revision)
        opened: Opened = SOURCES[family_of(ref).library].of_module(ref, image_size)
        return opened
    prefix, _, name = str(ref).partition("/")
    if is_folder(ref):
        folder = Path(ref).expanduser()
        expect_no_revision(str(folder), revision)
        library = library_of(folder)
        return None if library is None else SOURCES[library].open_folder(folder, image_size)
    if not name:
        raise PrismaError(
            "expected a folder, timm/NAME, hf/ORG/NAME, open_clip/NAME, mice/NAME, or OWNER/NAME of a mouse; "
            f"found {str(ref)!r:.80}"
        )
    return None if prefix not in PREFIXES else SOURCES[PREFIXES[prefix]].open_ref(name, revision, image_size)


def _expected(image_size: Any) -> ImageSize:
    """Raises PrismaError unless it is None, a side, or (height, width)."""
    pair = (image_size, image_size) if isinstance(image_size, int) else image_size
    if image_size is None:
        return None
    if isinstance(pair, tuple | list) and len(pair) == 2 and all(type(x) is int and 0 < x <= LARGEST for x in pair):
        return image_size if isinstance(image_size, int) else (pair[0], pair[1])
    raise PrismaError(f"image_size must be a side in pixels or (height, width), found {image_size!r}")


def is_folder(ref: str | Path) -> bool:
    """Whether a reference is to a folder of this machine: there, or spelled like one."""
    try:
        there = Path(ref).expanduser().is_dir()
    except (OSError, RuntimeError):  # too long a name; nobody's home
        return False
    return isinstance(ref, Path) or there or ref.startswith(("/", ".", "~"))


def library_of(folder: Path) -> str | None:
    """Which library wrote a folder; None is Prisma itself, or nobody that we know."""
    if (folder / "open_clip_config.json").is_file():
        return "open_clip"
    try:
        config = json.loads((folder / CONFIG).read_text())
    except (OSError, ValueError):
        return None
    if not isinstance(config, dict) or config.get("model_type") == MODEL_TYPE:
        return None
    if "architecture" in config and "model_type" not in config:
        return "timm"
    return "transformers" if "model_type" in config else None


def check(ref: str | Path | nn.Module, revision: str | None = None, image_size: ImageSize = None) -> dict[str, Parity]:
    """The largest differences between a model of another library and our reading of it, on its own weights.

    Returns:
        `{"image": Parity}`, and `"text"` of a pair; on inputs of noise, in float32, whatever the weights are saved in:
        rounding to a half precision would hide a difference.

    Raises:
        PrismaError: as `prisma.load` does; or the reference is to a model of Prisma's own.
    """
    opened = open_source(ref, revision, image_size)
    if opened is None:
        raise PrismaError(f"expected a model of timm, transformers or open_clip to check, found {ref}")
    towers: dict[str, tuple[Family, nn.Module]] = {"image": (family_of(opened.module), opened.module)}
    if opened.text is not None:
        towers["text"] = (text_family_of(opened.text), opened.text)
    return {
        name: compare(family, _in_float32(module), noise_for(family.read(module).config))
        for name, (family, module) in towers.items()
    }


def _in_float32(module: nn.Module) -> nn.Module:
    """The module, or a copy of it if it is of another precision, or of several."""
    precise = all(x.dtype == torch.float32 for x in module.state_dict().values() if x.is_floating_point())
    return module if precise else copy.deepcopy(module).float()


def noise_for(config: ViTConfig | TextConfig, n: int = 2, dtype: torch.dtype = torch.float32) -> Tensor:
    """Inputs for a tower: [n, channel, (frame,) height, width] of noise, or token ids [n, context]."""
    generator = torch.Generator().manual_seed(0)
    if isinstance(config, TextConfig):
        ids = torch.randint(config.vocabulary, (n, config.context), generator=generator)
        if config.end is not None:
            ids[torch.arange(n), -1 - torch.arange(n) % config.context] = config.end
        return ids
    return torch.randn(n, *config.input_shape, generator=generator, dtype=dtype)


def expect_no_revision(what: str, revision: str | None) -> None:
    """Raise PrismaError if a revision is asked of what has none."""
    if revision is not None:
        raise PrismaError(f"{what} is here and has no revisions; found revision={revision!r}")
