"""Numbers of a tensor: in which precision sums and differences are computed, and whether all of them are finite."""

import torch
from torch import Tensor


def exact(x: Tensor) -> Tensor:
    """The tensor in float32 at least: whole numbers and half precision become float32."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def first_not_finite(x: Tensor) -> tuple[int, float] | None:
    """(index along the first axis, value) of the first NaN or infinity; None if all numbers are finite."""
    if not x.is_floating_point() or not x.numel() or torch.stack(x.detach().aminmax()).isfinite().all():
        return None
    wrong = (~x.detach().isfinite()).nonzero()[0].tolist()
    return (wrong[0] if wrong else 0), x.detach()[tuple(wrong)].item()
