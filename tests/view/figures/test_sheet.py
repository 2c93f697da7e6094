"""Contact sheets."""

import numpy as np
import pytest
import torch

from prisma.errors import PrismaError
from prisma.view.figures.sheet import draw_sheet


def test_every_picture_is_in_its_place() -> None:
    pictures, beside = torch.rand(3, 1, 3, 4, 8), torch.rand(3, 2, 1, 4, 8)
    figure = draw_sheet(pictures, beside, ["a", "b", "c"], ["x", "y", "z"])
    (panel,) = figure.axes
    shown = panel.get_images()
    assert len(shown) == 9
    tops = [min(image.get_extent()[2:]) for image in shown]
    assert tops[:3] == sorted(tops[:3]) and all(
        image.get_extent()[1] - image.get_extent()[0] == pytest.approx(2) for image in shown
    )
    found = np.asarray(shown[1].get_array())
    assert np.array_equal(found, (pictures[1, 0] * 255).round().byte().permute(1, 2, 0).numpy())
    texts = {text.get_text() for text in panel.texts}
    assert {"a", "b", "c", "x", "y", "z", "optimised", "real images with the largest activation"} <= texts
    assert len(draw_sheet(pictures, None, ["a", "b", "c"]).axes[0].get_images()) == 3


def test_what_does_not_fit_is_refused() -> None:
    for pictures, names in (
        (torch.rand(1, 1, 2, 4, 4), ["a"]),
        (torch.rand(2, 1, 1, 4, 4), ["a"]),
        (torch.rand(101, 1, 1, 1, 1), ["a"] * 101),
    ):
        with pytest.raises(PrismaError, match="expected pictures"):
            draw_sheet(pictures, None, names)
