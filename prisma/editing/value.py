"""The value of an edit: what a map must answer to its keys so that the model says something else, by optimisation.

Starting from the old answer v0, a change d is sought that lowers the loss of the whole model, as ROME does:

    loss(d) + decay * ||d||^2 / ||v0||^2         Adam, and after each step ||d|| <= clamp * ||v0||

The weight is not touched: the caller's loss runs the model with d added where the map answers. d is searched in
float32 at least, whatever the model computes in: steps of Adam are lost in fewer bits. (ROME's program
penalises ||d||, not its square; the square is what the paper states.)

Source: Meng et al. 2022 (2202.05262).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from prisma.errors import NotFiniteError, PrismaError, quoted
from prisma.numbers import exact


@dataclass(frozen=True, eq=False)
class Optimum:
    """Attributes:
    change: [..., feature], what is to be added to the old answers, in float32 at least.
    losses: the caller's loss before each step and, last, that of `change`.
    """

    change: Tensor
    losses: tuple[float, ...]


def optimal_value(
    start: Tensor,
    loss: Callable[[Tensor], Tensor],
    *,
    steps: int = 25,
    lr: float = 0.5,
    decay: float = 0.5,
    clamp: float = 4.0,
    enough: float = 0.05,
) -> Optimum:
    """Which change of a map's answers makes the model's loss small?

    Args:
        start: the old answers [..., feature], one for each key, or one for all.
        loss: of a change of the shape of `start`: a scalar with a gradient.
        steps: at most so many of Adam.
        lr: its step, in units of the root mean square of `start`, so that it means the same in every model.
        decay: weight of the relative squared length of the change.
        clamp: the longest change, in lengths of `start`.
        enough: stop when the loss is below this.

    Raises:
        PrismaError: settings out of range, an old answer of 0, or a loss that is not finite or does not depend on the
            change.
    """
    if steps < 1 or not lr > 0 or decay < 0 or not clamp > 0:
        raise PrismaError(
            f"expected steps, lr and clamp above 0 and decay of at least 0; found {quoted((steps, lr, clamp, decay))}"
        )
    start = exact(start.detach())
    length = start.norm(dim=-1, keepdim=True)
    if not bool((length > 0).all()):
        raise PrismaError("expected old answers with numbers other than 0; found one that is all 0")
    with torch.enable_grad():
        change = torch.zeros_like(start, requires_grad=True)
        adam = torch.optim.Adam([change], lr=lr * float(start.square().mean().sqrt()))
        losses: list[float] = []
        for step in range(steps + 1):
            found = loss(change)
            losses.append(_finite(found, step))
            if losses[-1] < enough or step == steps:
                break
            adam.zero_grad()
            (found + decay * (change / length).square().sum(-1).mean()).backward()
            adam.step()
            with torch.no_grad():
                change *= (clamp * length / change.norm(dim=-1, keepdim=True).clamp(min=1e-30)).clamp(max=1)
    return Optimum(change.detach(), tuple(losses))


def _finite(loss: Tensor, step: int) -> float:
    if loss.ndim or not loss.requires_grad:
        raise PrismaError(f"expected a loss that is one number and depends on the change; found {loss!r}")
    value = float(loss.detach())
    if value != value or abs(value) == float("inf"):
        raise NotFiniteError(f"expected a finite loss; found {value} at step {step}")
    return value
