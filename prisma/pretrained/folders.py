"""Which library wrote a folder, and the sentence for a folder that no library wrote as one model."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from prisma.checkpoint import CONFIG, MODEL_TYPE
from prisma.contents import LFS_POINTER, contents_of
from prisma.errors import PrismaError, UnsupportedModelError, by_number, listed
from prisma.files import read_json
from prisma.pretrained.weights import SUFFIX, described, weights_of_others

OPEN_CLIP = "open_clip_config.json"
_ALONE = ": weights alone do not tell the architecture; load a folder with a config.json beside them"
NAMED = 3  # the largest number of folders that a message names


def library_of(folder: Path) -> str | None:
    """The library that wrote a folder; None if it is Prisma, or no library that Prisma knows."""
    if (folder / OPEN_CLIP).is_file():
        return "open_clip"
    config = _config(folder)
    if config is None or config.get("model_type") == MODEL_TYPE:
        return None
    if "architecture" in config and "model_type" not in config:
        return "timm"
    return "transformers" if "model_type" in config else None


def expect_model(folder: Path) -> None:
    """Check that a folder is the folder of one whole model.

    Raises:
        PrismaError: it is a file, an adapter, a pipeline, or has models in its folders; the message says what to load.
        UnsupportedModelError: its weights are quantised.
    """
    if folder.is_file():
        where = f": load its folder, {folder.parent}" if (folder.parent / CONFIG).is_file() else ""
        what = contents_of(folder)
        raise PrismaError(
            f"expected a folder with a model at {folder}; found a file{f' ({what})' if what else ''}{where or _ALONE}"
        )
    if not folder.is_dir():
        return
    if adapter := _config(folder, "adapter_config.json"):
        raise PrismaError(
            f"expected a whole model in {folder}; found a PEFT adapter of {adapter.get('base_model_name_or_path')}: "
            "load both in PEFT, and save what model.merge_and_unload() returns"
        )
    if (folder / "model_index.json").is_file():
        raise PrismaError(f"expected one model in {folder}; found a pipeline of diffusers{_folders(folder, 'parts')}")
    config = _config(folder)
    if config is None and not (folder / OPEN_CLIP).is_file():
        if contents_of(folder / CONFIG) == LFS_POINTER:
            raise PrismaError(f"expected JSON in {folder / CONFIG}; found {LFS_POINTER}")
        if not (folder / CONFIG).exists():
            _expect_no_models_below(folder)
            raise PrismaError(f"expected a checkpoint folder with {CONFIG} at {folder}; found {_instead(folder)}")
    if config is not None and (quantised := config.get("quantization_config")):
        method = quantised.get("quant_method") if isinstance(quantised, dict) else quantised
        raise UnsupportedModelError(
            f"expected weights that are not quantised in {folder}; found quantization_config ({method!s:.40}): use the "
            "model from which it was made"
        )
    if config is not None and "model_type" not in config and "architecture" not in config:
        raise PrismaError(
            f"expected the config.json of a model of Prisma, timm or transformers in {folder}; found JSON without "
            f"model_type and architecture ({', '.join(map(str, list(config)[:5])) or 'empty'})"
        )


def _expect_no_models_below(folder: Path) -> None:
    """Raise PrismaError, which names them, if the model or the models are one level deeper."""
    below = [path for path in folder.glob("*") if path.is_dir()]
    if any(path.name.startswith("models--") for path in below):
        raise PrismaError(
            f"expected the folder of one model; found a folder hub in {folder}: write prisma.load(OWNER/NAME, hub=...)"
        )
    if (folder / "snapshots").is_dir() and folder.name.startswith("models--"):
        name = folder.name.removeprefix("models--").replace("--", "/")
        raise PrismaError(
            f"expected the folder of one model; found the Hub's cache of {name}: load one of "
            f"{folder / 'snapshots'}{_folders(folder / 'snapshots', 'commits')}"
        )
    if (folder / "modules.json").is_file() or (folder / "config_sentence_transformers.json").is_file():
        raise PrismaError(
            f"expected one model in {folder}; found a model of sentence-transformers, which is a sequence of parts: "
            f"load the part that is a vision transformer, if it has one{_folders(folder, 'parts')}"
        )
    models = _in_order(folder.glob(f"*/{CONFIG}")) + _in_order(folder.glob(f"checkpoints/*/{CONFIG}"))
    if models:
        raise PrismaError(
            f"expected a checkpoint folder with {CONFIG} at {folder}; found none, and models in its folders: load one "
            f"of them, such as {models[-1]}"
        )


def _in_order(configs: Iterable[Path]) -> list[Path]:
    """The folders of these files, the last checkpoint last: by their numbers, and without numbers by their age."""
    models = [path.parent for path in configs]
    numbered = all(re.search("[0-9]", path.name) for path in models)
    return sorted(models, key=lambda path: (by_number(path.name) if numbered else [], path.stat().st_mtime))


def _instead(folder: Path) -> str:
    """What a folder has that is no model of a library, as a phrase."""
    if (weights := sorted(folder.glob(f"*{SUFFIX}"))) or weights_of_others(folder):
        return f"none, and {weights[0].name if weights else described(folder)}{_ALONE}"
    entries = sorted((path.name for path in folder.glob("*")), key=by_number)
    return f"none, but {listed(entries, NAMED)}" if entries else "none: the folder is empty"


def _folders(folder: Path, what: str) -> str:
    names = sorted((path.name for path in folder.glob("*") if path.is_dir()), key=by_number)
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f" ({what}: {', '.join(names[:NAMED])}{more})" if names else ""


def _config(folder: Path, name: str = CONFIG) -> dict[str, Any] | None:
    try:
        return read_json(folder / name)
    except PrismaError:
        return None
