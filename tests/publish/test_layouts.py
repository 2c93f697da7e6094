"""Names of checkpoints are read as their publishers mean them, and gaps in schedules are found and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prisma.publish.layouts import MOST_MISSING, gaps, step_name

PYTHIA = [0, *(2**i for i in range(10)), *range(1000, 143_001, 1000)]
CRFM = [*range(0, 100, 10), *range(100, 2000, 50), *range(2000, 20_000, 100), *range(20_000, 400_001, 1000)]
MULTIBERTS = [*range(0, 200_001, 20_000), *range(300_000, 2_000_001, 100_000)]


@pytest.mark.parametrize(
    ("name", "stage", "step", "ten_later"),
    [
        ("step1000", "", 1000, "step1010"),
        ("step1000-tokens4B", "", 1000, "step1010"),
        ("stage1-step102000-tokens428B", "stage1", 102_000, "stage1-step102010"),
        ("stage2-ingredient1-step23852-tokens51B", "stage2-ingredient1", 23_852, "stage2-ingredient1-step23862"),
        ("step-001000-2BT", "", 1000, "step-001010"),
        ("step-000128", "", 128, "step-000138"),
        ("240b_tokens", "", 240, "250b_tokens"),
        ("checkpoint-500", "", 500, "checkpoint-510"),
        ("ckpt_000", "", 0, "ckpt_010"),
        ("pretrain_iter_0373000", "pretrain", 373_000, "pretrain_iter_0373010"),
        ("multiberts-seed_1-step_100k", "multiberts-seed_1", 100_000, "multiberts-seed_1-step_100010"),
        ("run-a_epoch-3", "run-a", 3, "run-a_epoch-13"),
        ("global_step8", "", 8, "global_step18"),
    ],
)
def test_a_name_of_a_step(name: str, stage: str, step: int, ten_later: str) -> None:
    found = step_name(name)
    assert found
    assert (found.stage, found.step) == (stage, step)
    assert found.of(step + 10) == ten_later
    assert step_name("multiberts-seed_1-step_100k").of(120_000) == "multiberts-seed_1-step_120k"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "name", ["main", "v1.0", "fp16", "step", "stepper", "steps-1-2-3", "step" + "9" * 30, "step\u0661", "x" * 999]
)
def test_a_name_of_no_step(name: str) -> None:
    assert step_name(name) is None


@pytest.mark.parametrize(
    "steps", [PYTHIA, CRFM, MULTIBERTS, range(359), [], [5], [1000, 2000, 4000], [1, 2, 3, 10**17]]
)
def test_a_whole_schedule_has_no_gap(steps: list[int]) -> None:
    assert list(gaps(steps)) == []


@pytest.mark.parametrize(
    ("steps", "missing"),
    [
        (PYTHIA, [5000]),
        (PYTHIA, [1000]),
        (PYTHIA, [256]),
        (PYTHIA, [4, 8, 64]),
        (PYTHIA, [5000, 6000, 8000, 142_000]),
        (CRFM, [30, 150, 17_000]),
        (MULTIBERTS, [40_000, 900_000]),
        (range(359), [7, 8, 9, 357]),
        ([1000, 2000, 3000, 4000, 5000], [4000]),
        ([0, 1000, 2000, 3000, 4000], [1000]),
    ],
)
def test_missing_steps_are_found(steps: list[int], missing: list[int]) -> None:
    found = list(gaps(step for step in steps if step not in missing))
    assert sorted(step for gap in found for step in gap.steps) == missing


@given(st.integers(1, 5000), st.integers(6, 60), st.data())
def test_in_an_even_schedule_exactly_the_missing_steps_are_found(spacing: int, n: int, data: st.DataObject) -> None:
    """Of which no two neighbours are missing, and the first three and the last two are there."""
    chosen = data.draw(st.sets(st.integers(3, n - 3), max_size=3)) if n > 8 else set()
    missing = {i for i in chosen if i - 1 not in chosen}
    steps = [i * spacing for i in range(n) if i not in missing]
    found = {step for gap in gaps(steps) for step in gap.steps}
    assert found == {i * spacing for i in missing}


@given(st.sets(st.integers(0, 10**18)))
def test_a_gap_is_between_steps_that_are_there(steps: set[int]) -> None:
    for gap in gaps(steps):
        assert min(steps) <= gap.steps[0] <= gap.steps[-1] <= max(steps)
        assert not steps & set(gap.steps)
        assert len(gap.steps) == min(gap.n, MOST_MISSING)


def test_a_gap_of_any_size_is_counted_and_not_listed() -> None:
    (gap,) = gaps([0, 10**17, 10**17 + 1, 10**17 + 2, 10**17 + 3])
    assert (len(gap.steps), gap.n) == (MOST_MISSING, 10**17 - 1)
