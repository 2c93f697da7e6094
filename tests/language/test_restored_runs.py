"""Which layers a window has, and that many cells in one pass are what each is alone."""

from typing import Any

import torch

from prisma.language.anatomy import anatomy
from prisma.language.prompts import locate
from prisma.language.restored_runs import RestoredRuns, _window
from tests.language.families import tiny


def test_a_window_is_that_of_rome() -> None:
    assert list(_window(20, 10, 48)) == list(range(15, 25))
    assert list(_window(2, 10, 48)) == list(range(7)) and list(_window(46, 10, 48)) == list(range(41, 48))
    assert list(_window(3, 1, 5)) == [3] and list(_window(3, 3, 5)) == [2, 3, 4]


def test_cells_of_one_pass_do_not_touch_each_other(words: Any) -> None:
    parts = anatomy(tiny("Phi"))
    place = locate(words, "the city of Ada Brook is", "Ada Brook")
    noise = torch.randn((3, 2, 16), generator=torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        runs = RestoredRuns.of(parts, place, "hidden", "mlp", noise)
        together = runs.logits(runs.cells(), 1)
        alone = torch.cat([runs.logits([cell], 1) for cell in runs.cells()])
    assert runs.cells()[:2] == [(0, 4), (0, 5)] and len(runs.cells()) == 3 * 3
    torch.testing.assert_close(together, alone)
