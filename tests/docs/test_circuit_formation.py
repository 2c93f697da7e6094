"""docs/circuit-formation.md is what its script writes of the measured numbers, and they are those of the mice."""

import json

import pytest
import torch

import prisma
from tools.circuit_formation import SEEDS, Answers, answers, pairs_of_circle
from tools.circuit_formation_page import NUMBERS, PAGE, PICTURE, page

FOUND = json.loads(NUMBERS.read_text())


def test_the_page_is_what_the_numbers_say() -> None:
    assert PAGE.read_text() == page(FOUND), "run python -m tools.circuit_formation"
    assert PICTURE.exists()
    assert {name: tuple(x["seed"] for x in rows) for name, rows in FOUND.items()} == SEEDS


def test_every_curve_has_a_number_for_every_checkpoint() -> None:
    for x in (x for rows in FOUND.values() for x in rows):
        assert x["steps"] == sorted(x["steps"]) and {0, 1, 2, 4, 512} <= set(x["steps"])
        assert {len(values) for curves in (x["curves"], x["each"]) for values in curves.values()} == {len(x["steps"])}
        for change in x["changes"].values():
            assert change["step"][1] <= change["step"][0] <= change["step"][2]


def test_the_circle_before_training_is_that_of_its_recipe() -> None:
    """The weights of step 0 are drawn from the seed, the same on every machine."""
    torch.manual_seed(0)
    model = prisma.ViT(prisma.load("mice/circle").config).eval()
    images, numbers, n = pairs_of_circle()
    row = FOUND["circle"][0]
    found = prisma.fourier_components(model, images, numbers, frequencies=row["frequencies"])
    assert found.loss[:n].mean().item() == pytest.approx(row["curves"]["training loss"][0], rel=1e-3)
    assert found.restricted_loss.mean().item() == pytest.approx(row["curves"]["restricted loss"][0], rel=1e-3)
    index = [k - 1 for k in row["frequencies"]]
    assert found.embedding[index].sum().item() == pytest.approx(row["curves"]["embedding"][0], rel=1e-3)


def test_the_shipped_induction_mouse_answers_both_questions() -> None:
    found = answers(prisma.load("mice/induction").model)
    assert isinstance(found, Answers) and found.orientation.mean() > 0.99 and found.sameness.mean() > 0.97
    assert found.embedding_loss.mean() > 1.38, "before the block the class token has seen no patch"
    ends = [x["curves"]["sameness"][-1] for x in FOUND["induction"]]
    assert min(ends) > 0.95 and found.object.shape == (219, 8)
