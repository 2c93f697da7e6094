"""How heads and layers mix, and which tokens the readout speaks for."""

from pathlib import Path
from typing import Literal

import pytest
import torch
from matplotlib.figure import Figure

from prisma import PrismaError
from prisma.analysis.attention.token_maps import (
    READOUTS,
    TokenMaps,
    check_mixing,
    mixed,
    over_patches,
    readout_row,
    readout_weights,
)  # fmt: skip
from tests.variants import config_of, model_of

POOLS = {
    "base": {},
    "pool_mean": {},
    "pool_prefix": {},
    "pool_class_mean": {},
    "pool_distilled": {},
    "no_class_token": {},
}


@pytest.mark.parametrize("variant", POOLS)
def test_readout_weights_are_what_the_pooling_reads(variant: str) -> None:
    model = model_of(variant, norm="none", n_classes=0)
    stream = torch.randn(1, model.config.n_tokens, model.config.d_model, dtype=torch.float64, requires_grad=True)
    read_T = torch.autograd.grad(model.readout(stream).sum(), stream)[0][0].sum(-1)
    torch.testing.assert_close(readout_weights(model.config), read_T / read_T.sum())


def test_every_pooling_says_what_its_readout_is() -> None:
    assert set(READOUTS) == set(config_of("base").CHOICES["pool"])


def test_the_query_of_attention_pooling_is_the_readout() -> None:
    config = config_of("pool_attention")  # a class token that pooling does not read
    map_BQK = torch.rand(2, 10, 10)
    pooling_BHQK = torch.rand(2, 3, 1, 9)
    expected = torch.einsum("bhk,bkj->bj", pooling_BHQK[:, :, 0], map_BQK[:, 1:]) / 3
    torch.testing.assert_close(readout_row(config, pooling_BHQK, map_BQK), expected)


def test_heads_mix_and_rows_sum_to_one() -> None:
    pattern = torch.tensor([[[[1.0, 0.0], [0.5, 0.5]], [[0.0, 1.0], [0.5, 0.5]]]])
    assert mixed(pattern, "mean", 0.5, 2).tolist() == [[[0.75, 0.25], [0.25, 0.75]]]
    assert mixed(pattern, "max", 0.0, 2).tolist() == [[[0.5, 0.5], [0.5, 0.5]]]
    assert mixed(pattern, "min", 0.0, 2).tolist() == [[[1.0, 0.0], [0.5, 0.5]]]  # nothing in common: it keeps itself
    assert mixed(pattern[:, :1], "mean", 0.0, 3).tolist() == [[[1, 0, 0], [0, 1, 0], [0, 0.5, 0.5]]]


def test_patches_lie_on_the_grid() -> None:
    config = config_of("registers", image_size=(4, 6))
    row = torch.arange(10.0)[None]
    assert over_patches(config, row).tolist() == [[[4, 5, 6], [7, 8, 9]]]
    video = config_of("video")
    assert over_patches(video, torch.arange(9.0)[None]).shape == (1, 2, 2, 2)


def test_the_time_axis_is_of_video_only(tmp_path: Path) -> None:
    maps = TokenMaps(metadata={}, patches=torch.ones(1, 2, 3), readout=torch.ones(1, 7))
    assert maps.axes == {"patches": ("image", "row", "column"), "readout": ("image", "key")}
    video = TokenMaps(metadata={}, patches=torch.ones(1, 2, 2, 3), readout=torch.ones(1, 7))
    assert video.axes["patches"] == ("image", "time", "row", "column")
    again = TokenMaps.from_npz(maps.to_npz(tmp_path / "maps.npz"))
    assert again.map is None
    assert again.axes == maps.axes


def test_options_are_checked() -> None:
    with pytest.raises(PrismaError, match="expected heads to be one of mean, max, min; found 'median'"):
        check_mixing("median", 0.5)
    for residual in (1.0, -0.1):
        with pytest.raises(PrismaError, match="expected residual to be a share of the stream"):
            check_mixing("mean", residual)


def maps_of(variant: str, n: int) -> TokenMaps:
    config = config_of(variant)
    readout_BK = torch.arange(n * config.n_tokens, dtype=torch.float64).view(n, -1)
    map_BQK = readout_BK[:, None].expand(-1, config.n_tokens, -1)
    said = {"analysis": "some_maps", "readout": READOUTS[config.pool]}
    return TokenMaps(metadata=said, patches=over_patches(config, readout_BK), readout=readout_BK, map=map_BQK)


def titles(figure: Figure, loc: Literal["left", "center"] = "center") -> list[str]:
    return [title for panel in figure.axes if (title := panel.get_title(loc=loc))]


def test_the_picture_shows_the_images_that_are_asked_for() -> None:
    found = maps_of("base", 30)
    assert titles(found.plot()) == [f"image {i}" for i in range(6)]
    figure = found.plot(images=[7, 2])
    assert titles(figure) == ["image 7", "image 2"]
    assert figure.axes[1].images[0].get_array().tolist() == found.patches[2].tolist()
    assert titles(found.plot("map", images=[7, 2]), "left") == ["image 7", "image 2"]
    readout = found.plot("readout", images=[7, 2]).axes[0]
    assert [tick.get_text() for tick in readout.get_yticklabels()] == ["image 7", "image 2"]
    for images in ([], [30], [-1]):
        with pytest.raises(PrismaError, match="expected images from 0 to 29"):
            found.plot(images=images)
    with pytest.raises(PrismaError, match="no array 'maps'; the nearest: map"):
        found.plot("maps")


def test_pictures_stand_above_the_maps_and_a_video_has_a_column_for_each_time() -> None:
    still = maps_of("base", 3).plot(pictures=torch.rand(3, 3, 6, 6), masks=torch.ones(3, 6, 6), images=[2])
    assert [panel.get_ylabel() for panel in still.axes] == ["picture", "map"]
    frames = torch.rand(3, 3, 4, 4, 4)  # 4 frames of 4x4 pixels, two of them to a time
    video = maps_of("video", 3).plot(pictures=frames, images=[1])
    assert titles(video) == ["image 1, time 0", "image 1, time 1"]
    shown = torch.as_tensor(video.axes[1].images[0].get_array()).float()
    torch.testing.assert_close(shown, frames[1, :, 2].movedim(0, -1))
    with pytest.raises(PrismaError, match=r"a multiple of 2, the times of the maps; found \[1, 3, 3, 4, 4\]"):
        maps_of("video", 3).plot(pictures=frames[:, :, :3], images=[1])
