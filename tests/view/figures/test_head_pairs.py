"""Matrices of all heads with all heads: names of layers or heads, and blank cells."""

import torch

from prisma.view.figures.head_pairs import draw_composition, draw_similarity


def test_similarity_has_a_name_for_each_layer() -> None:
    values = torch.arange(16).view(4, 4) / 16
    panel = draw_similarity(values, 2, title="alike").axes[0]
    assert panel.images[0].get_array().tolist() == values.tolist()
    assert panel.get_xticks().tolist() == [0.5, 2.5]
    assert [tick.get_text() for tick in panel.get_yticklabels()] == ["0", "1"]
    assert [line.get_xdata()[0] for line in panel.lines if line.get_xdata()[0] == line.get_xdata()[1]] == [1.5]


def test_composition_is_blank_where_the_writer_is_not_before_the_reader() -> None:
    scores = torch.rand(3, 2, 3, 2)
    figure = draw_composition({"q": scores, "v": scores + 1}, ["0", "1.time", "1"])
    q, v = figure.axes[:2]
    assert [q.get_title(loc="left"), v.get_title(loc="left")] == ["by q", "by v"]
    shown = v.images[0].get_array()
    assert shown.shape == (4, 4)  # two layers write, two layers read
    assert shown[1, 2] == (scores[0, 1, 2, 0] + 1).item()
    assert shown.mask[2:, :2].all() and shown.mask.sum() == 4
    assert [tick.get_text() for tick in q.get_yticklabels()] == ["0.0", "0.1", "1.time.0", "1.time.1"]
    many = draw_composition({"k": torch.rand(3, 6, 3, 6)}, ["0", "1", "2"]).axes[0]
    assert [tick.get_text() for tick in many.get_xticklabels()] == ["1", "2"]
