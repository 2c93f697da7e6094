"""The induction set, checked by looking at the images: which glyphs they show, and how the two lie."""

from collections import Counter
from itertools import product

import pytest
import torch
from torch import Tensor

from prisma.data.induction import INDUCTION, draw
from prisma.data.task import Split

PICTURES = {  # as seen, written down by hand
    "disc": ["..#..", ".###.", "#####", ".###.", "..#.."],
    "line": ["..#..", "..#..", "..#..", "..#..", "..#.."],
    "cross": ["#...#", ".#.#.", "..#..", ".#.#.", "#...#"],
    "diagonal": ["#....", ".#...", "..#..", "...#.", "....#"],
}
GLYPHS = {name: torch.tensor([[float(c == "#") for c in row] for row in rows]) for name, rows in PICTURES.items()}


def seen(image: Tensor) -> str:
    """The class that the geometry of an image [height, width] gives it; the image may lie on its side."""
    found = horizontal(image)
    direction = "horizontal"
    if found is None:
        found, direction = horizontal(image.T), "vertical"
    assert found is not None
    return f"{direction}, {'same' if found[0] == found[1] else 'different'}"


def horizontal(image: Tensor) -> tuple[str, str] | None:
    """The names of two glyphs side by side, 7 pixels apart, that make up the whole image."""
    rows, cols = image.nonzero(as_tuple=True)
    for row, col in product({int(rows.min()) + 2}, range(int(cols.min()), int(cols.min()) + 3)):
        for a, b in product(GLYPHS, repeat=2):
            drawn = torch.zeros(48, 48)
            for name, at in ((a, col), (b, col + 7)):
                drawn[row + 6 : row + 11, at + 6 : at + 11] += GLYPHS[name]
            if torch.equal(drawn[8:40, 8:40], image):
                return a, b
    return None


@pytest.fixture(scope="module")
def splits() -> dict[str, Split]:
    return dict(INDUCTION.splits)


def test_sizes(splits: dict[str, Split]) -> None:
    assert (len(splits["train"].images), len(splits["test"].images)) == (5872, 656)
    assert splits["test"].labels.bincount().tolist() == [164] * 4
    assert splits["train"].labels.bincount().tolist() == [1468] * 4


def test_no_image_twice(splits: dict[str, Split]) -> None:
    images = torch.cat([data.images for data in splits.values()])
    assert len({image.numpy().tobytes() for image in images}) == len(images) == 6528


def test_pixels_are_black_or_white(splits: dict[str, Split]) -> None:
    assert all(set(data.images.unique().tolist()) == {0, 1} for data in splits.values())


def test_labels_are_what_the_images_show(splits: dict[str, Split]) -> None:
    for data in splits.values():
        chosen = range(0, len(data.images), 13)
        assert all(seen(data.images[i, 0]) == INDUCTION.labels[int(data.labels[i])] for i in chosen)


def test_every_pair_of_glyphs_occurs(splits: dict[str, Split]) -> None:
    train = splits["train"]
    pairs: Counter[tuple[str, str] | None] = Counter()
    for i in (train.labels >= 2).nonzero()[::7, 0]:
        pairs[horizontal(train.images[i, 0])] += 1
    assert set(pairs) == set(product(GLYPHS, repeat=2))


def test_factors_draw_the_images_again() -> None:
    for data in INDUCTION.splits.values():
        values = torch.stack([data.factors[factor.name] for factor in INDUCTION.factors], dim=1)
        assert values.dtype == torch.int64
        for image, label, (horizontal, a, b, row, col) in zip(
            data.images[::41, 0], data.labels[::41].tolist(), values[::41].tolist(), strict=True
        ):
            again = draw(a, b, row, col) if horizontal else draw(a, b, col, row).T
            assert torch.equal(again, image)
            names = INDUCTION.factors[0].values[horizontal], "same" if a == b else "different"
            assert INDUCTION.labels[label] == ", ".join(names)
    assert INDUCTION.factors[1].values == tuple(PICTURES)
