"""Bars and lines."""

import pytest
import torch

from prisma import PrismaError
from prisma.view.figures.charts import MOST_BARS, MOST_MARKS, draw_bars, draw_stages


def test_bars_have_names_numbers_and_the_colour_of_their_sign() -> None:
    (panel,) = draw_bars(torch.tensor([2.0, -1.0, -0.001]), ["a", "b", "c"], title="bars", label="logit").axes
    assert [bar.get_width() for bar in panel.patches] == pytest.approx([2, -1, -0.001])
    assert [label.get_text() for label in panel.get_yticklabels()] == ["a", "b", "c"]
    assert [text.get_text() for text in panel.texts] == ["2.00", "-1.00", "0.00"]
    colours = [bar.get_facecolor() for bar in panel.patches]
    assert colours[1] == colours[2] != colours[0]
    assert panel.yaxis_inverted()
    assert panel.get_xlabel() == "logit"


def test_of_many_bars_the_small_ones_are_one() -> None:
    values = torch.linspace(-1, 1, 101)
    values[50] = 7.0
    figure = draw_bars(values, [str(i) for i in range(101)], spread=torch.ones(101))
    (panel,) = figure.axes
    names = [label.get_text() for label in panel.get_yticklabels()]
    assert len(names) == len(panel.patches) == MOST_BARS
    assert names[0] == "0"
    assert "50" in names
    assert names[-1] == f"the other {101 - MOST_BARS + 1}, together"
    assert sum(bar.get_width() for bar in panel.patches) == pytest.approx(values.sum().item(), abs=1e-5)
    figure.canvas.draw()


@pytest.mark.parametrize(("values", "names"), [(torch.ones(2), ["a"]), (torch.ones(0), []), (torch.ones(1, 1), ["a"])])
def test_bars_need_a_name_each(values: torch.Tensor, names: list[str]) -> None:
    with pytest.raises(PrismaError, match="a name for each"):
        draw_bars(values, names)


def test_a_line_is_the_mean_of_the_images_that_have_a_value() -> None:
    of_a = torch.tensor([[1.0, 2.0], [3.0, torch.nan]])
    (panel,) = draw_stages({"a": of_a, "b": of_a + 1}, chance={"b": 0.5, "c": 9.0}).axes
    assert [line.get_label() for line in panel.lines] == ["a", "b", "b by chance"]
    assert panel.lines[0].get_ydata().tolist() == [2, 2]
    assert panel.lines[1].get_ydata().tolist() == [3, 3]
    assert not panel.collections
    assert panel.get_xlabel() == "stage (0 is the embedding)"


def test_one_line_has_a_band_and_a_long_one_no_marks() -> None:
    short, long = torch.rand(20, 3), torch.rand(1, MOST_MARKS + 1)
    (panel,) = draw_stages({"a": short}).axes
    assert len(panel.collections) == 1
    heights = panel.collections[0].get_paths()[0].vertices[:, 1]
    assert heights.min() == pytest.approx(short.double().quantile(0.1, dim=0).min().item())
    assert panel.lines[0].get_marker() == "o"
    (panel,) = draw_stages({"a": long}, axis="step").axes
    assert panel.lines[0].get_marker() == "None"
    assert not panel.collections
    assert panel.get_xlabel() == "step"


@pytest.mark.parametrize("lines", [{}, {"a": torch.ones(3)}, {"a": torch.ones(0, 3)}])
def test_there_must_be_lines(lines: dict[str, torch.Tensor]) -> None:
    with pytest.raises(PrismaError, match="expected lines"):
        draw_stages(lines)
