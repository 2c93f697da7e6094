"""The weights of the layers of any network of torch, as they compute: pruned, parametrized, and batch norm."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from prisma.errors import PrismaError

LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""Modules whose outputs are units of a graph."""
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
NORMS = (*BATCH_NORMS, nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
HOOKS = ("_forward_pre_hooks", "_forward_hooks")


def strengths(layer: nn.Module, name: str) -> Tensor:
    """[unit, input]: how strongly each unit of a layer reads each of its inputs, in float64, 0 or more.

    The absolute weight; of a convolution, the sum of the absolute weights of the kernel from one channel to another.

    Raises:
        PrismaError: a hook, whose effect no weight shows, or weights that are not finite.
    """
    expect_no_hook(layer, name)
    whole = _weight(layer).detach().double().cpu().abs()
    per_input = whole.flatten(2).sum(2) if whole.ndim > 2 else whole
    groups = getattr(layer, "groups", 1)
    if not bool(per_input.isfinite().all()):
        raise PrismaError(f"expected finite weights; found {per_input[~per_input.isfinite()][0]} in {name}.weight")
    return per_input if groups == 1 else torch.block_diag(*per_input.chunk(groups))


def gains(norm: nn.Module, name: str) -> Tensor | None:
    """[channel]: the factor by which a norm multiplies each channel, 0 or more; None if it has none.

    Of a batch norm it is weight / sqrt(running variance + eps), as at inference; of other norms, whose divisor depends
    on the input, the weight.
    """
    expect_no_hook(norm, name)
    weight: Any = getattr(norm, "weight", None)
    variance: Any = getattr(norm, "running_var", None) if isinstance(norm, BATCH_NORMS) else None
    if weight is None and variance is None:
        return None
    found = torch.ones_like(variance).double() if weight is None else weight.detach().double()
    return (found if variance is None else found / (variance.double() + norm.eps).sqrt()).abs().flatten().cpu()


def is_pruned(network: nn.Module) -> bool:
    """Whether a part of a network was pruned by `torch.nn.utils.prune`, whose masks are still there."""
    return any(name.rpartition(".")[2] == "weight_mask" for name, _ in network.named_buffers())


def expect_no_hook(module: nn.Module, name: str) -> None:
    """Raise PrismaError if a module carries a hook, other than that which pruning needs."""
    for kind in HOOKS:
        for hook in getattr(module, kind).values():
            if not isinstance(hook, prune.BasePruningMethod):
                called = getattr(hook, "__qualname__", type(hook).__name__)
                raise PrismaError(f"expected {name} to compute what its weights say; found a hook, {called}: remove it")


def _weight(layer: nn.Module) -> Tensor:
    """The weight that a forward would use: `prune` computes it only then."""
    mask: Any = getattr(layer, "weight_mask", None)
    found: Any = layer.weight if mask is None else layer.weight_orig * mask
    return found
