"""What every analysis returns: arrays with named axes, and what produced them."""

import io
import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from prisma.errors import PrismaError, nearest
from prisma.files import write_atomic
from prisma.view.plots import draw

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_AXES, _PRODUCED = "__axes__", "__produced__"


@dataclass(frozen=True, kw_only=True, eq=False)
class Result:
    """Base of all results. A subclass has a field for each array, and says in `AXES` what its axes are.

    An axis written `{name}` stands for what `produced["name"]` says: patching has columns that are heads or tokens.
    An array may also be a property, made from the fields.
    """

    AXES: ClassVar[Mapping[str, tuple[str, ...]]] = {}  # array -> names of its axes; the first one is what `plot` draws

    produced: Mapping[str, Any]  # the analysis, and the arguments that matter, as JSON has them

    def __post_init__(self) -> None:
        for name, axes in self.axes.items():
            if getattr(self, name).ndim != len(axes):
                raise PrismaError(
                    f"{name} must have the axes {', '.join(axes)}; found {list(getattr(self, name).shape)}"
                )

    @property
    def axes(self) -> dict[str, tuple[str, ...]]:
        """Array -> names of its axes."""
        return {
            name: tuple(axis.format(**self.produced) for axis in axes)
            for name, axes in self.AXES.items()
            if getattr(self, name) is not None
        }

    @property
    def names(self) -> Mapping[str, Sequence[str]]:
        """Axis -> what its indices are called in pictures, where they are more than numbers."""
        return {}

    @property
    def arrays(self) -> dict[str, Tensor]:
        """Array by name, on the CPU and without gradients."""
        return {name: getattr(self, name).detach().cpu() for name in self.axes}

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it: `produced`, and for each array its axes and nested lists of its values.

        A value that is not finite, such as the standard error of one pair, is None.
        """
        arrays = {
            name: {"axes": list(self.axes[name]), "values": _listed(values)} for name, values in self.arrays.items()
        }
        return {"produced": dict(self.produced), "arrays": arrays}

    def to_npz(self, path: str | Path) -> Path:
        """Write an `.npz` file, whole or not at all: the arrays by name, `__axes__` and `__produced__` as JSON."""
        said = {_AXES: json.dumps(self.axes), _PRODUCED: json.dumps(dict(self.produced))}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **{name: _stored(x) for name, x in self.arrays.items()}, **said)  # type: ignore[arg-type]
        write_atomic(path := Path(path), buffer.getvalue())
        return path

    @classmethod
    def from_npz(cls, path: str | Path) -> Self:
        """The inverse of `to_npz`.

        Raises:
            PrismaError: the file is no result of this class.
        """
        try:
            with Path(path).open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                produced = json.loads(str(file[_PRODUCED]))
                there = [f.name for f in fields(cls) if f.default is MISSING or f.name in file.files]
                arrays = {name: torch.from_numpy(file[name]) for name in there if name != "produced"}
            return cls(produced=produced, **arrays)
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise PrismaError(f"expected a saved {cls.__name__} at {path}, found something else") from error

    def plot(self, array: str | None = None) -> "Figure":
        """A picture of one array (the first, unless named): lines, a heat map, or a row of heat maps."""
        name = array or next(iter(self.axes))
        if name not in self.axes:
            raise PrismaError(f"{type(self).__name__} has no array {name!r}; the nearest: {nearest(name, self.axes)}")
        title = f"{self.produced.get('analysis', '')}: {name}".replace("_", " ")
        return draw(self.arrays[name], self.axes[name], title=title, names=self.names)


def _stored(x: Tensor) -> np.ndarray:
    return (x.float() if x.dtype in (torch.bfloat16, torch.float16) else x).numpy()


def _listed(x: Tensor) -> Any:
    finite = x.isfinite()
    return x.tolist() if finite.all() else np.where(finite, _stored(x).astype(object), np.array(None)).tolist()
