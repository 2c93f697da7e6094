"""The step over the checkpoints of a mouse: when its answers, and what each head is needed for, change most."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from prisma.analysis.result import Result
from prisma.errors import NotFiniteError
from prisma.mechanisms.findings import Finding, Row, StepFindings, Table, flat, rounded
from prisma.mechanisms.given import DoesNotApplyError, Given
from prisma.mechanisms.image_steps import as_numbers
from prisma.study.trajectory import Trajectory, trajectory

MOST = 40
"""Checkpoints that are measured; of more, so many that are spread over all."""
IMAGES = 128
SAID = 4


@dataclass(frozen=True, kw_only=True, eq=False)
class Numbers(Result):
    """At one checkpoint, for each image: the measure, then the harm of ablating each head."""

    AXES: ClassVar[Mapping[str, tuple[str, ...]]] = {"numbers": ("image", "number")}

    numbers: Tensor


def measured(given: Given) -> tuple[Trajectory, list[int]]:
    """The numbers of every checkpoint, and their change points; and the steps that give no finite ones.

    Raises DoesNotApplyError where fewer than two checkpoints do.
    """
    if given.checkpoints is None:
        raise DoesNotApplyError("no_checkpoints")
    if len(given.checkpoints) < 2:
        raise DoesNotApplyError("few_checkpoints", len(given.checkpoints))
    results, lost = dict[int, Numbers](), list[int]()
    for step in chosen_steps(sorted(given.checkpoints)):
        at = replace(given, model=given.checkpoints[step](), limit=min(given.limit, IMAGES), checkpoints=None)
        try:
            results[step] = Numbers(metadata={"analysis": "mechanism"}, numbers=as_numbers(at).float())
        except NotFiniteError:  # a training that diverged, and perhaps came back
            lost.append(step)
    if len(results) < 2:
        raise DoesNotApplyError("few_finite_checkpoints", len(results), len(results) + len(lost))
    return trajectory(results, seed=given.seed), lost


def chosen_steps(steps: list[int]) -> list[int]:
    """All steps, or MOST of them, the first and the last among them."""
    if len(steps) <= MOST:
        return steps
    places = torch.linspace(0, len(steps) - 1, MOST).round().long().unique().tolist()
    return [steps[i] for i in places]


def dynamics(given: Given) -> StepFindings:
    """When in training the numbers of the other steps changed."""
    if not given.model.config.n_layers:
        raise DoesNotApplyError("no_heads")
    _ = given.measure  # the sentence about the objective comes first
    found, lost = measured(given)
    names = [given.measure.noun, *(_head(given, i) for i in range(found.mean.shape[1] - 1))]
    steps = found.metadata["steps"]
    order = [0, *(1 + found.jump[1:].abs().argsort(descending=True, stable=True)).tolist()]
    said = [Finding("checkpoints", (), flat(len(steps), steps[0], steps[-1], found.metadata["images"]))]
    said += [Finding("lost_checkpoints", (), flat(len(lost), len(lost) + len(steps), lost[0]))] if lost else []
    said += [_change(found, i, names[i], in_card=i == 0) for i in order[: 1 + SAID]]
    changes = tuple(Row(names[i], _cells(found, i), "" if _is_step(found, i) else "no_step") for i in order)
    curves = tuple(
        Row(f"step {step}", tuple((rounded(x),) for x in found.mean[c].tolist())) for c, step in enumerate(steps)
    )
    return StepFindings("dynamics", tuple(said), (Table("changes", changes), Table("curves", curves)))


def _head(given: Given, i: int) -> str:
    layer, head = divmod(i, given.model.config.n_heads)
    return f"head {layer}.{head}"


def _is_step(found: Trajectory, i: int) -> bool:
    """Whether the jump may not be 0, by its interval: else the number stays, or falls and rises."""
    low, high = found.jump_interval[:, i].tolist()
    return not low <= 0 <= high


def _cells(found: Trajectory, i: int) -> tuple[tuple[float, ...], ...]:
    first, last = found.mean[0, i], found.mean[-1, i]
    when = () if not _is_step(found, i) else tuple(float(x) for x in (found.change[i], *found.change_interval[:, i]))
    jump = (rounded(found.jump[i]), *(rounded(x) for x in found.jump_interval[:, i]))
    return (rounded(first),), (rounded(last),), when, jump


def _change(found: Trajectory, i: int, name: str, *, in_card: bool) -> Finding:
    first, last, when, jump = _cells(found, i)
    if not when:
        return Finding("no_change", (name,), flat(first, last, jump), in_card)
    return Finding("change", (name,), flat(first, last, when, jump), in_card)
