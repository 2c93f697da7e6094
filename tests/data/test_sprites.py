"""Sprites, checked by looking at the images: what stands where its mask says, on backgrounds as promised."""

from math import sqrt

import numpy as np
import pytest
import torch
from torch import Tensor

from prisma.data.sprites import DULL, HUES, SHADE, SHAPES, SIDE, SPRITE, SPRITES, SPRITES_NEUTRAL
from prisma.data.task import Split, Task

COLOURS = torch.tensor(list(HUES.values()))
PICTURES = {  # as seen, the upper half, written down by hand
    "square": ["############"] * 6,
    "frame": ["############"] * 3 + ["###......###"] * 3,
    "disc": ["....####....", "..########..", ".##########.", ".##########.", "############", "############"],
    "ring": ["....####....", "..########..", ".##########.", ".###....###.", "###......###", "###......###"],
    "cross": ["....####...."] * 4 + ["############"] * 2,
    "saltire": ["##........##", "###......###", ".###....###.", "..###..###..", "...######...", "....####...."],
    "triangle": [".....##.....", ".....##.....", "....####....", "....####....", "...######...", "...######..."],
    "diamond": [".....##.....", "....####....", "...######...", "..########..", ".##########.", "############"],
}


def masks_of(data: Split) -> Tensor:
    assert data.masks is not None
    return data.masks


def grounds(data: Split) -> Tensor:
    """[n]: the hue whose dull shade is nearest to the mean of the pixels that are not object."""
    outside = ~masks_of(data)[:, None]
    mean = (data.images * 255 * outside).sum((2, 3)) / outside.sum((2, 3))
    return torch.cdist(mean, (COLOURS + DULL) / 2).argmin(1)


def hues(data: Split) -> Tensor:
    return data.labels % len(HUES)


@pytest.mark.parametrize("task", [SPRITES, SPRITES_NEUTRAL], ids=lambda task: task.name)
def test_sizes_and_classes_are_balanced(task: Task) -> None:
    for split, each in (("train", 600), ("test", 25)):
        data = task.splits[split]
        assert data.images.shape == (each * 40, 3, SIDE, SIDE)
        assert data.labels.bincount().tolist() == [each] * 40
        assert (masks_of(data).shape, masks_of(data).dtype) == ((each * 40, SIDE, SIDE), torch.bool)
    assert task.labels[0] == "square, red" and task.labels[21] == "cross, yellow"


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_are_what_they_are_called(name: str) -> None:
    assert ["".join(".#"[pixel] for pixel in row) for row in SHAPES[name][: SPRITE // 2].astype(int)] == PICTURES[name]
    if name != "triangle":
        assert np.array_equal(SHAPES[name], SHAPES[name][::-1])
    assert np.array_equal(SHAPES[name], SHAPES[name][:, ::-1])


def test_shapes_differ() -> None:
    bits = torch.tensor(np.stack(list(SHAPES.values()))).flatten(1).float()
    assert torch.cdist(bits, bits, p=1).fill_diagonal_(144).min() >= 12


@pytest.mark.parametrize("task", [SPRITES, SPRITES_NEUTRAL], ids=lambda task: task.name)
def test_masks_are_the_template_of_the_class_somewhere(task: Task) -> None:
    for data in task.splits.values():
        kernels = 2 * torch.tensor(np.stack(list(SHAPES.values()))).float()[:, None] - 1
        pixels = masks_of(data)[::7, None].float()
        hits = torch.nn.functional.conv2d(pixels, kernels) - kernels.clamp(min=0).sum((1, 2, 3))[:, None, None]
        found = (hits == 0).flatten(2)  # [image, shape, place]: every pixel in the box is as the template has it
        areas = torch.tensor([int(shape.sum()) for shape in SHAPES.values()])
        expected = data.labels[::7] // len(HUES)
        assert found[torch.arange(len(expected)), expected].any(1).all()
        assert torch.equal(pixels.sum((1, 2, 3)).long(), areas[expected])  # and there are none outside


@pytest.mark.parametrize("task", [SPRITES, SPRITES_NEUTRAL], ids=lambda task: task.name)
def test_the_object_is_of_one_colour_near_its_hue_and_nothing_else_is(task: Task) -> None:
    for data in task.splits.values():
        values, masks = (data.images[::7] * 255).round().long(), masks_of(data)[::7, None]
        lowest = values.masked_fill(~masks, 255).amin((2, 3))
        assert torch.equal(lowest, values.masked_fill(~masks, 0).amax((2, 3)))
        assert (lowest - COLOURS[hues(data)[::7]]).abs().max() == SHADE
        same = (values == lowest[..., None, None]).all(1)
        assert (same & ~masks[:, 0]).float().mean() < 1e-4  # a pixel of the background may have the colour by chance
        assert (same | ~masks[:, 0]).all()


def test_positions_are_anywhere_and_uniform() -> None:
    data = SPRITES.splits["train"]
    squares = masks_of(data)[data.labels < len(HUES)]
    for axis in (1, 2):
        first = squares.any(axis).int().argmax(1)
        counts = first.bincount(minlength=17).double()
        assert len(counts) == SIDE - SPRITE + 1
        assert ((counts - len(first) / 17).abs() < 5 * sqrt(len(first) / 17)).all()


def test_backgrounds_agree_with_the_object_in_sixty_of_a_hundred_images() -> None:
    for data in SPRITES.splits.values():
        agree = (grounds(data) == hues(data)).double().mean().item()
        assert abs(agree - 0.6) < 5 * sqrt(0.24 / len(data.labels))


def test_neutral_backgrounds_know_nothing_of_the_class() -> None:
    for data in SPRITES_NEUTRAL.splits.values():
        table = torch.zeros(len(SPRITES_NEUTRAL.labels), len(HUES), dtype=torch.float64)
        table.index_put_((data.labels, grounds(data)), torch.tensor(1.0, dtype=torch.float64), accumulate=True)
        expected = table.sum(1, keepdim=True) * table.sum(0) / table.sum()
        freedom = (len(table) - 1) * (len(HUES) - 1)
        chi_square = ((table - expected) ** 2 / expected).sum().item()
        assert abs(chi_square - freedom) < 5 * sqrt(2 * freedom)


def test_the_two_tasks_differ_in_backgrounds_alone() -> None:
    for split, data in SPRITES.splits.items():
        other = SPRITES_NEUTRAL.splits[split]
        assert torch.equal(data.labels, other.labels)
        assert torch.equal(masks_of(data), masks_of(other))
        inside = masks_of(data)[:, None].expand_as(data.images)
        assert torch.equal(data.images[inside], other.images[inside])
        changed = (data.images != other.images).flatten(1).any(1)
        assert torch.equal(changed, grounds(data) != grounds(other))
    assert SPRITES.sha256 != SPRITES_NEUTRAL.sha256


def test_no_image_twice() -> None:
    images = torch.cat([data.images for data in SPRITES.splits.values()])
    assert len({image.numpy().tobytes() for image in images}) == len(images) == 25_000


def test_normalisation_is_that_of_the_training_images() -> None:
    images = SPRITES.splits["train"].images.double()
    assert SPRITES.transform.mean == tuple(round(x, 3) for x in images.mean((0, 2, 3)).tolist())
    assert SPRITES.transform.std == tuple(round(x, 3) for x in images.std((0, 2, 3)).tolist())


@pytest.mark.parametrize("task", [SPRITES, SPRITES_NEUTRAL], ids=lambda task: task.name)
def test_factors_are_those_of_the_object_and_its_background(task: Task) -> None:
    data = task.splits["test"]
    value, masks = data.factors, masks_of(data)
    assert [factor.name for factor in task.factors] == list(value)
    assert torch.equal(data.labels, value["shape"] * len(HUES) + value["hue"])
    assert (value["background"] == grounds(data)).float().mean() > 0.95  # which noise hides in some
    shades = torch.stack([value[f"shade_{name}"] for name in ("red", "green", "blue")], dim=1)
    wanted = COLOURS[value["hue"]] + shades
    pixels = (data.images * 255).round().long()
    shapes = torch.tensor(np.stack(list(SHAPES.values())))
    for i in range(0, len(masks), 9):
        row, column = value["row"][i], value["column"][i]
        assert torch.equal(masks[i, row : row + SPRITE, column : column + SPRITE], shapes[value["shape"][i]])
        assert masks[i].sum() == shapes[value["shape"][i]].sum()
        assert torch.equal(pixels[i][:, masks[i]], wanted[i][:, None].expand(-1, int(masks[i].sum())))
