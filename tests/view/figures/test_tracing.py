"""The picture of causal tracing has the values, names and colours of its kind."""

import numpy as np
import torch

from prisma.view.figures.tracing import COLOURS, draw_tracing


def test_a_trace() -> None:
    values = torch.rand(3, 30, generator=torch.Generator().manual_seed(0))
    figure = draw_tracing(values, ["$ 5", "Ada*", "is"], "mlp", low=0.1, answer=" Rome", window=10, sever=None)
    panel, bar = figure.axes
    (image,) = panel.images
    np.testing.assert_allclose(image.get_array(), values.numpy())
    assert image.get_cmap().name == COLOURS["mlp"] and image.get_clim()[0] == 0.1
    assert [x.get_text() for x in panel.get_yticklabels()] == [r"\$ 5", "Ada*", "is"]
    assert panel.get_title(loc="left") == "restored: MLP, window of 10 layers" and bar.get_title() == "p(Rome)"


def test_an_average() -> None:
    panel, bar = draw_tracing(torch.zeros(2, 3), ["a", "b"], "hidden", sever="mlp").axes
    assert bar.get_title() == "AIE" and panel.get_title(loc="left") == "restored: state after one block; mlp severed"
