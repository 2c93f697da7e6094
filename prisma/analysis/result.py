"""What every analysis returns: arrays with named axes, and the settings that they were computed with."""

import io
import json
import math
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor

from prisma.analysis.statistics import bootstrap_interval, share_of, standard_error
from prisma.bounds import ARRAYS, RESULT, expect_memory
from prisma.errors import PrismaError, nearest, shown
from prisma.files import write_atomic
from prisma.filesystem import given
from prisma.reading import open_file, parse_json
from prisma.view.browser import View
from prisma.view.browser.notebook import maps_view, output
from prisma.view.figures.plots import draw

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_AXES, _METADATA = "__axes__", "__metadata__"
_OLD_METADATA = "__produced__"  # what version 0.1.0 called it


@dataclass(frozen=True, kw_only=True, eq=False)
class Result:
    """Base of all results. A subclass has a field for each array, and lists the axes of each in `AXES`.

    An axis written `{name}` has the name in `metadata["name"]`, because some axes depend on the settings: the columns
    of activation patching are heads or tokens. An array may also be a property that is computed from the fields.

    Numbers are in float32 at least, so that means and what follows from them are not rounded to half precision.
    """

    AXES: ClassVar[Mapping[str, tuple[str, ...]]] = {}  # array -> names of its axes; the first one is what `plot` draws

    UNDEFINED: ClassVar[frozenset[str]] = frozenset()  # fields in which NaN says that an image has no such number

    metadata: Mapping[str, Any]  # the name of the analysis and its settings, as JSON values

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor) and value.dtype in (torch.bfloat16, torch.float16):
                object.__setattr__(self, field.name, value.float())
        for name, axes in self.axes.items():
            if getattr(self, name).ndim != len(axes):
                raise PrismaError(
                    f"expected {name} to have the axes {', '.join(axes)}; found {list(getattr(self, name).shape)}"
                )

    @property
    def axes(self) -> dict[str, tuple[str, ...]]:
        """Array -> names of its axes."""
        return {
            name: tuple(axis.format(**self.metadata) for axis in axes)
            for name, axes in self.AXES.items()
            if getattr(self, name) is not None
        }

    @property
    def names(self) -> Mapping[str, Sequence[str]]:
        """Axis -> names of its indices in pictures, for axes whose indices have names."""
        return {}

    @property
    def arrays(self) -> dict[str, Tensor]:
        """Array by name, on the CPU and without gradients."""
        return {name: getattr(self, name).detach().cpu() for name in self.axes}

    def to_dict(self) -> dict[str, Any]:
        """JSON values: `metadata`, and for each array its axes and its values as nested lists.

        A value that is not finite, such as the standard error of one pair, becomes None.
        """
        arrays = {
            name: {"axes": list(self.axes[name]), "values": _listed(values)} for name, values in self.arrays.items()
        }
        return {"metadata": dict(self.metadata), "arrays": arrays}

    def to_npz(self, path: str | Path) -> Path:
        """Write an `.npz` file, whole or not at all: the arrays by name, `__axes__` and `__metadata__` as JSON."""
        texts = {_AXES: json.dumps(self.axes), _METADATA: json.dumps(dict(self.metadata))}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **{name: _stored(x) for name, x in self.arrays.items()}, **texts)  # type: ignore[arg-type]
        write_atomic(path := given(path), buffer.getvalue())
        return path

    @classmethod
    def from_npz(cls, path: str | Path) -> Self:
        """The inverse of `to_npz`.

        Raises:
            PrismaError: the file does not hold a result of this class.
        """
        path = given(path)
        try:
            with open_file(path, f"a saved {cls.__name__}") as stream:
                _expect_bounded(stream)
                file = np.load(stream, allow_pickle=False)
                metadata = parse_json(str(file[_METADATA if _METADATA in file.files else _OLD_METADATA]), path)
                there = [f.name for f in fields(cls) if f.default is MISSING or f.name in file.files]
                arrays = {name: torch.from_numpy(file[name]) for name in there if name != "metadata"}
            return cls(metadata=metadata, **arrays)
        except Exception as error:  # of any kind: the bytes of a file decide what the parser does
            reason = f" ({shown(str(error), 200)})" if isinstance(error, PrismaError) else ""
            raise PrismaError(f"expected a saved {cls.__name__} at {path}; found something else{reason}") from error

    def plot(self, array: str | None = None) -> "Figure":
        """A picture of one array (the first, unless named): lines, a heat map, or a row of heat maps."""
        name = array or next(iter(self.axes))
        if name not in self.axes:
            raise PrismaError(f"{type(self).__name__} has no array {name!r}; the nearest: {nearest(name, self.axes)}")
        title = f"{self.metadata.get('analysis', '')}: {name}".replace("_", " ")
        return draw(self.arrays[name], self.axes[name], title=title, names=self.names)

    def report(self, classes: Sequence[str] = ()) -> str:
        """What a person reads first, in words or as a table, which `prisma analyze` prints; of most results nothing.

        Args:
            classes: names of the model's classes.
        """
        return ""

    def _repr_html_(self) -> str:
        """What a notebook shows: a figure to point at, with everything in it."""
        return output(self._view())

    def _view(self) -> View:
        return maps_view(self.arrays, self.axes, self.names, self.metadata)


@dataclass(frozen=True, kw_only=True, eq=False)
class Effect(Result):
    """A number per image for each part of the model: `effect` is the mean over images, `stderr` its standard error."""

    @property
    def per_image(self) -> Tensor:
        """[image, ...]: what `effect` is the mean of."""
        raise NotImplementedError

    @property
    def effect(self) -> Tensor:
        """Mean over images."""
        return self.per_image.mean(0)

    @property
    def stderr(self) -> Tensor:
        """Standard error of `effect` over images; NaN for a single image."""
        return standard_error(self.per_image)

    @property
    def _figures(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        """Name -> the indices of some images -> what that number would be for these images."""
        return {"effect": lambda rows: self.per_image[rows].mean(0)}

    def interval(self, of: str = "effect", level: float = 0.95) -> Tensor:
        """Bootstrap interval over images [2, ...]: its lower and its upper end.

        Args:
            of: `"effect"`; for effects on pairs also `"change"` and `"normalised"`.
            level: as in `prisma.bootstrap_interval`.

        Raises:
            PrismaError: there is no such number, or `level` is not between 0 and 1.
        """
        figures = self._figures
        if of not in figures:
            raise PrismaError(f"expected one of {', '.join(figures)}; found {of!r}")
        return bootstrap_interval(figures[of], len(self.per_image), level=level)


@dataclass(frozen=True, kw_only=True, eq=False)
class PairedEffect(Effect):
    """Effects of replacing parts of a run by those of a run on another image, for pairs of images.

    `metadata["into"]` says which of the two runs is changed. `normalised()` puts effects on a scale on which 0 is a
    part that changes nothing and 1 is one that carries the whole difference between the two runs.
    """

    clean: Tensor  # [image]: the metric of the run on the clean image
    corrupt: Tensor  # [image]: of the run on the corrupt image

    @property
    def changes(self) -> Tensor:
        """[image, ...]: how much each part changes the metric of each pair."""
        return self.per_image

    @property
    def change(self) -> Tensor:
        """How much each part changes the metric, mean over pairs: 0 is a part that changes nothing."""
        return self.changes.mean(0)

    @property
    def change_stderr(self) -> Tensor:
        """Standard error of `change` over pairs; NaN for a single pair.

        It says how well the change is known. `stderr` is that of `effect`: where `effect` is the metric itself, it also
        has the spread of the metric from pair to pair, which the change does not have.
        """
        return standard_error(self.changes)

    @property
    def changed_run(self) -> Tensor:
        """[image]: the metric of the run that is changed, before anything is replaced."""
        return getattr(self, self.metadata["into"])

    @property
    def totals(self) -> Tensor:
        """[image]: how far the metric of the other run is from that of the run that is changed."""
        other = self.corrupt if self.changed_run is self.clean else self.clean
        return other - self.changed_run

    @property
    def total(self) -> Tensor:
        """A number: the mean of `totals` over pairs."""
        return self.totals.mean()

    def normalised(self) -> Tensor:
        """`change` as a share of `total`: 0 changes nothing, 1 is the whole difference between the two runs.

        Raises:
            PrismaError: the two runs do not differ in the metric, so there is no effect to share.
        """
        return share_of(self.change, self.total)

    @property
    def _figures(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        changes, totals = self.changes, self.totals
        return {
            **super()._figures,
            "change": lambda rows: changes[rows].mean(0),
            "normalised": lambda rows: changes[rows].mean(0) / totals[rows].mean(),
        }


def _expect_bounded(stream: BufferedReader) -> None:
    """Raise PrismaError unless every array of an `.npz` file has the size that its header states, within bounds.

    An archive of a few bytes may unpack to any size, and a header of a few bytes may state any.
    """
    with zipfile.ZipFile(stream) as archive:
        members = archive.infolist()
        size = sum(member.file_size for member in members)
        if len(members) > ARRAYS or size > RESULT:
            raise PrismaError(
                f"expected at most {ARRAYS:,} arrays of {RESULT:,} bytes in all; found {len(members):,} of {size:,}"
            )
        expect_memory(size, "its arrays")
        for member in members:
            with archive.open(member) as array:
                version = np.lib.format.read_magic(array)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, _, dtype = read(array)
            if math.prod(shape) * dtype.itemsize > member.file_size:
                raise PrismaError(f"expected {shown(member.filename)} to hold {list(shape)} values; found fewer bytes")
    stream.seek(0)


def _stored(x: Tensor) -> np.ndarray:
    return (x.float() if x.dtype in (torch.bfloat16, torch.float16) else x).numpy()


def _listed(x: Tensor) -> Any:
    finite = x.isfinite()
    return x.tolist() if finite.all() else np.where(finite, _stored(x).astype(object), np.array(None)).tolist()
