"""Tensors out of files that `torch.save` wrote, without running what else is in them.

Such a file is an archive with a pickle, which may call any function, and a file for the numbers of each tensor. Here
the pickle may make containers, numbers, text and tensors; every other class or function that it names becomes a
`Stub`, which holds what it was given and does nothing.
"""

import io
import math
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prisma.bounds import expect_memory
from prisma.errors import PrismaError, shown
from prisma.reading import open_file

_TYPES: Mapping[str, torch.dtype] = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class Stub:
    """What stands in place of an object of an unknown class: its name, its arguments and its fields."""

    stub_of = ""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args = args

    def __call__(self, *args: Any, **kwargs: Any) -> "Stub":
        return Stub(*args)

    def __setstate__(self, state: Any) -> None:
        self.__dict__.update(state if isinstance(state, dict) else {"state": state})

    def __setitem__(self, key: Any, value: Any) -> None:  # of subclasses of dict
        self.__dict__.setdefault("items", {})[key] = value

    def append(self, value: Any) -> None:
        """Keep an item of a subclass of list."""
        self.__dict__.setdefault("items", []).append(value)

    def extend(self, values: Any) -> None:
        """Keep items of a subclass of list."""
        self.__dict__.setdefault("items", []).extend(values)


class _Fixed:
    """What a pickle may not change: it has no fields, and none can be set by the bytes of a file."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("a state for an object that has none")


class _Made(_Fixed):
    """A tensor, out of reach of the pickle: torch's own would take any size as its state."""

    __slots__ = ("tensor",)

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


class _Rebuild(_Fixed):
    """The function that puts a tensor together from its numbers."""

    __slots__ = ()

    def __call__(self, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> _Made:
        if not isinstance(storage, _Made):
            raise pickle.UnpicklingError("a tensor without numbers")
        there = len(storage.tensor)
        reach = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if all(size) else 0
        if min((offset, *size, *stride)) < 0 or reach >= max(there, 1) or math.prod(size) > there:
            raise pickle.UnpicklingError("a tensor that is larger than its numbers")
        return _Made(storage.tensor.as_strided(size, stride, offset))


class _First(_Fixed):
    """The function that makes a parameter of a tensor: here the tensor itself."""

    __slots__ = ()

    def __call__(self, value: Any, *_: Any) -> Any:
        return value


class _Restricted(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(file)
        self.archive, self.folder = archive, folder
        self.numbers: dict[str, Tensor] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch._utils" and name in ("_rebuild_tensor_v2", "_rebuild_parameter"):
            return _Rebuild() if name == "_rebuild_tensor_v2" else _First()
        if module == "torch" and name in _TYPES:
            return _TYPES[name]
        if module == "torch" and isinstance(found := getattr(torch, name, None), torch.dtype):
            return found
        return type(shown(name, 40), (Stub,), {"stub_of": f"{module}.{name}"})

    def persistent_load(self, pid: Any) -> _Made:
        """The numbers of a tensor, which are a file of the archive."""
        _, dtype, key, *_ = pid
        if not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError("numbers of an unknown type")
        if (key := str(key)) not in self.numbers:  # else a small file that names one thing often takes all memory
            data = self.archive.read(f"{self.folder}/data/{key}")
            self.numbers[key] = torch.from_numpy(np.frombuffer(data, dtype=np.uint8).copy())
        numbers = self.numbers[key]
        return _Made(numbers.view(dtype) if len(numbers) else torch.empty(0, dtype=dtype))


def read_saved(path: Path, *, skip: int = 0) -> Any:
    """What `torch.save` wrote: dicts, lists, numbers, text, tensors for `tensors_of`, and stubs for all else.

    Args:
        skip: bytes of something else at the beginning of the file.

    Raises:
        PrismaError: no such file, or one of another form, or of torch before 1.6.
    """
    with open_file(path, "saved tensors") as file:
        data = file.read()[skip:]
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            expect_memory(sum(member.file_size for member in archive.infolist()), f"the tensors in {path}")
            (name,) = [x for x in archive.namelist() if x.endswith("/data.pkl") or x == "data.pkl"]
            folder = name.removesuffix("data.pkl").rstrip("/")
            return _Restricted(io.BytesIO(archive.read(name)), archive, folder).load()
    except PrismaError:
        raise
    except Exception as error:  # of any kind: the bytes of a file decide what is called
        raise PrismaError(
            f"expected tensors that torch.save wrote, at {path}; found something else ({shown(str(error), 200)})"
        ) from None


def tensors_of(value: Any) -> dict[str, Tensor]:
    """The tensors by name of a dict, or of the first dict in it that has some; `state_dict` and `autoencoder` first."""
    waiting, seen = [value], set[int]()
    while waiting:
        inner = waiting.pop()
        if not isinstance(inner, Mapping) or id(inner) in seen:  # a small file may name one dict a billion times
            continue
        seen.add(id(inner))
        if found := {str(name): x.tensor for name, x in inner.items() if isinstance(x, _Made)}:
            return found
        ordered = sorted(inner, key=lambda name: str(name) not in ("state_dict", "autoencoder", "model_state_dict"))
        waiting += [inner[name] for name in reversed(ordered)]
    return {}
