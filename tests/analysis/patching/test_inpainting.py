"""The fill is the discrete harmonic one: by relaxation, pixel after pixel, and exactly where the image is a plane."""

import pytest
import torch
from torch import Tensor

from prisma import PrismaError
from prisma.analysis.patching.corruptions import inpaint_object
from prisma.analysis.patching.inpainting import inpainted
from prisma.data import task


def relaxed(picture: Tensor, hole: Tensor, rounds: int = 3000) -> Tensor:
    """Each pixel of the hole is replaced by the mean of its neighbours, again and again."""
    found, (height, width) = picture.clone(), picture.shape
    for _ in range(rounds):
        new = found.clone()
        for y, x in hole.nonzero().tolist():
            near = [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
            near = [at for at in near if 0 <= at[0] < height and 0 <= at[1] < width]
            new[y, x] = sum(found[at] for at in near) / len(near)
        if (new - found).abs().max() < 1e-13:
            break
        found = new
    return found


def test_it_is_the_slow_twin_also_at_the_border() -> None:
    pictures = torch.randn(2, 1, 7, 6, generator=torch.Generator().manual_seed(0)).double()
    holes = torch.zeros(2, 1, 7, 6, dtype=torch.bool)
    holes[0, 0, 2:5, 1:4] = holes[1, 0, :3, :2] = holes[1, 0, 6, 5] = True
    found = inpainted(pictures, holes)
    for one, picture, hole in zip(found[:, 0], pictures[:, 0], holes[:, 0], strict=True):
        torch.testing.assert_close(one, relaxed(picture, hole), rtol=1e-9, atol=1e-10)
    assert torch.equal(found[~holes], pictures[~holes])


def test_a_plane_is_continued_exactly() -> None:
    y, x = torch.meshgrid(torch.arange(9.0), torch.arange(8.0), indexing="ij")
    plane = (2 * y - 3 * x)[None, None].expand(1, 3, 9, 8)
    where = torch.zeros(1, 9, 8, dtype=torch.bool)
    where[0, 2:7, 2:6] = True
    spoiled = torch.where(where[:, None], torch.tensor(99.0), plane)
    torch.testing.assert_close(inpaint_object(spoiled, where), plane, rtol=1e-5, atol=1e-4)


def test_the_object_is_gone_and_leaves_no_edge() -> None:
    """In the sprites, whose background is noise around a colour: the fill stays within the colours at the rim."""
    data = task("sprites")
    images, masks = data.splits["test"].images[:4].float(), data.splits["test"].masks[:4]
    found = inpaint_object(images, masks)
    there = masks[:, None].expand_as(images)
    assert torch.equal(found[~there], images[~there])
    for one, image, hole in zip(found.flatten(0, 1), images.flatten(0, 1), there.flatten(0, 1), strict=True):
        assert image[~hole].min() - 1e-4 <= one[hole].min() and one[hole].max() <= image[~hole].max() + 1e-4
    video = inpaint_object(images[:, :, None].expand(-1, -1, 2, -1, -1), masks)
    torch.testing.assert_close(video[:, :, 1], found)


def test_bad_input_is_refused() -> None:
    images, where = torch.zeros(2, 1, 4, 4), torch.zeros(2, 4, 4, dtype=torch.bool)
    assert torch.equal(inpaint_object(images, where), images)
    where[1] = True
    with pytest.raises(PrismaError, match="masks that leave some pixels of each image; found one that covers a whole"):
        inpaint_object(images, where)
    with pytest.raises(PrismaError, match="expected where the object is"):
        inpaint_object(images, None)
    with pytest.raises(PrismaError, match="expected pixels, boolean"):
        inpaint_object(images, where[:, :3])
