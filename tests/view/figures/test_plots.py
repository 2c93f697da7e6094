"""Arrays as pictures."""

import io

import pytest
import torch

from prisma import PrismaError
from prisma.view.figures.plots import draw


def test_one_axis_is_a_line() -> None:
    (panel,) = draw(torch.tensor([1.0, 3.0, 2.0]), ["layer"], title="a line").axes
    assert panel.lines[0].get_ydata().tolist() == [1, 3, 2]
    assert panel.get_xlabel() == "layer"
    assert all(float(tick).is_integer() for tick in panel.get_xticks())


def test_two_axes_are_a_heat_map_around_zero_when_signs_differ() -> None:
    panel, bar = draw(torch.tensor([[1.0, -3.0], [2.0, 0.5]]), ["layer", "head"]).axes
    (image,) = panel.images
    assert image.get_array().tolist() == [[1, -3], [2, 0.5]]
    assert image.get_clim() == (-3, 3)
    assert (panel.get_ylabel(), panel.get_xlabel()) == ("layer", "head")
    assert bar.get_ylim() == (-3, 3)
    assert draw(torch.tensor([[1.0, 3.0]]), ["a", "b"]).axes[0].images[0].get_clim() == (1, 3)


def test_more_axes_are_panels_of_one_scale() -> None:
    figure = draw(torch.arange(24.0).view(2, 3, 2, 2), ["layer", "head", "query", "key"])
    panels = [panel for panel in figure.axes if panel.images]
    assert [panel.get_title(loc="left") for panel in panels][:4] == [
        "layer 0, head 0", "layer 0, head 1", "layer 0, head 2", "layer 1, head 0",
    ]  # fmt: skip
    assert {panel.images[0].get_clim() for panel in panels} == {(0, 23)}


def test_indices_have_names() -> None:
    names = {"run": ["clean", "severed"], "role": ["object", "class"], "other": ["unused"]}
    figure = draw(torch.arange(8.0).view(2, 2, 2), ["run", "layer", "role"], names=names)
    assert [panel.get_title(loc="left") for panel in figure.axes[:2]] == ["clean", "severed"]
    for panel in (figure.axes[0], draw(torch.ones(2), ["role"], names=names).axes[0]):
        assert [label.get_text() for label in panel.get_xticklabels()] == ["object", "class"]
    assert [text.get_text() for text in figure.axes[1].texts] == ["4.00", "5.00", "6.00", "7.00"]


def test_numbers_stand_where_there_is_room_and_something_to_say() -> None:
    half = torch.tensor([[1.0, torch.nan]])
    assert [text.get_text() for text in draw(half, ["layer", "head"]).axes[0].texts] == ["1.00"]
    for values, said in (
        ([0.89, -0.002], ["0.89", "0.00"]),
        ([250.0, 3.14], ["250", "3"]),
        ([2e-6, 0.0], ["2e-06", "0"]),
    ):
        panel = draw(torch.tensor([values]), ["layer", "head"]).axes[0]
        assert [text.get_text() for text in panel.texts] == said
    dark, light = draw(torch.tensor([[-3.0, -1.0]]), ["layer", "head"]).axes[0].texts
    assert (dark.get_color(), light.get_color()) == ("white", "#1f2328")
    assert not draw(torch.ones(2, 2, 7), ["run", "layer", "head"]).axes[0].texts
    assert not draw(torch.ones(10, 16), ["layer", "head"]).axes[0].texts


def test_the_bytes_of_a_picture_depend_on_the_numbers_alone() -> None:
    def png() -> bytes:
        buffer = io.BytesIO()
        draw(torch.eye(3), ["query", "key"]).savefig(buffer, format="png", metadata={"Software": None})
        return buffer.getvalue()

    assert png() == png()


def test_what_cannot_be_read_is_refused() -> None:
    with pytest.raises(PrismaError, match=r"values to draw; found shape \[0, 2\]"):
        draw(torch.ones(0, 2), ["layer", "head"])
    with pytest.raises(PrismaError, match="at most 24 panels; found 25"):
        draw(torch.ones(25, 2, 2), ["image", "query", "key"])
