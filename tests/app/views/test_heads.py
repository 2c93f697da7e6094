"""Scores of heads: the two of the app against loops, and all of them as `prisma.head_scores` gives them."""

import math
from collections.abc import Callable

import pytest
import torch
from prisma_app.library import Library, Scene
from prisma_app.state import State
from prisma_app.views.heads import OWN, appears, described, scores_code, scores_of
from prisma_app.views.shared import program

import prisma
from prisma.analysis.attention.score_functions import ScoreContext
from prisma.analysis.attention.token_grid import TokenGrid
from tests.app.conftest import DIGITS, GLYPHS


def context(rows: int, columns: int, registers: int) -> ScoreContext:
    keys = TokenGrid(True, registers, (1, rows, columns))
    tokens = keys.n_tokens
    uniform = torch.full((tokens, tokens), 1 / tokens, dtype=torch.float64)
    return ScoreContext(keys=keys, uniform=uniform, queries=torch.ones(tokens, dtype=torch.bool))


@pytest.mark.parametrize("registers", [0, 2])
def test_entropy_and_distance_equal_loops(registers: int) -> None:
    rows, columns, first = 2, 3, 1 + registers
    where = context(rows, columns, registers)
    tokens = where.keys.n_tokens
    pattern = torch.randn(2, 3, tokens, tokens, dtype=torch.float64).softmax(-1)
    for image in range(2):
        for head in range(3):
            a = pattern[image, head].tolist()
            bits = [-sum(p * math.log2(p) for p in row) for row in a]
            found = OWN["entropy"](pattern, where)[image, head].item()
            assert found == pytest.approx(sum(bits) / tokens, abs=1e-12)
            distances = []
            for q in range(rows * columns):
                weights = [a[first + q][first + k] for k in range(rows * columns)]
                apart = [math.dist(divmod(q, columns), divmod(k, columns)) for k in range(rows * columns)]
                distances.append(sum(w * d for w, d in zip(weights, apart, strict=True)) / sum(weights))
            found = OWN["distance"](pattern, where)[image, head].item()
            assert found == pytest.approx(sum(distances) / len(distances), abs=1e-12)
    assert OWN["entropy"].chance(where).item() == pytest.approx(math.log2(tokens))
    one_hot = torch.eye(tokens, dtype=torch.float64)[None, None]
    assert OWN["entropy"](one_hot, where).item() == OWN["distance"](one_hot, where).item() == 0


@pytest.mark.parametrize("model", [DIGITS, GLYPHS])
def test_the_others_are_the_librarys(scene: Callable[..., Scene], model: str) -> None:
    there = scene(model=model)
    images = torch.stack([example.x for example in there.subject.examples()[:4]])
    result = scores_of(there.loaded.model, images)
    names = [name for name in result.names["score"] if name not in OWN]
    expected = prisma.head_scores(there.loaded.model, images, names)
    assert {"class_token", "neighbour", "itself"} <= set(names)
    assert torch.equal(result.mean[len(OWN) :].nan_to_num(-1), expected.mean.nan_to_num(-1))
    about = described(result)
    assert [one["name"] for one in about] == result.names["score"]
    assert [one["share"] for one in about] == [False, False, *(True for _ in names)]
    assert about[2]["chance"] == pytest.approx(expected.chance[:, 0].mean().item())


def test_induction_needs_two_patches_that_look_the_same(scene: Callable[..., Scene], vit_library: Library) -> None:
    model = scene(model=GLYPHS).loaded.model
    twice = torch.zeros(1, *scene(model=GLYPHS).picture.x.shape)
    side = model.config.patch_sides[0]
    content = torch.arange(side * side).view(side, side) / side**2
    twice[:, :, :side, :side] = twice[:, :, -side:, -side:] = content
    assert "induction" in scores_of(model, twice).names["score"]
    photo = vit_library.scene(State())
    assert "induction" not in scores_of(photo.loaded.model, photo.picture.x[None]).names["score"]


def test_when_a_number_appears() -> None:
    values = torch.tensor([[0.0, 0.9, 0.0], [0.3, 0.1, 0.0], [0.4, 0.9, 0.2], [0.6, 1.0, 0.8]])
    assert appears(values, [0, 10, 100, 1000]).tolist() == [10, 0, 1000]


def test_the_python_defines_the_same_scores(scene: Callable[..., Scene]) -> None:
    there = scene(model=DIGITS)
    images = torch.stack([example.x for example in there.subject.examples()[:2]])
    expected = scores_of(there.loaded.model, images)
    scope: dict[str, object] = {}
    exec(program(scores_code(expected.names["score"])), scope)
    found = prisma.head_scores(there.loaded.model, images, scope["scores"])  # type: ignore[arg-type]
    assert found.names == expected.names and torch.equal(found.mean, expected.mean)
