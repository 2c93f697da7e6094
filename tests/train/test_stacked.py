"""Both ways of taking steps compute the same, for one run and for several at once."""

from dataclasses import replace

import pytest
import torch

from prisma.train import Recipe
from prisma.train.stacked import Stacked
from prisma.train.steps import Eager
from tests.train.stacks import flat, run_of


@pytest.mark.parametrize("seeds", [(0,), (3, 1, 4)])
@pytest.mark.parametrize(
    "change", [{}, {"shift": "0", "turn": "0", "clip": "0.01", "decay_every": "4"}, {"accumulate": "4"}]
)
def test_runs_side_by_side_are_the_runs_alone(tiny: Recipe, seeds: tuple[int, ...], change: dict[str, str]) -> None:
    recipe = tiny.override(change)
    together, alone = [run_of(recipe, seed) for seed in seeds], [run_of(recipe, seed) for seed in seeds]
    stacked, eager = Stacked(together), [Eager(run) for run in alone]
    for first, last in ((0, 1), (1, 8), (8, 20)):
        if first == 8:  # as a process that resumes
            stacked = Stacked([replace(run, step=first) for run in together])
        for found, way in zip(stacked.measure(first), eager, strict=True):
            assert found == pytest.approx(way.measure(first)[0], rel=1e-6)
        each = [way.advance(first, last) for way in eager]
        found = stacked.advance(first, last)
        for own, losses in zip(each, zip(*found, strict=True), strict=True):
            assert list(losses) == pytest.approx([loss for (loss,) in own], rel=1e-5)
        for split in ("train", "test"):
            for way, numbers in zip(eager, stacked.evaluate(split), strict=True):
                assert numbers == pytest.approx(way.evaluate(split)[0], rel=1e-5)
    for mine, theirs in zip([flat(run.model) for run in together], [flat(run.model) for run in alone], strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)
    for run, other in zip(together, alone, strict=True):
        for (name, p), (_, q) in zip(run.model.named_parameters(), other.model.named_parameters(), strict=True):
            for kind in ("step", "exp_avg", "exp_avg_sq"):
                ours, theirs = run.optimizer.state[p][kind], other.optimizer.state[q][kind]
                torch.testing.assert_close(ours.double(), theirs.double(), rtol=1e-3, atol=1e-6, msg=f"{name} {kind}")
    assert len({float(x.sum()) for x in [flat(run.model) for run in together]}) == len(seeds)
