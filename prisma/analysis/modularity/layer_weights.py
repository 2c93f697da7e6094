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
    whole = weight_of(layer).detach().double().cpu().abs()
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


def expect_computed(layer: nn.Module, name: str) -> None:
    """Raise PrismaError if a layer has a forward of its own that does not multiply with its weights as they are.

    Its class says nothing, so it is tried: the gradient of a unit in what it reads, summed over places as `strengths`
    are. One that pads in another way passes, one that standardises its weights does not.
    """
    base = next(kind for kind in LAYERS if isinstance(layer, kind))
    if type(layer).forward is base.forward:
        return
    weight = weight_of(layer).detach()
    sides: list[int] = [4 * (1 + d * (n - 1)) for n, d in zip(weight.shape[2:], _dilation(layer), strict=True)]
    inputs = weight.shape[1] * getattr(layer, "groups", 1)
    x = torch.zeros(1, inputs, *sides, dtype=weight.dtype, device=weight.device, requires_grad=True)
    wanted = strengths(layer, name)
    with torch.inference_mode(False), torch.enable_grad():
        out = layer(x)
        for unit in {0, len(weight) - 1}:
            (moved,) = torch.autograd.grad(out[(0, unit, *(n // 2 for n in out.shape[2:]))], x, retain_graph=True)
            found = moved[0].double().cpu().abs().reshape(inputs, -1).sum(1)
            if not torch.allclose(found, wanted[unit], rtol=1e-3, atol=1e-6):
                raise PrismaError(
                    f"expected {name} to compute what its weights say; found a {type(layer).__name__}, which changes "
                    "them as it runs: put its weights into a layer of torch"
                )


def _dilation(layer: nn.Module) -> tuple[int, ...]:
    found: Any = getattr(layer, "dilation", ())
    return tuple(found)


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


def weight_of(layer: nn.Module) -> Tensor:
    """The weight that a forward would use: `prune` computes it only then."""
    mask: Any = getattr(layer, "weight_mask", None)
    found: Any = layer.weight if mask is None else layer.weight_orig * mask
    return found
