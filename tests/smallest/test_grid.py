"""The architectures of a search: all combinations that make a model, by their number of weights."""

import pytest

from prisma.errors import PrismaError
from prisma.recipes import recipe
from prisma.smallest.grid import Grid, candidates, sizes_in
from prisma.vit import ViT

CIRCLE = recipe("circle")


def test_every_combination_that_makes_a_model_is_there_once() -> None:
    grid = Grid(layers=(1, 2), width=(6, 8), heads=(1, 4), mlp=(0, 2), patch=(16, 24))
    found = candidates(CIRCLE, grid)
    expected = {
        f"{layers}l-d{width}-h{heads}-m{mlp * width}-p16"  # 24 does not divide 32
        for layers in (1, 2)
        for width in (6, 8)
        for heads in (1, 4)
        for mlp in (0, 2)
        if width % heads == 0
    }
    assert {one.name for one in found} == expected and len(found) == len(expected) == 12
    sizes = [one.parameters for one in found]
    assert sizes == sorted(sizes)
    for one in found:
        assert one.parameters == sum(p.numel() for p in ViT(one.recipe.model).parameters())
        assert one.recipe == CIRCLE.override(one.settings)


def test_the_grid_of_a_recipe_has_its_own_sizes() -> None:
    grid = Grid.around(CIRCLE)
    assert grid == Grid(layers=(1,), width=(8, 16, 24, 32, 64), heads=(1, 4), mlp=(0, 4), patch=(16,))
    assert Grid.around(recipe("induction"), layers=(3,)).layers == (3,)
    assert any(one.recipe.model == CIRCLE.model for one in candidates(CIRCLE, grid))


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ({"layers": ()}, r"expected different sizes for layers; found \(\)"),
        ({"heads": (2, 2)}, r"expected different sizes for heads; found \(2, 2\)"),
        ({"layers": (0, 1)}, r"expected each of layers to be at least 1; found 0"),
        ({"width": (-8,)}, r"expected each of width to be from 1 to"),
        ({"mlp": (100_000,)}, r"expected each of mlp to be from 0 to"),
    ],
)
def test_sizes_that_are_none_are_a_sentence(sizes: dict[str, tuple[int, ...]], words: str) -> None:
    with pytest.raises(PrismaError, match=words):
        Grid.around(CIRCLE, **sizes)


def test_no_model_and_too_many_are_sentences() -> None:
    with pytest.raises(PrismaError, match=r"recipe circle; found none: heads must divide .* 32 x 32 pixels"):
        candidates(CIRCLE, Grid.around(CIRCLE, patch=(5,)))
    with pytest.raises(PrismaError, match=r"expected at most 2,000 architectures; found more"):
        candidates(CIRCLE, Grid.around(CIRCLE, layers=tuple(range(1, 40)), width=tuple(range(4, 400, 4))))


def test_sizes_are_read() -> None:
    assert sizes_in("width", " 32,8 ,8") == (8, 32)
    for text in ("", "a", "1,", "1.5", "-1", "1234567890"):
        with pytest.raises(PrismaError, match=r"whole numbers separated by commas for width, such as 1,2,4; found"):
            sizes_in("width", text)
