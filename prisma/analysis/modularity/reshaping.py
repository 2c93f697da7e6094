"""What changes of a tensor's shape do to channels: flattening, new and other axes, slices, padding.

A rule takes the arguments of a call, of which tensors that depend on the input are `Followed`, and the layers.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from prisma.analysis.modularity.followed import Followed, Refused, mapped, one_to_one, width_of

Layers = dict[str, int]
Rule = Callable[[Sequence[Any], Mapping[str, Any], Layers], Followed]
"""Arguments of a call, and layers -> what it gives."""

UNKNOWN = object()
"""An argument that depends on the shape of the input alone."""
SPATIAL = 2  # axes of an input that may be padded before a layer has read it


def without(x: Followed, gone: Sequence[int]) -> Followed:
    """What is followed when these other axes, of size 1, are gone."""
    assert x.axis is not None
    rank = None if x.rank is None else x.rank - len(gone)
    return replace(x, axis=x.axis + sum(dim > x.axis for dim in gone), rank=rank)


def squeezed(args: Sequence[Any], more: Mapping[str, Any], layers: Layers) -> Followed:
    """Axes of size 1 that are left out; which ones has to be said."""
    x, dims = args[0], more.get("dim", args[1] if len(args) > 1 else None)
    if dims is None or x.axis is None:
        raise Refused("all axes of size 1")
    gone = x.places(whole(dims))
    if x.axis in gone:
        raise Refused("the axis of channels")
    return without(x, gone)


def unsqueezed(args: Sequence[Any], more: Mapping[str, Any], layers: Layers) -> Followed:
    """A new axis."""
    x, dim = args[0], more.get("dim", args[1] if len(args) > 1 else None)
    if x.axis is None or not isinstance(dim, int) or (dim >= 0 and x.rank is None):
        raise Refused("a new axis at a place that is not known")
    new = dim if dim < 0 else dim - x.rank - 1
    return replace(x, axis=x.axis - (new >= x.axis), rank=None if x.rank is None else x.rank + 1)


def flattened(start: int) -> Rule:
    """`flatten(start, end)` where `start` is what it is if nothing is said."""

    def rule(args: Sequence[Any], more: Mapping[str, Any], layers: Layers) -> Followed:
        x, first, last = [*args, *[None] * 2][:3]
        first, last = more.get("start_dim", start if first is None else first), more.get("end_dim", last)
        if last not in (None, -1):
            raise Refused("one that ends before the last axis")
        if first == 1 or (x.rank is not None and first == 1 - x.rank):
            return _one_axis(x)
        if x.axis is None or x.rank is None or x.flat:
            raise Refused("axes that are not known")
        at = first if first >= 0 else first + x.rank
        if x.rank + x.axis >= at:
            raise Refused("channels and other axes after the first")
        return replace(x, axis=x.axis + x.rank - at - 1, rank=at + 1)

    return rule


def _one_axis(x: Followed) -> Followed:
    """All axes but the first as one."""
    if x.axis is None:  # every number of the input is a unit
        return replace(x, axis=-1, rank=2)
    if x.rank == 2 or x.flat:
        return replace(x, rank=2)
    if x.axis == -1:  # places, then channels; of [batch, feature], one place
        return replace(x, rank=2, flat="last")
    if x.position != 1:
        raise Refused("channels between other axes")
    return replace(x, axis=-1, rank=2, flat="first")


def viewed(args: Sequence[Any], more: Mapping[str, Any], layers: Layers) -> Followed:
    """A new shape, of which [batch, all others] is known."""
    x, *shape = args
    shape = list(shape[0]) if len(shape) == 1 and isinstance(shape[0], list | tuple) else shape
    if more or len(shape) != 2 or not (shape[0] is UNKNOWN or shape[0] == -1):
        raise Refused("a shape other than [batch, -1]")
    return _one_axis(x)


def permuted(args: Sequence[Any], more: Mapping[str, Any], layers: Layers) -> Followed:
    """Axes in another order, the first of which stays the first."""
    x, *dims = args
    order = whole(more.get("dims", dims[0] if len(dims) == 1 else dims))
    if x.rank is None or x.axis is None or len(order) != x.rank:
        raise Refused("axes that are not known")
    places = [dim % x.rank for dim in order]
    if places[0] != 0:
        raise Refused("another first axis")
    return replace(x, axis=places.index(x.rank + x.axis) - x.rank)


def transposed(args: Sequence[Any], more: Mapping[str, Any], layers: Layers) -> Followed:
    """Two axes that change places, neither of them the first."""
    x, one, other = args
    if x.axis is None or x.flat:
        raise Refused("axes that are not known")
    a, b = x.places([one, other])
    if x.rank is not None and -x.rank in (a, b):
        raise Refused("another first axis")
    return replace(x, axis={a: b, b: a}.get(x.axis, x.axis))


def padded(args: Sequence[Any], more: Mapping[str, Any], layers: Layers) -> Followed:
    """More places, or more channels, which carry nothing."""
    x, pad = args[0], more.get("pad", args[1] if len(args) > 1 else None)
    mode = more.get("mode", args[2] if len(args) > 2 else "constant")
    if not isinstance(pad, list | tuple) or not all(isinstance(n, int) for n in pad):
        raise Refused("padding that is not known")
    if x.axis is None and len(pad) <= 2 * SPATIAL:
        return x
    before, after = (*pad[2 * (-x.axis - 1) :], 0, 0)[:2] if x.axis is not None else (1, 1)
    if before == after == 0:
        return x
    width = width_of(x.units, layers)
    if mode != "constant" or width is None or min(before, after) < 0:
        raise Refused("padding of channels by others")
    return mapped(x, one_to_one(width, before + width + after, before), layers)


def picked(args: Sequence[Any], more: Mapping[str, Any], layers: Layers) -> Followed:
    """`x[:, ::2]`: some of the places, or some channels, by slices."""
    x, index = args[0], args[1] if isinstance(args[1], tuple) else (args[1],)
    if x.rank is None or x.axis is None or x.flat or any(not isinstance(i, slice) and i is not ... for i in index):
        raise Refused("an index that is no slice, or of axes that are not known")
    if ... in index:
        at = index.index(...)
        index = (*index[:at], *[slice(None)] * (x.rank - len(index) + 1), *index[at + 1 :])
    chosen = (*index, *[slice(None)] * x.rank)[x.rank + x.axis]
    if index[0] != slice(None) or any(n is UNKNOWN for n in (chosen.start, chosen.stop, chosen.step)):
        raise Refused("some images, or places that are not known")
    width = width_of(x.units, layers)
    if chosen == slice(None):
        return x
    if width is None:
        raise Refused("channels of an input that no layer has read")
    return mapped(x, one_to_one(width)[:, chosen], layers)


def whole(dims: Any) -> list[int]:
    """Axes as whole numbers. Raises Refused if they are computed in the forward."""
    found = list(dims) if isinstance(dims, list | tuple) else [dims]
    if not all(type(dim) is int for dim in found):
        raise Refused("axes that are not known")
    return found
