"""Successive halving: with enough time it finds exactly the smallest that exhaustive search finds."""

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prisma.recipes import recipe
from prisma.smallest.grid import Candidate
from prisma.smallest.halving import Found, Trial, halve, rungs, survivors

CHECKPOINTS = (0, 1, 2, 4, 8, 16)
CIRCLE = recipe("circle")


def made(n: int) -> tuple[Candidate, ...]:
    """Candidates of growing width."""
    sizes = [{"d_model": str(4 * i), "d_mlp": "0", "patch_size": "16"} for i in range(1, n + 1)]
    recipes = [CIRCLE.override({**values, "n_heads": "1"}) for values in sizes]
    return tuple(Candidate(values, one, i) for i, (values, one) in enumerate(zip(sizes, recipes, strict=True), start=1))


class Machine:
    """Training whose accuracies are known: at the end those of a table, before a part of them."""

    def __init__(self, table: Sequence[Sequence[float]], time: int = 10**6) -> None:
        self.table, self.time, self.trials = table, time, list[tuple[int, int, int]]()

    def train(self, candidates: Sequence[Candidate], trials: Sequence[Trial]) -> list[float | None]:
        answers: list[float | None] = []
        for trial in trials:
            i = candidates.index(trial.candidate)
            self.time -= 1
            if self.time < 0:
                answers.append(None)
                continue
            self.trials.append((i, trial.seed, trial.steps))
            answers.append(self.table[i][trial.seed] * trial.steps / CHECKPOINTS[-1])
        return answers


accuracies = st.lists(st.lists(st.sampled_from([0.1, 0.5, 0.9, 1.0]), min_size=2, max_size=2), min_size=1, max_size=24)


@settings(deadline=None)
@given(accuracies, st.integers(1, 3))
def test_it_finds_what_trying_everything_finds(table: list[list[float]], at_once: int) -> None:
    found = Found(0.9, (0, 1), made(len(table)))
    machine = Machine(table)
    said = list(halve(found, CHECKPOINTS, lambda trials: machine.train(found.candidates, trials), at_once))
    expected = next((i for i, row in enumerate(table) if min(row) >= 0.9), None)
    assert found.complete and said
    assert found.smallest is (None if expected is None else found.candidates[expected])
    assert len(machine.trials) == len(set(machine.trials)), "nothing is trained twice"
    verdicts = [found.verdict(one) for one in found.candidates]
    if expected is not None:
        assert verdicts[:expected] == ["fails"] * expected and verdicts[expected] == "smallest"
        assert set(verdicts[expected + 1 :]) <= {"larger", "fails"}


@settings(deadline=None)
@given(accuracies, st.integers(0, 30))
def test_without_time_it_says_what_was_not_tried_and_goes_on_from_there(table: list[list[float]], time: int) -> None:
    """A later search knows what the earlier one knew, from the folders; here from the candidates."""
    found = Found(0.9, (0, 1), made(len(table)))
    machine = Machine(table, time)
    list(halve(found, CHECKPOINTS, lambda trials: machine.train(found.candidates, trials)))
    ended = {i: [row[seed] for seed in (0, 1) if (i, seed, 16) in machine.trials] for i, row in enumerate(table)}
    for i, one in enumerate(found.candidates):
        assert sorted(one.finished.values()) == sorted(ended[i])
        if found.verdict(one) == "untested":
            assert not ended[i] or min(ended[i]) >= 0.9
    assert found.complete == all(found.verdict(one) != "untested" for one in found.candidates)
    machine.time = 10**6
    list(halve(found, CHECKPOINTS, lambda trials: machine.train(found.candidates, trials)))
    expected = next((i for i, row in enumerate(table) if min(row) >= 0.9), None)
    assert found.complete and found.smallest is (None if expected is None else found.candidates[expected])


def test_survivors_are_the_frontier_then_the_next_one() -> None:
    sizes, reached = [1, 2, 3, 4, 5, 6], [0.1, 0.5, 0.4, 0.95, 0.99, 0.3]
    assert survivors(sizes, reached, 3, 0.9) == [0, 1, 3], "4 is more accurate than 3, but both reach the target"
    assert survivors(sizes, reached, 5, 0.9) == [0, 1, 2, 3, 4]
    assert survivors(sizes, reached, 1, 0.9) == [3]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 9), st.floats(0, 1)), min_size=1, max_size=12), st.integers(1, 12))
def test_a_survivor_is_never_worse_in_both_than_one_given_up(pairs: list[tuple[int, float]], keep: int) -> None:
    sizes, reached = [size for size, _ in pairs], [min(accuracy, 0.8) for _, accuracy in pairs]
    kept = survivors(sizes, reached, keep, 0.8)
    assert len(kept) == min(keep, len(pairs)) == len(set(kept))
    for i in kept:
        for j in set(range(len(pairs))) - set(kept):
            assert not (sizes[j] < sizes[i] and reached[j] > reached[i])


@pytest.mark.parametrize(
    ("n", "at_once", "steps"), [(64, 2, [4, 8]), (3, 2, [8]), (2, 1, []), (5, 8, []), (1, 1, []), (9, 4, [4, 8])]
)
def test_the_rungs_end_where_few_are_left(n: int, at_once: int, steps: list[int]) -> None:
    assert rungs(CHECKPOINTS, n, at_once) == steps


def test_the_frontier_is_of_those_trained_to_their_end_by_their_worst_seed() -> None:
    found = Found(0.9, (0, 1), made(4))
    for one, finished in zip(found.candidates, ({0: 0.3}, {0: 0.9, 1: 0.2}, {}, {0: 0.5, 1: 0.6}), strict=True):
        one.finished.update(finished)
    assert found.frontier == (found.candidates[0], found.candidates[3])
    row = found.to_dict()["candidates"][1]
    assert row["finished"] == {"0": 0.9, "1": 0.2} and row["verdict"] == "fails" and row["parameters"] > 0
    assert found.to_dict()["smallest"] is None and not found.to_dict()["complete"]
