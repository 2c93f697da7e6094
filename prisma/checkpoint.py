"""A checkpoint is a folder: `config.json` (architecture, labels, transform) and `model.safetensors` (weights)."""

import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from prisma.bounds import HEADER as HEADER_BYTES
from prisma.bounds import LONGEST_LABEL, TENSORS, expect_memory
from prisma.config import ViTConfig
from prisma.contents import contents_of
from prisma.errors import PrismaError, is_text, listed, quoted, shown
from prisma.fields import from_dict
from prisma.files import read_json, write_atomic
from prisma.outline import expect_finite, filled, outline, shapes_in
from prisma.plain import called_parts, expect_plain, uncompiled
from prisma.reading import open_file, parse_json
from prisma.vit import ViT

CONFIG, WEIGHTS = "config.json", "model.safetensors"
MODEL_TYPE = "prisma-vit"
OLD_NAMES = {"head_dim": "d_head"}
"""Fields of an architecture that earlier versions wrote under another name."""
WRAPPERS = ("module.", "_orig_mod.")
"""How DataParallel and torch.compile begin the names of all weights of the module that they wrap."""
MOST_AXES = 64  # of a tensor, as in torch
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
        PrismaError: the folder could not be written, the weights or the labels do not fit the model's config, or a part
            of the model carries more than weights, such as a hook.
    """
    model = uncompiled(model)
    weights = model.state_dict()
    _expect_labels(labels, model.config, folder / CONFIG)
    _expect_same(shapes_in(model.config), weights, "this model")
    expect_plain(model, called_parts(model), "a checkpoint, which holds weights alone")
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
    return b"".join((len(text).to_bytes(8, "little"), text, memoryview(whole)[size:]))  # one copy of the tensors


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
            weights or labels do not fit the architecture (missing, extra and wrongly shaped tensors are named), or
            weights are NaN or infinite.
    """
    config = _read_config(folder / CONFIG)
    model = outline(config_from_dict(config["architecture"], folder / CONFIG))
    _expect_labels(config["labels"], model.config, folder / CONFIG)
    tensors, header = read_tensors(folder / WEIGHTS)
    tensors = unwrapped(tensors)
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
    with open_file(path, "safetensors weights") as file:
        expect_memory(os.fstat(file.fileno()).st_size, f"the weights in {path}")
        with _whole(path):
            entries, header = _read_header(file)
            return {name: _read_tensor(file, *entry) for name, entry in entries.items()}, header


@contextmanager
def _whole(path: Path) -> Iterator[None]:
    """Errors of reading a file's header or tensors become a PrismaError, which says what the file is."""
    try:
        yield
    except (KeyError, TypeError, ValueError, OverflowError, RuntimeError, OSError) as error:
        what = contents_of(path)
        reason = what if what not in (None, "safetensors") else shown(str(error), 200)
        raise PrismaError(
            f"expected whole safetensors weights at {path}; found a truncated or foreign file ({reason})"
        ) from None


def names_in(path: Path) -> list[str]:
    """The names of the tensors of a safetensors file. Raises PrismaError as `read_tensors`, and reads no tensor."""
    with open_file(path, "safetensors weights") as file, _whole(path):
        return list(_read_header(file)[0])


def unwrapped(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same tensors under the names that they have without DataParallel or torch.compile."""
    start = wrapper_of(tensors)
    return {name.removeprefix(start): x for name, x in tensors.items()}


def wrapper_of(names: Iterable[str]) -> str:
    """What DataParallel and torch.compile, in any order, wrote in front of every name: `module._orig_mod.`, or ""."""
    found, start = list(names), ""
    while more := next((x for x in WRAPPERS if found and all(name.startswith(start + x) for name in found)), ""):
        start += more
    return start


def _read_header(file: BufferedReader) -> tuple[dict[str, tuple[torch.dtype, list[int]]], dict[str, str]]:
    """(name -> type and shape, in the order in which their bytes follow, the header's strings).

    The bytes of the tensors must follow each other without a gap and fill the file, so their sizes are known to fit
    into it before anything is allocated.

    Raises:
        KeyError, TypeError, ValueError: the file does not begin with a header that describes the rest of its bytes.
    """
    size, length = os.fstat(file.fileno()).st_size, int.from_bytes(file.read(8), "little")
    if not 0 < length <= min(size - 8, HEADER_BYTES):
        raise ValueError(f"a header of {length:,} bytes in a file of {size:,}")
    described = parse_json(file.read(length).decode(), "its header")
    if not isinstance(described, dict):
        raise ValueError("its header is not a JSON object")
    header, entries, end = described.pop(HEADER, {}), {}, 0
    if not isinstance(header, dict) or not all(isinstance(text, str) for text in header.values()):
        raise ValueError(f"{HEADER} is not an object of strings")
    if len(described) > TENSORS:
        raise ValueError(f"{len(described):,} tensors, more than {TENSORS:,}")
    for name, entry in sorted(described.items(), key=lambda item: _offsets(item[1])):
        (begin, after), shape, dtype = _offsets(entry), _sizes(entry["shape"]), DTYPES[entry["dtype"]]
        if begin != end or after - begin != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"the bytes of {shown(name)} do not fit its type and shape")
        entries[name], end = (dtype, shape), after
    if 8 + length + end != size:
        raise ValueError(f"{size} bytes instead of {8 + length + end}")
    return entries, header


def _offsets(entry: Any) -> tuple[int, int]:
    """Where the bytes of a tensor begin and end, counted from the end of the header."""
    begin, end = _sizes(entry["data_offsets"])
    return begin, end


def _sizes(numbers: Any) -> list[int]:
    """Raises TypeError unless this is a list of at most 64 whole numbers, each from 0 to what memory can address."""
    fits = isinstance(numbers, list) and len(numbers) <= MOST_AXES
    if not fits or not all(type(number) is int and 0 <= number < 2**63 for number in numbers):
        raise TypeError(f"{quoted(numbers)} where sizes are expected")
    return numbers


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
    if not path.exists():
        raise PrismaError(f"expected a checkpoint folder with {CONFIG} at {path.parent}; found none")
    config = read_json(path)
    wanted = {"architecture": dict, "labels": list, "transform": dict}
    if config.get("model_type") != MODEL_TYPE:
        raise PrismaError(f"expected model_type {MODEL_TYPE!r} in {path}; found {quoted(config.get('model_type'))}")
    for key, kind in wanted.items():
        if not isinstance(config.get(key), kind):
            raise PrismaError(
                f"expected {key!r} in {path} to be a JSON {kind.__name__}; found {quoted(config.get(key))}"
            )
    return config


def _expect_labels(labels: Sequence[Any], config: ViTConfig, path: Path | str) -> None:
    if not all(isinstance(label, str) for label in labels) or len(labels) not in (0, config.n_classes):
        raise PrismaError(
            f"expected no labels or one word for each of the {config.n_classes} classes in {path}; "
            f"found {quoted(labels)}"
        )
    if wrong := [label for label in labels if not is_text(label) or len(label) > LONGEST_LABEL]:
        raise PrismaError(
            f"expected labels of at most {LONGEST_LABEL} printable characters in {path}; found {quoted(wrong[0])}"
        )
    if twice := [label for label, times in Counter(labels).items() if times > 1]:
        raise PrismaError(f"expected a different label for each class in {path}; found {quoted(twice[0])} twice")


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
        raise PrismaError(f"the weights in {source} do not fit {CONFIG}: {listed(wrong, between='; ')}")
