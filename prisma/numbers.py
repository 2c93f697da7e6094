"""Numbers of a tensor: in which precision sums and differences are computed, and whether all of them are finite."""

from collections.abc import Iterable

import torch
from torch import Tensor


def exact(x: Tensor) -> Tensor:
    """The tensor in float32 at least: whole numbers and half precision become float32."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def are_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether all numbers of all tensors are finite: one pass, no copy, one transfer for each precision."""
    extremes: dict[torch.dtype, list[Tensor]] = {}  # those of one kind are looked at in one call
    for x in tensors:
        for end in _extremes(x):
            extremes.setdefault(end.dtype, []).append(end)
    return all(bool(torch.stack(ends).isfinite().all()) for ends in extremes.values())


def _extremes(x: Tensor) -> tuple[Tensor, ...]:
    """The smallest and the largest number, both NaN if one is; nothing for whole numbers and for what has no values."""
    if not x.is_floating_point() or not x.numel() or x.is_meta:
        return ()
    return tuple((x.detach().float() if x.itemsize == 1 else x.detach()).aminmax())


def first_not_finite(x: Tensor) -> tuple[int, float] | None:
    """(index along the first axis, value) of the first NaN or infinity; None if all numbers are finite."""
    if are_finite([x]):
        return None
    wrong = (~x.detach().isfinite()).nonzero()[0].tolist()
    return (wrong[0] if wrong else 0), x.detach()[tuple(wrong)].item()
