"""The figure has a curve for each ranking, and what random circuits give."""

import torch

from prisma.view.figures.faithfulness import draw_faithfulness


def test_curves_and_chance() -> None:
    curve = torch.tensor([0.0, 0.5, 1.0])
    lines = {
        "by size": (curve, torch.stack([curve - 0.1, curve + 0.1])),
        "by value": (curve, torch.stack([curve, curve])),
    }
    figure = draw_faithfulness([0.1, 0.5, 1], lines, torch.zeros(4, 3), "title")
    panel = figure.axes[0]
    assert [x.get_text() for x in figure.legends[0].get_texts()] == [
        "random circuits of equal size (4)", "by size", "by value",
    ]  # fmt: skip
    assert panel.get_xscale() == "log" and [list(x.get_ydata()) for x in panel.lines[2:]] == 2 * [[0, 0.5, 1]]
    assert len(draw_faithfulness([0.1, 0.5, 1], lines, torch.zeros(0, 3), "").legends[0].get_texts()) == 2
