"""A checkpoint is a folder: `config.json` (architecture, labels, transform) and `model.safetensors` (weights)."""

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from prisma.config import ViTConfig
from prisma.contents import contents_of
from prisma.errors import PrismaError
from prisma.fields import from_dict
from prisma.files import write_atomic
from prisma.outline import expect_finite, filled, outline
from prisma.plain import expect_plain
from prisma.vit import ViT

CONFIG, WEIGHTS = "config.json", "model.safetensors"
MODEL_TYPE = "prisma-vit"
OLD_NAMES = {"head_dim": "d_head"}
"""Fields of an architecture that earlier versions wrote under another name."""
HEADER = "__metadata__"  # where a safetensors file holds strings beside its tensors
DTYPES: Mapping[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "C64": torch.complex64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
"""Types of safetensors files."""


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint folder."""

    model: ViT  # eval mode, frozen parameters
    labels: tuple[str, ...]
    transform: Mapping[str, Any]  # the fields of a prisma.data.transform.Transform
    header: Mapping[str, str]  # the strings in the safetensors header, such as step and run


def write_checkpoint(
    folder: Path,
    model: ViT,
    *,
    labels: Sequence[str] = (),
    transform: Mapping[str, Any] | None = None,
    header: Mapping[str, str] | None = None,
) -> None:
    """Write both files, each atomically. Their bytes are a function of the arguments.

    Raises:
        PrismaError: the folder could not be written, the weights do not fit the model's config, or a part of the model
            carries more than weights, such as a hook.
    """
    weights = model.state_dict()
    _expect_same(outline(model.config).state_dict(), weights, "this model")
    expect_plain(model, [name for name, _ in model.named_modules()], "a checkpoint, which holds weights alone")
    config = {
        "model_type": MODEL_TYPE,
        "architecture": asdict(model.config),
        "labels": list(labels),
        "transform": dict(transform or {}),
    }
    write_atomic(folder / CONFIG, (json.dumps(config, indent=2) + "\n").encode())
    write_atomic(folder / WEIGHTS, to_safetensors(weights, header or {}))


def to_safetensors(tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> bytes:
    """The bytes of a safetensors file, always the same for the same arguments (`save` orders the header randomly)."""
    whole = save(_apart(tensors), metadata=dict(header))
    size = 8 + int.from_bytes(whole[:8], "little")  # of the JSON at the beginning, and the eight bytes of its length
    entries = json.loads(whole[8:size])
    entries[HEADER] = dict(sorted(header.items()))
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + whole[size:]


def _apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors on the CPU, those that share memory (a rotation of all layers) separated, as the format requires."""
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
            weights or labels do not fit the architecture (every missing, extra and wrongly shaped tensor is named), or
            weights are NaN or infinite.
    """
    config = _read_config(folder / CONFIG)
    model = outline(config_from_dict(config["architecture"], folder / CONFIG))
    _expect_labels(config["labels"], model.config, folder / CONFIG)
    tensors, header = read_tensors(folder / WEIGHTS)
    _expect_same(model.state_dict(), tensors, folder / WEIGHTS)
    expect_finite(tensors, folder / WEIGHTS)
    return Checkpoint(filled(model, tensors), tuple(config["labels"]), config["transform"], header)


def config_from_dict(values: Mapping[str, Any], source: Path | str) -> ViTConfig:
    """A ViTConfig from its fields, also as an older version wrote them. `source` is named in errors.

    Raises:
        PrismaError: an unknown or missing field, or values of a wrong type or that contradict each other.
    """
    values = {OLD_NAMES.get(name, name): value or 0 if name in OLD_NAMES else value for name, value in values.items()}
    return from_dict(ViTConfig, values, source)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and header of a safetensors file, each tensor in memory of its own.

    All are read through one open file, so that they belong together even if the file is replaced meanwhile; and without
    a mapping, so that nothing is in memory twice.

    Raises:
        PrismaError: the file is absent, truncated, or not safetensors.
    """
    if not path.is_file():
        raise PrismaError(f"expected safetensors weights at {path}; found no such file")
    try:
        with path.open("rb") as file:
            entries, header = _read_header(file)
            return {name: _read_tensor(file, *entry) for name, entry in entries.items()}, header
    except (KeyError, TypeError, ValueError, OSError, RecursionError) as error:
        what = contents_of(path)
        reason = what if what not in (None, "safetensors") else error
        raise PrismaError(
            f"expected whole safetensors weights at {path}; found a truncated or foreign file ({reason})"
        ) from None


def _read_header(file: BufferedReader) -> tuple[dict[str, tuple[torch.dtype, list[int]]], dict[str, str]]:
    """(name -> type and shape, in the order in which their bytes follow, the header's strings).

    Raises:
        KeyError, TypeError, ValueError: the file does not begin with a header that describes the rest of its bytes.
    """
    size, length = os.fstat(file.fileno()).st_size, int.from_bytes(file.read(8), "little")
    if not 0 < length <= size - 8:
        raise ValueError(f"a header of {length} bytes in a file of {size}")
    described = json.loads(file.read(length))
    if not isinstance(described, dict):
        raise ValueError("its header is not a JSON object")
    header, entries, end = described.pop(HEADER, {}), {}, 0
    for name, entry in sorted(described.items(), key=lambda item: item[1]["data_offsets"]):
        (begin, after), shape, dtype = entry["data_offsets"], entry["shape"], DTYPES[entry["dtype"]]
        if begin != end or after - begin != math.prod(shape) * dtype.itemsize or min(shape, default=0) < 0:
            raise ValueError(f"the bytes of {name} do not fit its type and shape")
        entries[name], end = (dtype, shape), after
    if 8 + length + end != size:
        raise ValueError(f"{size} bytes instead of {8 + length + end}")
    return entries, header


def _read_tensor(file: BufferedReader, dtype: torch.dtype, shape: list[int]) -> Tensor:
    """The tensor whose bytes come next. Raises ValueError if the file ends before."""
    data = torch.empty(math.prod(shape) * dtype.itemsize, dtype=torch.uint8)
    if file.readinto(data.numpy().data) != len(data):
        raise ValueError("it became shorter while it was read")
    return data.view(dtype).view(shape)


def weights_hash(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and values: equal for equal weights, on every device and whatever the header."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        x = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {x.dtype} {list(x.shape)}\n".encode())
        digest.update(x.view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise PrismaError(f"expected a checkpoint folder with {CONFIG} at {path.parent}; found none")
    try:
        config = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise PrismaError(f"expected JSON in {path}; found something else ({error})") from None
    wanted = {"architecture": dict, "labels": list, "transform": dict}
    if not isinstance(config, dict) or config.get("model_type") != MODEL_TYPE:
        found = config.get("model_type") if isinstance(config, dict) else type(config).__name__
        raise PrismaError(f"expected model_type {MODEL_TYPE!r} in {path}; found {found!r}")
    for key, kind in wanted.items():
        if not isinstance(config.get(key), kind):
            raise PrismaError(f"expected {key!r} in {path} to be a JSON {kind.__name__}; found {config.get(key)!r}")
    return config


def _expect_labels(labels: list[Any], config: ViTConfig, path: Path) -> None:
    if not all(isinstance(label, str) for label in labels) or len(labels) not in (0, config.n_classes):
        raise PrismaError(
            f"expected no labels or one word for each of the {config.n_classes} classes in {path}; found {labels}"
        )
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        raise PrismaError(f"expected a different label for each class in {path}; found {twice[0]!r:.80} more than once")


def _expect_same(expected: Mapping[str, Tensor], found: Mapping[str, Tensor], source: Path | str) -> None:
    wrong = [f"{name} is missing" for name in expected if name not in found]
    wrong += [f"{name} is not part of this architecture" for name in found if name not in expected]
    wrong += [
        f"{name} is {list(found[name].shape)} instead of {list(x.shape)}"
        for name, x in expected.items()
        if name in found and found[name].shape != x.shape
    ]
    wrong += [f"{name} is {x.dtype}, not floating point" for name, x in found.items() if not x.is_floating_point()]
    if wrong:
        raise PrismaError(f"the weights in {source} do not fit {CONFIG}: {'; '.join(wrong)}")
