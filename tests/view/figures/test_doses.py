"""The dose-response curve: lines in the order of doses, a band, and what does not fit is one sentence."""

import pytest
import torch

from prisma import PrismaError
from prisma.view.figures.doses import draw_doses


def test_lines_are_drawn_in_the_order_of_doses() -> None:
    doses, mean = torch.tensor([1.0, -1.0, 0.0]), torch.tensor([3.0, 1.0, 2.0])
    figure = draw_doses(doses, mean, torch.stack([mean - 1, mean + 1]), torch.zeros(2, 3), title="t", label="logit")
    panel = figure.axes[0]
    lines = [line.get_ydata() for line in panel.lines if len(line.get_ydata()) == 3]
    assert [list(y) for y in lines] == [[0, 0, 0], [0, 0, 0], [1, 2, 3]]
    assert panel.get_ylabel() == "logit" and len(panel.collections) == 1


def test_shapes_that_do_not_fit_are_named() -> None:
    x = torch.zeros(3)
    with pytest.raises(PrismaError, match=r"expected doses, mean \[dose\], interval .*; found \[\[3\], \[3\], \[3\]"):
        draw_doses(x, x, x, x[None])
