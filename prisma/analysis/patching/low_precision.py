"""A sweep in low precision, whose largest cells are computed again exactly.

The ranking of cells needs far fewer digits than their effects: with an error e of an effect in low precision, every
cell whose effect is more than e below the k-th largest is none of the k largest. So all cells are computed in low
precision, the k largest and all within the error of the k-th exactly, and the error is measured on those.

    change_low[cell]    = metric(patched run) - metric(target run), both in low precision
    error               = max over the exact cells of |change_exact - change_low|, means over pairs
    exact cells         = those with |change_low| >= (the k-th largest of |change_exact|) - error

The error is measured, not proved: a cell that was not computed exactly may have a larger one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from prisma.analysis.patching.sweeping import PatchedRuns
from prisma.errors import PrismaError
from prisma.metrics import Metric, measure
from prisma.plain import copied_with
from prisma.runs import Model

PRECISIONS = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
TENSORS = ("_parameters", "_buffers")
M = TypeVar("M", bound=nn.Module)
Runs = Callable[[Model, Tensor | None], tuple[PatchedRuns, Tensor]]
"""A model and the cells [layer, unit] to patch, or None for all -> their runs, and the logits of the source run."""


def expect_precision(precision: str | None, exact_top: int) -> None:
    """Raise PrismaError unless a precision is known, and cells are made exact only where others are not."""
    if precision is not None and precision not in PRECISIONS:
        raise PrismaError(f"expected precision to be {', '.join(PRECISIONS)}; found {precision!r}")
    if exact_top < 0 or (exact_top and precision is None):
        raise PrismaError(
            f"expected exact_top of at least 0, with a precision such as 'bfloat16' for the other cells; found "
            f"exact_top={exact_top}, precision={precision!r}"
        )


@dataclass(frozen=True)
class Swept:
    """The metric of all cells, and the exact logits of the two runs that are not patched."""

    values: Tensor  # [image, layer, unit]
    target: Tensor  # [image, class]
    source: Tensor  # [image, class]
    exact: Tensor | None = None  # [layer, unit], bool; None: every cell is exact
    error: float = float("nan")  # the largest difference between low precision and exact among the exact cells


def swept(model: Model, runs: Runs, metric: Metric, precision: str | None, exact_top: int) -> Swept:
    """The metric of every cell: of the `exact_top` largest exactly, of the others in low precision if one is given.

    A cell in low precision has the exact metric of the target run plus its change in low precision, so that the errors
    that both runs share are not in it.
    """
    if precision is None:
        found, source = runs(model, None)
        return Swept(found.measure(metric), found.logits, source)
    low, _ = runs(in_precision(model, PRECISIONS[precision]), None)
    changes = _changes(low, metric, next(model.parameters()).dtype)
    sizes = changes.mean(0).abs()
    exact, wanted = torch.zeros_like(sizes, dtype=torch.bool), _largest(sizes, exact_top)
    values, error = changes, float("nan")
    found, source = runs(model, wanted)
    while (missing := wanted & ~exact).any():
        if exact.any():
            found, source = runs(model, missing)
        values = torch.where(missing, _changes(found, metric, values.dtype), values)
        exact |= missing
        error = (values - changes).mean(0).abs().max().item()
        kth = values.mean(0).abs()[exact].topk(min(exact_top, int(exact.sum()))).values[-1]
        wanted = sizes >= kth - error
    base = measure(metric, found.logits)[:, None, None]
    return Swept(base + values, found.logits, source, exact, error)


def in_precision(model: M, kind: torch.dtype) -> M:
    """The model in another precision, with what its parts carry; `copy.deepcopy` takes longer than a run on a GPU."""
    return cast(M, _part_in(model, kind, {}))


def _part_in(module: nn.Module | None, kind: torch.dtype, made: dict[int, Any]) -> nn.Module | None:
    """A part in another precision. `made`: what there is already by the identity of the original: two may share one."""
    if module is None:
        return None
    if id(module) not in made:
        own = {name: {key: _tensor_in(x, kind, made) for key, x in vars(module)[name].items()} for name in TENSORS}
        parts = {name: _part_in(x, kind, made) for name, x in module._modules.items()}
        made[id(module)] = copied_with(module, {**own, "_modules": parts})
    return cast(nn.Module, made[id(module)])


def _tensor_in(x: Any, kind: torch.dtype, made: dict[int, Any]) -> Any:
    """A weight or buffer in another precision."""
    if x is None or not x.is_floating_point():
        return x
    if id(x) not in made:
        made[id(x)] = x.detach().to(kind, copy=True)
        if isinstance(x, nn.Parameter):
            made[id(x)] = nn.Parameter(made[id(x)], x.requires_grad)
    return made[id(x)]


def _changes(runs: PatchedRuns, metric: Metric, dtype: torch.dtype) -> Tensor:
    """[image, layer, unit]: by how much each cell changes the metric, from logits in the given precision."""
    wide = PatchedRuns(runs.patched.to(dtype), runs.logits.to(dtype), runs.cells)
    return wide.measure(metric) - measure(metric, wide.logits)[:, None, None]


def _largest(sizes: Tensor, k: int) -> Tensor:
    """[layer, unit], bool: the k largest."""
    chosen = sizes.flatten().topk(min(k, sizes.numel())).indices
    return torch.zeros(sizes.numel(), dtype=torch.bool, device=sizes.device).scatter(0, chosen, True).view_as(sizes)
