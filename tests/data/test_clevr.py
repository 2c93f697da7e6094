"""Simplified CLEVR, checked by looking at the images and masks: what stands where, and the answers to the questions."""

import pytest
import torch
from torch import Tensor

from prisma.data.clevr import CELL, CLEVR, COLOURS, GREY, MEAN, SHADE, SHAPES, STD
from prisma.data.task import Split, data_hash

COUNT, RELATION, SAME = CLEVR
AREAS = {7: {49: "square", 37: "disc", 25: "triangle"}, 11: {121: "square", 97: "disc", 61: "triangle"}}


def boxes(mask: Tensor) -> tuple[int, int, int, int]:
    """(first row, first column, height, width) of what a mask is true on."""
    rows, columns = mask.any(1).nonzero(), mask.any(0).nonzero()
    return int(rows[0]), int(columns[0]), int(rows[-1] - rows[0] + 1), int(columns[-1] - columns[0] + 1)


def shape_of(mask: Tensor) -> str:
    _, _, height, width = boxes(mask)
    assert height == width
    return AREAS[height][int(mask.sum())]


def test_sizes_and_answers_are_balanced() -> None:
    for split, n in (("train", 24_000), ("test", 2_000)):
        data = SAME.splits[split]
        assert data.images.shape == (n, 3, 48, 48) and data.images.dtype == torch.uint8
        for factor, count in (("same", 4), ("count", 5), ("relation", 4)):
            shares = data.factors[factor].bincount() / n
            assert len(shares) == count and (shares * count - 1).abs().max() < 5 * (count / n) ** 0.5
    images = SAME.splits["train"].images[:4000].float() / 255
    torch.testing.assert_close(images.mean((0, 2, 3)), torch.tensor(MEAN), rtol=0, atol=2e-3)
    torch.testing.assert_close(images.std((0, 2, 3)), torch.tensor(STD), rtol=0, atol=2e-3)


@pytest.mark.parametrize("i", range(20))
def test_an_image_shows_its_objects_and_its_answers_follow_from_them(i: int) -> None:
    data = SAME.splits["test"]
    assert data.kinds is not None and data.masks is not None
    image, masks, kinds = data.images[i], data.object_masks(slice(i, i + 1))[0], data.kinds[i]
    there = masks.flatten(1).any(1)
    assert torch.equal(there, kinds >= 0) and torch.equal(masks.any(0), data.masks[i])
    assert (image[:, ~data.masks[i]] == GREY).all() and masks.sum(0).max() == 1
    shapes, centres, cells = [], [], []
    for mask, kind in zip(masks[there], kinds[there], strict=True):
        colour, shape = SAME.kinds[int(kind)].split()
        assert shape == shape_of(mask)
        pixels = image[:, mask].int()
        assert (pixels == pixels[:, :1]).all(), "of one colour"
        assert (pixels[:, 0] - torch.tensor(COLOURS[colour])).abs().max() <= SHADE
        top, left, side, _ = boxes(mask)
        assert top // CELL == (top + side - 1) // CELL and left // CELL == (left + side - 1) // CELL
        cells.append((top // CELL, left // CELL))
        centres.append((top + side / 2, left + side / 2))
        shapes.append(shape)
    assert len(set(cells)) == len(cells)
    names = [SAME.kinds[int(kind)].split()[0] for kind in kinds[there]]
    assert names[:2] == ["red", "blue"] and not {"red", "blue"} & set(names[2:])
    answers = {one.name: one.labels[int(one.splits["test"].labels[i])] for one in (SAME, COUNT, RELATION)}
    (red_y, red_x), (blue_y, blue_x) = centres[:2]
    assert answers == {
        "clevr": str(len(shapes)),
        "clevr-same": str(shapes[1:].count(shapes[0])),
        "clevr-relation": f"{'left' if red_x < blue_x else 'right'} {'above' if red_y < blue_y else 'below'}",
    }
    assert [SHAPES[int(data.factors[name][i])] for name in ("red_shape", "blue_shape")] == shapes[:2]


def test_the_questions_are_asked_of_the_same_images() -> None:
    data = SAME.splits["test"]
    for one in CLEVR:
        assert torch.equal(one.splits["test"].images, data.images)
        name = one.name.removeprefix("clevr-") if one is not COUNT else "count"
        assert torch.equal(one.splits["test"].labels, data.factors[name])
        assert isinstance(one.splits["test"], Split) and one.sha256 == data_hash(*one.splits.values())
