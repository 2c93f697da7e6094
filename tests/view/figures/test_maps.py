"""Maps with their pictures."""

import pytest
import torch
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from prisma import PrismaError
from prisma.view.figures.maps import chosen_images, draw_images, draw_maps

MAPS = torch.arange(12.0).view(3, 2, 2)
PICTURES = torch.rand(3, 1, 6, 6)


def shown(figure: Figure) -> list[torch.Tensor]:
    return [torch.as_tensor(panel.images[0].get_array()) for panel in figure.axes]


def test_a_row_for_the_pictures_and_one_for_each_map() -> None:
    figure = draw_maps({"a": MAPS, "b": -MAPS}, PICTURES, names=["x", "y", "z"])
    panels, images = figure.axes, shown(figure)
    assert [panel.get_ylabel() for panel in panels] == ["picture", "", "", "a", "", "", "b", "", ""]
    assert [panel.get_title() for panel in panels[:3]] == ["x", "y", "z"]
    torch.testing.assert_close(images[1].float(), PICTURES[1, 0, :, :, None].expand(-1, -1, 3))  # grey
    torch.testing.assert_close(images[5].float(), MAPS[2])
    torch.testing.assert_close(images[8].float(), -MAPS[2])
    assert {tuple(panel.images[0].get_extent()) for panel in panels} == {(0, 6, 6, 0)}  # one on the other, in pixels


def test_every_map_has_a_scale_of_its_own_around_zero_where_signs_differ() -> None:
    limits = [panel.images[0].get_clim() for panel in draw_maps({"a": MAPS}).axes]
    assert limits == [(0, 3), (4, 7), (8, 11)]
    signed = draw_maps({"a": MAPS - 5})
    assert [panel.images[0].get_clim() for panel in signed.axes] == [(-5, -2), (-2, 2), (3, 6)]
    assert signed.axes[1].images[0].get_cmap().name == "RdBu_r"


def test_the_outline_is_the_edges_of_the_objects_pixels() -> None:
    masks = torch.zeros(3, 6, 6, dtype=torch.bool)
    masks[0, 2, 3] = True
    masks[1] = True
    for panel, corners in zip(
        draw_maps({"a": MAPS}, masks=masks).axes, [{(3, 2), (4, 2), (3, 3), (4, 3)}, None, set()], strict=True
    ):
        (lines,) = [part for part in panel.collections if isinstance(part, LineCollection)]
        ends = {tuple(end) for line in lines.get_segments() for end in line.tolist()}
        if corners is None:  # the whole picture: its frame
            assert len(lines.get_segments()) == 24
            assert all(x in (0, 6) or y in (0, 6) for x, y in ends)
        else:
            assert ends == corners
            assert len(lines.get_segments()) == len(corners)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(
        PrismaError, match=r"of the same images; found maps {'a': \[3, 2, 2\]}, pictures \[2, 1, 6, 6\]"
    ):
        draw_maps({"a": MAPS}, PICTURES[:2])
    with pytest.raises(PrismaError, match=r"expected maps \[image, row, column\]"):
        draw_maps({"a": MAPS[0]})
    with pytest.raises(PrismaError, match="expected maps"):
        draw_maps({})
    with pytest.raises(PrismaError, match="at most 12 images; found 13"):
        draw_maps({"a": torch.ones(13, 2, 2)})
    with pytest.raises(PrismaError, match="before normalisation; found"):
        draw_maps({"a": MAPS}, PICTURES - 0.5)
    with pytest.raises(PrismaError, match="1 or 3 channels"):
        draw_maps({"a": MAPS}, PICTURES.expand(-1, 2, -1, -1))
    with pytest.raises(PrismaError, match=r"masks .* with the size of the pictures"):
        draw_maps({"a": MAPS}, PICTURES, torch.ones(3, 4, 4))
    with pytest.raises(PrismaError, match="3 names"):
        draw_maps({"a": MAPS}, names=["x"])


def test_without_signs_zero_means_nothing() -> None:
    signed = MAPS - 5
    panels = draw_maps({"m": signed}, signs=False).axes
    assert [panel.images[0].get_cmap().name for panel in panels] == ["viridis"] * 3
    assert panels[1].images[0].get_clim() == (-1, 2)


def test_some_images_and_all_times_of_a_video() -> None:
    assert chosen_images(9, None) == [0, 1, 2, 3, 4, 5]
    assert chosen_images(9, [8, 0]) == [8, 0]
    for images in ([], [9], [-1]):
        with pytest.raises(PrismaError, match="expected images from 0 to 8"):
            chosen_images(9, images)
    video, frames = torch.rand(3, 2, 2, 2), torch.rand(3, 3, 4, 6, 6)
    figure = draw_images({"a": video, "b": video}, frames, None, [1], title="video")
    assert [panel.get_title() for panel in figure.axes[:2]] == ["image 1, time 0", "image 1, time 1"]
    torch.testing.assert_close(shown(figure)[1], frames[1, :, 2].movedim(0, -1).double())
    assert shown(figure)[3].tolist() == video[1, 1].double().tolist()
