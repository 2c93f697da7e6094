"""Bars by frequency: each has its share, and the key frequencies are told apart."""

import pytest
import torch

from prisma import PrismaError
from prisma.view.figures.frequencies import OTHERS, draw_frequencies


def test_bars_are_the_shares_and_key_frequencies_have_a_colour_and_a_number() -> None:
    shares = {"embeddings": torch.tensor([0.1, 0.6, 0.3]), "logits": torch.tensor([0.0, torch.nan, 0.5])}
    figure = draw_frequencies(shares, [2], title="t")
    assert [panel.get_title(loc="left") for panel in figure.axes] == list(shares)
    for panel, heights in zip(figure.axes, ([0.1, 0.6, 0.3], [0, 0, 0.5]), strict=True):
        bars = panel.patches
        assert [bar.get_height() for bar in bars] == pytest.approx(heights)
        assert [bar.get_x() + bar.get_width() / 2 for bar in bars] == pytest.approx([1, 2, 3])
        colours = [bar.get_facecolor() for bar in bars]
        assert colours[0] == colours[2] != colours[1]
        assert [text.get_text() for text in panel.texts] == ["2"]
    assert OTHERS


def test_nothing_to_draw_is_one_sentence() -> None:
    with pytest.raises(PrismaError, match=r"expected shares \[frequency\]; found \{'a': \[0\]\}"):
        draw_frequencies({"a": torch.zeros(0)}, [])
