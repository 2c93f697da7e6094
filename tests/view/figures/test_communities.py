"""Communities of a graph as a picture: the null, and the share of each layer."""

import torch

from prisma.view.figures.communities import draw_communities


def test_the_score_is_a_line_and_every_layer_a_bar_of_its_communities() -> None:
    counts = torch.tensor([[3, 1], [0, 2], [0, 0]])
    long = "a.layer.with.a.name.that.is.long"
    figure = draw_communities(0.4, torch.linspace(0.1, 0.2, 30), counts, ["a", long, "isolated"], title="found")
    left, right = figure.axes
    assert left.lines[0].get_xdata()[0] == 0.4 and sum(bar.get_height() for bar in left.patches) == 30
    widths = [bar.get_width() for bar in right.patches]
    assert widths == [0.75, 0, 0, 0.25, 1, 0]
    assert [tick.get_text() for tick in right.get_yticklabels()] == ["a", "…" + long[-24:], "isolated"]
