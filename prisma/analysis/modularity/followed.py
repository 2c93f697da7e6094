"""What the tensors of a forward carry: which units are in which of their channels, and along which axis those are.

What an operation does to that is known for those in the tables here and in `operations`; anything else is refused, and
so is what would need more axes than are known, such as `mean(1)` of what a linear layer gives.

Axes are counted from the back (-1 is the last), because the number of axes is not always known: a linear layer takes
any.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from prisma.errors import PrismaError

ADVICE = "pass a part of the network, or an nn.Sequential of its layers"

Carried = dict[str, Any]
"""Layer -> [unit, channel], how much of each unit is in each channel; a number: each unit is a channel, times this."""


class Refused(PrismaError):  # noqa: N818 - it names what happened, and becomes a sentence
    """What is done to channels is not known. The message says what was found."""


@dataclass(frozen=True)
class Followed:
    """A tensor of the forward.

    Attributes:
        units: what it carries.
        axis: of the channels, from the back; None for an input of the network before anything read it.
        rank: the number of axes, where it is known.
        flat: "" where an entry of the axis is a channel; "first" where other axes were flattened into it behind the
            channels (all places of a channel, then the next channel), "last" where before them.
    """

    units: Carried
    axis: int | None = None
    rank: int | None = None
    flat: str = ""

    def places(self, dims: Sequence[int]) -> list[int]:
        """Axes from the back. Raises Refused: it is not known which they are."""
        if all(dim < 0 for dim in dims):
            return list(dims)
        if self.rank is None:
            raise Refused("an axis counted from the front, where the number of axes is not known")
        return [dim if dim < 0 else dim - self.rank for dim in dims]

    @property
    def position(self) -> int | None:
        """The axis of the channels from the front; None where it is not known."""
        return None if self.rank is None or self.axis is None else self.rank + self.axis


def width_of(units: Carried, layers: dict[str, int]) -> int | None:
    """The number of channels; None where no layer has read them yet."""
    for source, channels in units.items():
        if not isinstance(channels, float):
            return int(channels.shape[1])
        if source in layers:
            return layers[source]
    return None


def matrix(source: str, channels: Any, layers: dict[str, int]) -> Any:
    """[unit, channel]. Raises Refused: it is not known how many units an input has."""
    if not isinstance(channels, float):
        return channels
    if source not in layers:
        raise Refused("channels of an input that no layer has read")
    return one_to_one(layers[source]) * channels


def one_to_one(units: int, channels: int | None = None, first: int = 0) -> Any:
    """[unit, channel]: every unit is one channel, from the first on; one that falls outside is in none."""
    from scipy import sparse

    return sparse.eye_array(units, channels, k=first, format="csr")


def scaled(x: Followed, factor: float) -> Followed:
    """All channels times a number."""
    return replace(x, units={source: channels * abs(factor) for source, channels in x.units.items()})


def by_channel(x: Followed, factors: np.ndarray, layers: dict[str, int]) -> Followed:
    """Each channel times a number of its own. The first factors say how many channels an input has."""
    for source, channels in x.units.items():
        if isinstance(channels, float):
            layers.setdefault(source, len(factors))
    found = {source: matrix(source, channels, layers) for source, channels in x.units.items()}
    if x.flat or any(channels.shape[1] != len(factors) for channels in found.values()):
        raise Refused(f"{len(factors)} factors for {width_of(found, layers)} channels")
    return replace(
        x, units={source: channels.multiply(np.abs(factors)[None]).tocsr() for source, channels in found.items()}
    )


def mapped(x: Followed, onto: Any, layers: dict[str, int]) -> Followed:
    """Channels that become others, by a matrix [channel, new channel]."""
    if x.flat:
        raise Refused("channels that were flattened")
    return replace(x, units={source: matrix(source, c, layers) @ onto for source, c in x.units.items()})


def together(parts: Sequence[Followed], layers: dict[str, int], *, summed: bool) -> Followed:
    """What a sum or a product of tensors carries, channel by channel.

    In a sum, a unit that comes to a channel on two ways counts as both; in a product or a maximum, as the larger.
    """
    known = [x for x in parts if x.axis is not None] or list(parts[:1])
    if len({(x.axis, x.flat) for x in known}) > 1:
        raise Refused("tensors whose channels are along different axes")
    from scipy import sparse

    widths = {width for x in parts if (width := width_of(x.units, layers)) is not None}
    whole = max(widths, default=1)
    if widths - {1, whole}:
        raise Refused(f"tensors of {' and '.join(map(str, sorted(widths)))} channels")
    merged: Carried = {}
    for x in parts:
        one = whole > 1 and width_of(x.units, layers) == 1  # the same number for every channel
        for source, channels in x.units.items():
            wide = sparse.csr_array(matrix(source, channels, layers) @ np.ones((1, whole))) if one else channels
            merged[source] = _merged(source, merged[source], wide, layers, summed) if source in merged else wide
    ranks = [x.rank for x in parts if x.rank is not None]
    return Followed(merged, known[0].axis, max(ranks) if len(ranks) == len(parts) else None, known[0].flat)


def _merged(source: str, one: Any, other: Any, layers: dict[str, int], summed: bool) -> Any:
    if isinstance(one, float) and isinstance(other, float):
        return one + other if summed else max(one, other)
    from scipy import sparse

    a, b = (sparse.csr_array(matrix(source, x, layers)) for x in (one, other))
    return a + b if summed else a.maximum(b)


def concatenated(parts: Sequence[Followed], dim: int, layers: dict[str, int]) -> Followed:
    """Tensors one after the other: along their channels, or along another axis, where each has all channels."""
    first = parts[0]
    if any(x.axis != first.axis or x.flat or x.rank != first.rank or x.axis is None for x in parts):
        raise Refused("tensors whose channels are not along one axis that is known")
    from_features = first.rank is None and first.axis == -1 and dim == 1  # of [batch, feature]
    if not from_features and first.places([dim]) != [first.axis]:
        return together(parts, layers, summed=False)
    widths = [width_of(x.units, layers) or 0 for x in parts]
    starts, total = np.cumsum([0, *widths]), sum(widths)
    placed = [
        mapped(x, one_to_one(width, total, int(start)), layers)
        for x, start, width in zip(parts, starts, widths, strict=False)
    ]
    return together(placed, layers, summed=True)


def read_by(weight: np.ndarray, x: Followed, source: str, layers: dict[str, int], reader: str) -> np.ndarray:
    """[unit of the source, unit of the reader] of weights [unit of the reader, input].

    A layer behind a flattening reads every place of a channel. The first reader of an input says how many units it has.
    """
    channels = x.units[source]
    if isinstance(channels, float):
        layers.setdefault(source, weight.shape[1])
    width = layers[source] if isinstance(channels, float) else channels.shape[1]
    if weight.shape[1] != width and (not x.flat or weight.shape[1] % width):
        raise PrismaError(
            f"expected {reader} to read {width} channels of {source}; found {weight.shape[1]} inputs: {ADVICE}"
        )
    places = (width, -1) if x.flat != "last" else (-1, width)
    per_channel = weight.reshape(len(weight), *places).sum(2 if x.flat != "last" else 1)
    return per_channel.T * channels if isinstance(channels, float) else channels @ per_channel.T
