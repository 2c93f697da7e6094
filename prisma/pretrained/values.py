"""Tensors of a source that can become weights: with values, in one precision, on one device, not quantised, finite."""

from collections.abc import Mapping

from torch import Tensor, nn

from prisma.errors import PrismaError, UnsupportedModelError

PLAIN = (Tensor, nn.Parameter, nn.Buffer)
"""Types of tensors whose values are their numbers; others (quantised, sharded) are subclasses."""


def expect_usable(tensors: Mapping[str, Tensor], name: str) -> None:
    """Check the tensors of a source from which weights are made.

    Raises:
        PrismaError: some have no values (device meta), or are on different devices; the message says what to do.
        UnsupportedModelError: some are quantised, or not in one precision.
    """
    if odd := [f"{key} is a {type(x).__name__}" for key, x in tensors.items() if type(x) not in PLAIN]:
        raise UnsupportedModelError(
            f"expected plain tensors in {name}; found that {odd[0]}: load the model without quantisation, on one device"
        )
    devices = {str(x.device): key for key, x in tensors.items()}
    if len(devices) > 1:
        raise PrismaError(
            f"expected all weights of {name} on one device; found {_examples(devices)}: move the module first, with "
            f".to({min(devices)!r})"
        )
    precisions = {str(x.dtype): key for key, x in tensors.items() if x.is_floating_point()}
    if len(precisions) > 1:
        raise UnsupportedModelError(
            f"expected all weights of {name} in one precision; found {_examples(precisions)}: convert the module "
            "first, with .float()"
        )


def expect_values(tensors: Mapping[str, Tensor], name: str) -> None:
    """Raise PrismaError, which says what to do, if some tensors have a shape but no values (device meta)."""
    if empty := [key for key, x in tensors.items() if x.is_meta]:
        raise PrismaError(
            f"expected weights with values in {name}; found {len(empty)} tensors on the device meta, such as {empty[0]}"
            ": load the model without device_map and offloading, or fill it by load_state_dict(..., assign=True)"
        )


def _examples(found: Mapping[str, str]) -> str:
    return " and ".join(f"{what} ({key})" for what, key in sorted(found.items()))
