"""Triples: labels are those of the rule, sources tell what an exchange did, and rules are those of the data."""

import pytest
import torch

from prisma import PrismaError
from prisma.data import TASKS
from prisma.data.counterfactuals import counterfactuals

DRAWN = ("sprites", "circle", "induction", "pairs")


@pytest.mark.parametrize("name", DRAWN)
def test_labels_follow_from_factors_by_the_rule(name: str) -> None:
    task = TASKS[name]
    assert task.rule is not None
    for split in task.splits.values():
        assert torch.equal(task.rule(split.factors), split.labels)


def test_the_rules_of_dsprites_and_of_several_glyphs() -> None:
    factors = {
        name: torch.tensor([1, 2]) for name in ("shape", "scale", "orientation", "x", "y", "direction", "pattern")
    }
    expected = {
        "dsprites": [1, 2],
        "dsprites-scale": [1, 2],
        "dsprites-position": [33, 66],
        "induction-polygenic": [7, 14],
    }
    for name, labels in expected.items():
        rule = TASKS[name].rule
        assert rule is not None and rule(factors).tolist() == labels


@pytest.mark.parametrize(("name", "factor"), [("sprites", "hue"), ("circle", "second"), ("induction", "orientation")])
def test_the_three_labels_of_a_triple_differ(name: str, factor: str) -> None:
    task = TASKS[name]
    found = counterfactuals(task, factor, "test", 60, seed=3)
    data = task.splits["test"]
    images = task.transform.normalise(data.images)
    base, source = (
        torch.stack([(images == x).flatten(1).all(1).nonzero()[0, 0] for x in some])
        for some in (found.images, found.sources)
    )
    assert task.rule is not None
    mixed = {n: x[source] if n == factor else x[base] for n, x in data.factors.items()}
    assert torch.equal(found.labels, task.rule(mixed)) and len(found.labels.unique()) > 1
    assert (found.labels != data.labels[base]).all() and (found.labels != data.labels[source]).all()
    some = counterfactuals(task, factor, "test", rows=base[20:30].tolist(), seed=3)
    assert torch.equal(found.sources[20:30], some.sources) and torch.equal(found.labels[20:30], some.labels)
    assert not torch.equal(found.sources, counterfactuals(task, factor, "test", 60, seed=4).sources)


@pytest.mark.parametrize(
    ("name", "factor", "n", "message"),
    [
        ("digits", "hue", None, "expected a task whose labels follow from its factors; found digits"),
        ("sprites", "color", None, "expected a factor of sprites; found 'color'; the nearest: "),
        ("sprites", "row", 5, "expected labels of sprites that depend on row; found none of 64 sources that changes"),
        ("sprites", "hue", 0, "expected 1 to 1,000 triples of the test images of sprites; found 0"),
    ],
)
def test_what_gives_no_triples_is_one_sentence(name: str, factor: str, n: int | None, message: str) -> None:
    with pytest.raises(PrismaError, match=message):
        counterfactuals(TASKS[name], factor, n=n)
