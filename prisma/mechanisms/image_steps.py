"""Steps over single images: how often the answer is right, what heads attend to and whether they are needed, and when
the answer becomes readable.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from prisma.analysis.attention.head_scores import HeadScores, head_scores
from prisma.analysis.lens.logit_lens import logit_lens
from prisma.analysis.patching.ablation import Ablation, ablation
from prisma.analysis.statistics import mean_interval
from prisma.errors import PrismaError
from prisma.mechanisms.findings import Finding, Row, StepFindings, Table, flat, rounded, with_interval
from prisma.mechanisms.given import DoesNotApplyError, Given
from prisma.mechanisms.measures import mean_with_ends
from prisma.metrics import measure

TIMES, LEAST = 2.0, 0.25
"""A head attends to something if its share is so many times that of uniform attention, and at least this large."""
SAID, IN_CARD = 12, 4
"""Heads that have a sentence on the page, and in the model card."""
COMPONENTS = {"attn_out": "attention", "mlp_out": "mlp"}


@dataclass(frozen=True)
class Top:
    """What a head attends to most."""

    name: str  # of a score of `head_scores`
    share: tuple[float, float, float]  # of its attention, with the interval
    chance: float  # the same of uniform attention


def answers(given: Given) -> StepFindings:
    """How often it is right, beside the most frequent class."""
    values = measure(given.metric, given.answers(given.images))
    value = with_interval(*mean_with_ends(values, given.measure_name))
    if given.measure_name != "accuracy":
        return StepFindings("answers", (Finding("loss", (), flat(value, len(values)), in_card=True),))
    frequent = given.wanted.bincount().amax() / len(values)
    numbers = flat(value, rounded(values.sum()), len(values), rounded(frequent))
    return StepFindings("answers", (Finding("accuracy", (), numbers, in_card=True),))


def ablated_heads(given: Given) -> Ablation:
    """Every head's output replaced by its mean over the images, at each token."""
    return ablation(given.model, given.images, "attn.z", given.metric, by="mean", axis="head")


def scored_heads(given: Given) -> HeadScores:
    """All scores that the model and the images allow; equal content is that of equal pixels."""
    found = head_scores(given.model, given.images, masks=given.coverage)
    try:
        named = [*found.metadata["scores"], "induction"]
        both = head_scores(given.model, given.images, named, masks=given.coverage)
    except PrismaError:  # such as without queries that are tokens
        return found
    return found if both.mean[-1].isnan().any() else both


def heads(given: Given) -> StepFindings:
    """What each head attends to, and what the measure loses without it."""
    if not given.model.config.n_layers:
        raise DoesNotApplyError("no_heads")
    found, scores = ablated_heads(given), scored_heads(given)
    harm, ends = _harm(given, found)
    tops = {head: _top(scores, *head) for head in _heads(harm)}
    order = sorted(tops, key=lambda head: (-abs(harm[head].item()), head))
    rows, said = [], list[Finding]()
    for layer, head in order:
        cell, top = with_interval(harm[layer, head], ends[:, layer, head]), tops[layer, head]
        verdict = verdict_of(cell)
        name = f"{layer}.{head}"
        share = () if top is None else top.share
        chance = () if top is None else (top.chance,)
        rows.append(Row(name, (share, chance, cell), verdict if top is None else f"{verdict}_{top.name}"))
        changed = int((found.per_image[:, layer, head] != 0).sum())
        if top is not None or verdict != "not_needed":
            said.append(_head_finding(name, top, cell, verdict, changed, len(given.images)))
    said = [replace(one, in_card=i < IN_CARD) for i, one in enumerate(said[:SAID])]
    needed = sum(verdict_of(row.cells[2]) == "needed" for row in rows)
    summary = Finding("heads", (), flat(needed, len(rows)), in_card=True)
    return StepFindings("heads", (summary, *said), (Table("heads", tuple(rows)),))


def verdict_of(harm: tuple[float, ...]) -> str:
    """What the interval of a harm says: `needed`, `against` (the model is better without), or `not_needed`."""
    return "needed" if harm[1] > 0 else "against" if harm[2] < 0 else "not_needed"


def heads_that(scores: HeadScores, name: str) -> list[tuple[int, int]]:
    """The heads (layer, head) that attend to this above all."""
    heads = _heads(scores.mean[0])
    return [head for head in heads if (top := _top(scores, *head)) is not None and top.name == name]


def _head_finding(
    name: str, top: Top | None, harm: tuple[float, ...], verdict: str, changed: int, images: int
) -> Finding:
    """The sentence of a head: what it attends to, beside what is lost without it."""
    size = harm if verdict != "against" else _better(harm)
    if top is None:
        return Finding(f"unnamed_{verdict}", (name,), flat(size))
    if not changed:
        return Finding(
            "head_unused", (name, top.name), flat(top.share, top.chance, images, rounded(1 - 0.05 ** (1 / images)))
        )
    return Finding(f"head_{verdict}", (name, top.name), flat(top.share, top.chance, size))


def _harm(given: Given, found: Ablation) -> tuple[Tensor, Tensor]:
    """How much worse the measure gets [layer, unit], and its interval [2, layer, unit]."""
    sign = given.measure.harm
    ends = sign * found.interval()
    return sign * found.effect, ends if sign > 0 else ends.flip(0)


def _heads(harm: Tensor) -> list[tuple[int, int]]:
    return [(layer, head) for layer in range(harm.shape[0]) for head in range(harm.shape[1])]


def _top(scores: HeadScores, layer: int, head: int) -> Top | None:
    """What a head attends to most, in multiples of chance; None if nothing is enough.

    That one token, whichever it is, receives most is said only of heads of which nothing else can be said.
    """
    found = list[tuple[bool, float, Top]]()
    for i, name in enumerate(scores.metadata["scores"]):
        share, chance = scores.scores[:, i, layer, head], scores.chance[:, i].nanmean().item()
        mean = share.nanmean().item()
        if mean >= LEAST and mean >= TIMES * chance:
            top = Top(name, with_interval(mean, mean_interval(share)), rounded(chance))
            found.append((name != "sink", mean / chance, top))
    return max(found, key=lambda one: one[:2])[2] if found else None


def lens(given: Given) -> StepFindings:
    """After which block the answer is readable, beside what is lost without what each block adds."""
    if not given.model.config.n_layers:
        raise DoesNotApplyError("no_heads")
    _ = given.measure  # the sentence about the objective comes first
    found = logit_lens(given.model, given.images, tokens=False)
    stages = [measure(given.metric, found.readout[:, stage]) for stage in range(found.readout.shape[1])]
    cells = [with_interval(*mean_with_ends(values, given.measure_name)) for values in stages]
    parts = _ablated_components(given)
    rows = [Row(f"after block {i - 1}" if i else "embedding", (cell,)) for i, cell in enumerate(cells)]
    said = [
        Finding("stages", (), flat(cells[0], cells[-1]), in_card=True),
        *([step] if len(cells) > 2 and (step := _largest_step(cells)) else []),
    ]
    largest = max(parts, key=lambda name: parts[name][0])
    said.append(_part_finding(largest, parts[largest]))
    tables = (
        Table("stages", tuple(rows)),
        Table("parts", tuple(Row(name, (cell,), verdict_of(cell)) for name, cell in parts.items())),
    )
    return StepFindings("lens", tuple(said), tables)


def _part_finding(largest: str, harm: tuple[float, float, float]) -> Finding:
    """The sentence of the part with the largest harm, of which the verdict need not be that it is needed."""
    says = {"needed": "part_needed", "not_needed": "part_none", "against": "part_against"}[verdict_of(harm)]
    return Finding(says, (largest,), flat(harm if says != "part_against" else _better(harm)))


def _better(harm: tuple[float, ...]) -> tuple[float, ...]:
    """How much better the measure gets, from how much worse: the value, and the ends in their order."""
    return -harm[0], -harm[2], -harm[1]


def _largest_step(cells: list[tuple[float, float, float]]) -> Finding | None:
    """Between which two stages the measure of the readout changes most; None if their intervals meet."""
    at = max(range(1, len(cells)), key=lambda i: abs(cells[i][0] - cells[i - 1][0]))
    (_, low, high), (_, least, most) = cells[at - 1], cells[at]
    if low <= most and least <= high:
        return None
    return Finding("largest_step", (), flat(at - 1, cells[at - 1], cells[at]))


def _ablated_components(given: Given) -> Mapping[str, tuple[float, float, float]]:
    """`attention 0`, `mlp 0`, ... -> how much worse the measure gets with the mean of what it writes."""
    found = {}
    config = given.model.config
    kinds = COMPONENTS if config.d_mlp else {"attn_out": "attention"}
    for site, name in kinds.items():
        result = ablation(given.model, given.images, site, given.metric, by="mean", axis="component")
        harm, ends = _harm(given, result)
        for layer in range(config.n_layers):
            found[f"{name} {layer}"] = with_interval(harm[layer, 0], ends[:, layer, 0])
    return dict(sorted(found.items(), key=lambda pair: (int(pair[0].split()[1]), pair[0])))


def as_numbers(given: Given) -> Tensor:
    """[image, number]: the measure, then the harm of ablating each head; one row of a table over checkpoints."""
    found = ablated_heads(given)
    harm = given.measure.harm * found.per_image.flatten(1)
    return torch.cat([found.clean[:, None], harm], 1)
