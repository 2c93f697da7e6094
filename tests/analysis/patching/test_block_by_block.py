"""Runs that go through the blocks together are those that go alone."""

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from prisma import LogitDiff, ViT, record, sweep
from prisma.analysis.patching import block_by_block
from prisma.analysis.patching.block_by_block import BlockByBlock
from prisma.analysis.patching.sweeping import patched_runs
from prisma.analysis.patching.units import SourceRun, Units
from tests.variants import images_of, model_of, tower_of

SEED = torch.Generator().manual_seed(0)


@pytest.mark.parametrize("site", ["resid_pre", "attn.z", "attn_out", "resid_mid", "mlp.post", "mlp_out", "resid_post"])
def test_runs_of_several_layers_that_go_on_together_are_those_of_each_alone(
    site: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, passed = model_of("registers", n_layers=4), list[int]()
    inputs, others = images_of(model, 2), images_of(model, 2, seed=2)
    units = Units(model, site, None, None)
    chosen = torch.rand(model.config.n_layers, len(units.masks(_site(model, others, units))), generator=SEED) < 0.6
    chosen[1] = False  # nothing of this layer

    def runs(size: int, cells: Tensor | None) -> Tensor:
        return patched_runs(
            model, inputs, units, lambda rows: SourceRun(model, others[rows], units), size, cells
        ).patched

    wanted = {cells is None: runs(2, cells) for cells in (None, chosen)}
    once = BlockByBlock._pass
    monkeypatch.setattr(BlockByBlock, "_pass", lambda self, layer: (passed.append(len(self.x)), once(self, layer)))
    for cells in (None, chosen):
        for size in (64, 13):
            torch.testing.assert_close(runs(size, cells), wanted[cells is None], rtol=0, atol=1e-12)
    assert max(passed) > 2 * len(inputs), "some were together"


def _site(model: ViT, inputs: Tensor, units: Units) -> Tensor:
    return record(model, inputs, units.sites[:1])[1][units.sites[0]]


@pytest.mark.parametrize("pooled", ["base", "last"])
def test_runs_of_a_text_tower_are_read_out_at_their_own_ids(pooled: str) -> None:
    """The token that is pooled depends on the ids, which differ from pair to pair."""
    tower = tower_of(pooled)
    ids = torch.randint(0, tower.config.vocabulary, (6, tower.config.context), generator=SEED)
    units = Units(tower, "attn.z", None, None)

    def runs(size: int) -> Tensor:
        return patched_runs(tower, ids[:3], units, lambda rows: SourceRun(tower, ids[3:][rows], units), size).patched

    with torch.no_grad():
        torch.testing.assert_close(runs(64), runs(1), rtol=0, atol=1e-12)


class Calls(TorchDispatchMode):
    """Counts the operations that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.of = Counter[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.of[str(func).split(".")[1]] += 1
        return func(*args, **(kwargs or {}))


def test_a_sweep_calls_as_much_for_many_cells_as_for_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU waits for the calls. Numbers that are read back, which wait for all that was called before, are few."""
    monkeypatch.setattr(block_by_block, "MOST_TOGETHER", 10**6)
    counts = []
    for heads in (2, 12):
        model = model_of("base", n_layers=3, n_heads=heads, d_model=12)
        clean, corrupt = images_of(model, 1), images_of(model, 1, seed=2)
        sweep(model, clean, corrupt, "attn.z", LogitDiff(0, 1))  # what is computed once for all sweeps
        with Calls() as calls:
            sweep(model, clean, corrupt, "attn.z", LogitDiff(0, 1), batch=500)
        counts.append(calls.of)
    few, many = (sum(count.values()) for count in counts)
    assert abs(many - few) < 15, "for 30 more cells; einsum is of other operations for other shapes"
    assert counts[0]["addmm"] == 3 * 4 + 5, "of three blocks, the few tokens of runs in the last, and two readouts"
    assert counts[0]["_local_scalar_dense"] < 25
