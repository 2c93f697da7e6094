"""The competitors of rank-one edits: fine-tuning one MLP on the new answer, freely or within a box.

FT changes the MLP's last linear map by Adam until the model gives the new answer; FT+L keeps every number within `box`
of its old value after each step. Both are those of Meng et al. 2202.05262, with their settings by default.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from prisma.editing.weight_edit import LowRank, WeightEdit
from prisma.errors import PrismaError
from prisma.language.anatomy import Anatomy, anatomy, evaluating
from prisma.language.facts import Fact
from prisma.language.objective import AnswerLoss, frozen
from prisma.language.rank_one_edit import expect_layer, expect_new
from prisma.numbers import exact


def fine_tuned_edit(
    model: nn.Module | Anatomy,
    tokenizer: Any,
    fact: Fact,
    *,
    layer: int,
    box: float | None = None,
    steps: int = 25,
    lr: float = 5e-4,
    enough: float = 1e-2,
) -> WeightEdit:
    """What fine-tuning one MLP on the bare prompt would change, as the same value as a rank-one edit.

    Args:
        box: the largest change of a number (5e-4 in ROME's FT+L); None leaves it free.
        steps, lr: of Adam. Small models need larger ones.
        enough: stop when the loss is below this.

    Raises:
        PrismaError: as `rank_one_edit`, or an option is not above 0.
    """
    parts = anatomy(model)
    name = expect_layer(parts, layer)
    expect_new(fact)
    if steps < 1 or not lr > 0 or (box is not None and not box > 0):
        raise PrismaError(f"expected steps, lr and box above 0; found {steps}, {lr} and {box}")
    linear = parts.mlp_out[layer]
    weight: nn.Parameter = linear.weight  # type: ignore[assignment]
    before = weight.detach().clone()
    with evaluating(parts.model), frozen(parts.model):
        loss = AnswerLoss(parts, tokenizer, linear, fact.prompt, fact.subject, fact.new, ["{}"], kl=0.0)
        nothing = torch.zeros_like(loss.start)
        try:
            change = _tuned(weight, before, lambda: loss(nothing), box, steps, lr, enough)
            after = loss.probability_now()
        finally:
            weight.data.copy_(before)
    change = change.double().cpu()
    matrix = change if isinstance(linear, nn.Linear) else change.T  # [out, in]
    u, v = torch.eye(matrix.shape[1], dtype=matrix.dtype), matrix
    if matrix.shape[0] < matrix.shape[1]:
        u, v = matrix.T, torch.eye(matrix.shape[0], dtype=matrix.dtype)
    about = {
        "method": "fine_tuned_edit", "prompt": fact.prompt, "subject": fact.subject, "new": fact.new, "layer": layer,
        "box": box, "steps": steps, "lr": lr, "probability_before": loss.probability, "probability_after": after,
    }  # fmt: skip
    return WeightEdit((LowRank.of(parts.model, f"{name}.weight", u, v),), about)


def _tuned(
    weight: nn.Parameter, before: torch.Tensor, loss: Any, box: float | None, steps: int, lr: float, enough: float
) -> torch.Tensor:
    """The change of the weight, in float32 at least; the weight is left changed."""
    start = exact(before)
    change = torch.zeros_like(start, requires_grad=True)
    adam = torch.optim.Adam([change], lr=lr)
    with torch.enable_grad(), _trainable(weight):
        for _ in range(steps):
            value = loss()
            if value.item() < enough:
                break
            (gradient,) = torch.autograd.grad(value, [weight])
            change.grad = gradient.to(change)
            adam.step()
            with torch.no_grad():
                if box is not None:
                    change.clamp_(-box, box)
                weight.copy_(start + change)
    return change.detach()


@contextmanager
def _trainable(weight: nn.Parameter) -> Iterator[None]:
    """Within, gradients of this weight can be taken."""
    weight.requires_grad_(True)
    try:
        yield
    finally:
        weight.requires_grad_(False)
