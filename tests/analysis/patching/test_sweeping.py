"""The metric of all patched runs. That the runs are right: test_activation_patching."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from prisma import LogitDiff
from prisma.analysis.patching.sweeping import PatchedRuns, patched_runs
from prisma.analysis.patching.units import SourceRun, Units
from tests.variants import images_of, model_of

METRICS = {"of runs": LogitDiff([0, 1, 2], 3), "a function": lambda logits: logits[:, 0] - logits[:, 1].mean()}


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
@pytest.mark.parametrize("some", [True, False])
@torch.no_grad()
def test_the_metric_of_every_cell_is_that_of_its_logits(metric: Callable[[Tensor], Tensor], some: bool) -> None:
    model = model_of("base")
    inputs, others, units = images_of(model, 3), images_of(model, 3, seed=2), Units(model, "attn.z", None, None)
    cells = torch.ones(model.config.n_layers, model.config.n_heads, dtype=torch.bool)
    cells[0, 1:] = not some
    found = patched_runs(model, inputs, units, lambda rows: SourceRun(model, others[rows], units), None, cells)
    values, i = found.measure(metric), 0
    for layer, unit in cells.nonzero().tolist():
        assert torch.equal(values[:, layer, unit], metric(found.patched[i]))
        i += 1
    assert i == len(found.patched) and values[:, ~cells].isnan().all()


def test_of_no_cells_there_is_no_metric() -> None:
    cells = torch.zeros(2, 3, dtype=torch.bool)
    assert PatchedRuns(torch.zeros(0, 4, 5), torch.zeros(4, 5), cells).measure(LogitDiff(0, 1)).isnan().all()
