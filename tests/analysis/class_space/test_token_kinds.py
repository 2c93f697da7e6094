"""Kinds of tokens: from masks of pixels or of patches, and means over each kind."""

import pytest
import torch

from prisma import PrismaError
from prisma.analysis.class_space.token_kinds import TokenResult, coverage_of, nearest_coverage, token_kinds
from tests.variants import images_of, model_of


def test_kinds_by_hand() -> None:
    share = torch.tensor([[0.0, 0.3, 0.5, 1.0], [0.0, 0.0, 0.0, 0.1]])
    found = {kind: mask.int().tolist() for kind, mask in token_kinds(6, 2, True, share).items()}
    assert found == {
        "class": [[1, 0, 0, 0, 0, 0]],
        "registers": [[0, 1, 0, 0, 0, 0]],
        "patches": [[0, 0, 1, 1, 1, 1]],
        "object": [[0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 0, 0]],
        "context": [[0, 0, 1, 0, 0, 0], [0, 0, 1, 1, 1, 0]],
    }
    assert list(token_kinds(6, 2, False, None)) == ["registers", "patches"]
    assert list(token_kinds(6, 0, False, None)) == ["patches"]


def test_means_over_a_kind_leave_out_images_without_it() -> None:
    metadata = {"prefix": 1, "class_token": True}
    result = TokenResult(metadata=metadata, coverage=torch.tensor([[0.0, 1.0, 0.3], [0.0, 0.0, 0.3]]))
    values = torch.arange(16.0).view(2, 2, 4)
    found = result.by_kind(values)
    assert found["class"].tolist() == [[0, 4], [8, 12]]
    assert found["patches"].tolist() == [[2, 6], [10, 14]]
    assert found["object"][0].tolist() == [2, 6] and found["object"][1].isnan().all()
    assert found["context"].tolist() == [[1, 5], [9.5, 13.5]]
    some = torch.tensor([[[1.0, 0, 0.5, 0.5]], [[0.0, torch.nan, 0, 0]]])
    found = result.by_kind(some, of_any=True)
    assert found["class"].tolist() == [[1], [0]] and found["patches"].tolist() == [[0.75], [0]]
    assert found["object"][0].tolist() == [0.5] and found["object"][1].isnan().all()


@pytest.mark.parametrize("variant", ["base", "not_square", "cut_edge"])
def test_coverage_is_the_mean_of_each_patch(variant: str) -> None:
    model = model_of(variant)
    images, (p, q), (_, rows, columns) = images_of(model), model.config.patch_sides, model.config.grid
    masks = torch.rand(2, *images.shape[-2:], generator=torch.Generator().manual_seed(0)) > 0.5
    found = coverage_of(model.config, images, masks)
    for row in range(rows):
        for column in range(columns):
            patch = masks[:, row * p : (row + 1) * p, column * q : (column + 1) * q].float().mean((1, 2))
            torch.testing.assert_close(found[:, row * columns + column], patch)
    again = coverage_of(model.config, images, found.view(2, rows, columns))
    assert torch.equal(again, found)


@pytest.mark.parametrize("variant", ["base", "not_square", "cut_edge"])
def test_the_nearest_pixel_is_the_corner_of_a_patch(variant: str) -> None:
    config = model_of(variant).config
    images, (p, q), (_, rows, columns) = images_of(model_of(variant)), config.patch_sides, config.grid
    masks = torch.rand(2, *images.shape[-2:], generator=torch.Generator().manual_seed(0)) > 0.5
    found = nearest_coverage(config, images, masks)
    if variant == "cut_edge":  # the whole picture is resized, so that labels are shifted where its edge is cut
        assert found.shape == (2, rows * columns)
    else:
        assert torch.equal(found.view(2, rows, columns), masks[:, ::p, ::q].float())


def test_masks_that_are_refused() -> None:
    model = model_of("base")
    images = images_of(model)
    wrong = {
        r"= \[2, 6, 6\], of the size and crop of the images, .*\[2, 3, 3\]; found \[2, 8, 8\]": torch.ones(2, 8, 8),
        r"found \[1, 6, 6\]": torch.ones(1, 6, 6),
        "expected masks from 0 to 1": torch.full((2, 6, 6), 2.0),
    }
    for message, masks in wrong.items():
        with pytest.raises(PrismaError, match=message):
            coverage_of(model.config, images, masks)
    video = model_of("video")
    with pytest.raises(PrismaError, match="found a model of video"):
        coverage_of(video.config, images_of(video), torch.ones(2, 4, 4))
