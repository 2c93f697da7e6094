"""The polygenic set, checked by looking at the images: which glyphs they show, in which order; and no image twice."""

from collections import Counter

import pytest
import torch

from prisma.data.induction import GAP, NAMES
from prisma.data.polygenic import PATTERNS, POLYGENIC
from tests.data.test_induction import GLYPHS


@pytest.mark.parametrize(("split", "each"), [("train", 2649), ("test", 295)])
def test_classes_are_balanced(split: str, each: int) -> None:
    data = POLYGENIC.splits[split]
    assert data.images.shape == (12 * each, 1, 64, 64) and data.images.dtype == torch.bool
    assert data.labels.bincount().tolist() == [each] * 12
    assert data.labels[:500].unique().tolist() == list(range(12)), "the order is random"
    assert (POLYGENIC.labels[1], POLYGENIC.labels[11]) == ("horizontal, ABAB", "vertical, AAAB")


def test_no_image_is_there_twice_in_or_across_the_splits() -> None:
    images = torch.cat([data.images for data in POLYGENIC.splits.values()])
    assert len({image.numpy().tobytes() for image in images}) == 31_788 + 3_540 == 12 * 2_944


def test_an_image_is_what_its_label_and_factors_say() -> None:
    """Drawn again with glyphs written down by hand, at the places and in the order that the factors state."""
    data, seen = POLYGENIC.splits["test"], Counter[str]()
    for i in range(400):
        numbers = {name: int(x[i]) for name, x in data.factors.items()}
        pattern, row, column = PATTERNS[numbers["pattern"]], numbers["row"], numbers["column"]
        glyphs = {"A": NAMES[numbers["a"]], "B": (*NAMES, "none")[numbers["b"]]}
        across = numbers["direction"] == 0
        if across:
            row, column = column, row
        drawn = torch.zeros(64, 64)
        for place, letter in enumerate(pattern):
            top = row + GAP * place
            drawn[top - 2 : top + 3, column - 2 : column + 3] = GLYPHS[glyphs[letter]]
        assert torch.equal(data.images[i, 0], (drawn.T if across else drawn) > 0)
        assert ("B" in pattern) == (glyphs["B"] != "none") and glyphs["A"] != glyphs["B"]
        assert POLYGENIC.labels[int(data.labels[i])] == f"{'horizontal' if across else 'vertical'}, {pattern}"
        seen[pattern] += 1
    assert set(seen) == set(PATTERNS)
