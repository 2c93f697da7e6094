"""A checkpoint is a folder: `config.json` (architecture, labels, transform) and `model.safetensors` (weights)."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from prisma.config import ViTConfig
from prisma.errors import PrismaError, nearest
from prisma.files import write_atomic
from prisma.outline import filled, outline
from prisma.vit import ViT

CONFIG, WEIGHTS = "config.json", "model.safetensors"
MODEL_TYPE = "prisma-vit"
OLD_NAMES = {"head_dim": "d_head"}
"""Fields of an architecture that earlier versions wrote under another name."""


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint folder holds."""

    model: ViT  # eval mode, frozen parameters
    labels: tuple[str, ...]
    transform: Mapping[str, Any]  # see prisma.data.transform.Transform
    header: Mapping[str, str]  # strings in the safetensors header: step, run


def write_checkpoint(
    folder: Path,
    model: ViT,
    *,
    labels: Sequence[str] = (),
    transform: Mapping[str, Any] | None = None,
    header: Mapping[str, str] | None = None,
) -> None:
    """Write both files, each atomically. The bytes depend on the arguments alone.

    Raises:
        PrismaError: the folder could not be written, or the weights are not those of the model's config.
    """
    weights = model.state_dict()
    _expect_same(outline(model.config).state_dict(), weights, "this model")
    config = {
        "model_type": MODEL_TYPE,
        "architecture": asdict(model.config),
        "labels": list(labels),
        "transform": dict(transform or {}),
    }
    write_atomic(folder / CONFIG, (json.dumps(config, indent=2) + "\n").encode())
    write_atomic(folder / WEIGHTS, to_safetensors(weights, header or {}))


def to_safetensors(tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> bytes:
    """A safetensors file. Its bytes depend on the arguments alone: `save` puts the header's entries in random order."""
    whole = save(_apart(tensors), metadata=dict(header))
    size = 8 + int.from_bytes(whole[:8], "little")  # of the JSON at the beginning, and the eight bytes of its length
    entries = json.loads(whole[8:size])
    entries["__metadata__"] = dict(sorted(header.items()))
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + whole[size:]


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """On the CPU, none in the memory of another (a rotation that all layers share), which the format does not know."""
    apart, seen = dict[str, Tensor](), set[int]()
    for name, x in tensors.items():
        x = x.detach().cpu().contiguous()
        memory = x.untyped_storage().data_ptr()
        apart[name] = x.clone() if memory in seen else x
        seen.add(memory)
    return apart


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read a folder written by `write_checkpoint`. The model comes back in eval mode with frozen parameters.

    Raises:
        PrismaError: a file is absent, truncated or foreign, a config field is unknown, missing or contradictory, or
            weights or labels do not fit the architecture (every missing, extra and wrongly shaped tensor is named).
    """
    config = _read_config(folder / CONFIG)
    model = outline(config_from_dict(config["architecture"], folder / CONFIG))
    _expect_labels(config["labels"], model.config, folder / CONFIG)
    tensors, header = read_tensors(folder / WEIGHTS)
    _expect_same(model.state_dict(), tensors, folder / WEIGHTS)
    return Checkpoint(filled(model, tensors), tuple(config["labels"]), config["transform"], header)


def config_from_dict(values: Mapping[str, Any], source: Path | str) -> ViTConfig:
    """A ViTConfig from its fields; one that an older version did not know has its default. `source` is named in errors.

    Raises:
        PrismaError: an unknown or missing field, or values that contradict each other.
    """
    values = {OLD_NAMES.get(name, name): value or 0 if name in OLD_NAMES else value for name, value in values.items()}
    known = {field.name for field in fields(ViTConfig)}
    required = {field.name for field in fields(ViTConfig) if field.default is MISSING}
    if unknown := sorted(set(values) - known):
        raise PrismaError(
            f"{source} has an unknown field {unknown[0]!r}; the nearest known: {nearest(unknown[0], known)}"
        )
    if missing := sorted(required - set(values)):
        raise PrismaError(f"{source} lacks the field {', '.join(missing)} of a ViT's architecture")
    return ViTConfig(**values)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and header of a safetensors file. The tensors do not depend on the file once they are read.

    Each is copied from a mapping of its own, so that no more than one of them is ever in memory twice; all are of the
    file that had this name at first, whatever takes its place meanwhile.

    Raises:
        PrismaError: the file is absent, truncated, or not safetensors.
    """
    if not path.is_file():
        raise PrismaError(f"expected safetensors weights at {path}, found no such file")
    try:
        with path.open("rb") as pinned:
            same = f"/dev/fd/{pinned.fileno()}"
            with safe_open(same, framework="pt") as file:
                names, header = list(file.keys()), file.metadata() or {}
            tensors = {}
            for name in names:
                with safe_open(same, framework="pt") as file:
                    tensors[name] = file.get_tensor(name).clone()
            return tensors, header
    except (SafetensorError, OSError, ValueError) as error:
        raise PrismaError(
            f"expected whole safetensors weights at {path}, found a truncated or foreign file ({error})"
        ) from None


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise PrismaError(f"expected a checkpoint folder with {CONFIG} at {path.parent}, found none")
    try:
        config = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise PrismaError(f"expected JSON in {path}, found something else ({error})") from None
    wanted = {"architecture": dict, "labels": list, "transform": dict}
    if not isinstance(config, dict) or config.get("model_type") != MODEL_TYPE:
        found = config.get("model_type") if isinstance(config, dict) else type(config).__name__
        raise PrismaError(f"expected model_type {MODEL_TYPE!r} in {path}, found {found!r}")
    for key, kind in wanted.items():
        if not isinstance(config.get(key), kind):
            raise PrismaError(f"expected {key!r} in {path} to be a JSON {kind.__name__}, found {config.get(key)!r}")
    return config


def _expect_labels(labels: list[Any], config: ViTConfig, path: Path) -> None:
    if not all(isinstance(label, str) for label in labels) or len(labels) not in (0, config.n_classes):
        raise PrismaError(
            f"expected no labels or a word for each of {config.n_classes} classes in {path}, found {labels}"
        )


def _expect_same(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], source: Path | str) -> None:
    wrong = [f"{name} is missing" for name in expected if name not in found]
    wrong += [f"{name} is not of this architecture" for name in found if name not in expected]
    wrong += [
        f"{name} is {list(found[name].shape)} instead of {list(x.shape)}"
        for name, x in expected.items()
        if name in found and found[name].shape != x.shape
    ]
    wrong += [f"{name} is {x.dtype}, not floating point" for name, x in found.items() if not x.is_floating_point()]
    if wrong:
        raise PrismaError(f"the weights in {source} do not fit {CONFIG}: {'; '.join(wrong)}")
