"""Steering: a curve is whole runs with the direction added, and a planted direction has the planted slope."""

from typing import Any

import pytest
import torch

import prisma
from prisma import Add, Logit, LogitDiff, PrismaError
from tests.analysis.directions.planted import pixels, two_variables
from tests.variants import images_of, model_of

SITE = "blocks.0.mlp_out"


def test_a_curve_is_whole_runs() -> None:
    model = model_of("base").requires_grad_(False)
    images, metric = images_of(model, 3), Logit(torch.tensor([0, 1, 2]))
    direction, doses = torch.randn(12).double(), torch.tensor([1.0, -0.5])
    found = prisma.steering(model, images, metric, direction, SITE, doses=doses, where="patches", batch=2, controls=2)
    for i, dose in enumerate(doses.tolist()):
        edit = {SITE: Add(dose * direction).at(token=slice(1, None))}
        torch.testing.assert_close(found.values[:, i], metric(prisma.run(model, images, edit)))
    assert found.random.shape == (3, 2, 2)
    torch.testing.assert_close(found.effect, found.values.mean(0))


def test_a_result_does_not_change_with_the_callers_tensors() -> None:
    model, doses = model_of("base", torch.float32), torch.tensor([0.5, 1.0])
    found = prisma.steering(model, images_of(model, 2), Logit(0), torch.ones(12), SITE, doses=doses)
    doses.zero_()
    assert found.doses.tolist() == [0.5, 1.0]


def test_a_planted_direction_moves_its_variable_alone() -> None:
    """The difference of the classes a = 1 and a = 0 rises by two times 0.5 for each unit, and so does no random one."""
    model, directions = two_variables()
    images, _ = pixels(50, 0)
    own, other = (
        prisma.steering(model, images, LogitDiff(1, 0), directions[:, i], "blocks.0.resid_post", where=0)
        for i in (0, 1)
    )
    torch.testing.assert_close(own.effect - own.effect[4], own.doses)
    torch.testing.assert_close(other.effect, own.effect[4].expand(9), atol=1e-5, rtol=0)
    assert (own.random.mean(0) - own.effect[4]).abs().max() < 1.9
    lengths = own.metadata["length"]
    assert lengths == pytest.approx(1)


def test_the_difference_of_means_is_that_of_the_vectors() -> None:
    model, directions = two_variables()
    images, values = pixels(80, 0)
    found = prisma.mean_difference(model, images, values[:, 0] == 1, "blocks.0.resid_post", where=0)
    assert found @ directions[:, 0] == pytest.approx(2, abs=1e-4)
    for chosen in (torch.ones(80).bool(), torch.zeros(80).bool(), values[:, 0]):
        with pytest.raises(PrismaError, match="expected true for some of 80 images and false for others"):
            prisma.mean_difference(model, images, chosen, "blocks.0.resid_post", where=0)


def test_the_report_and_the_picture() -> None:
    model, directions = two_variables()
    found = prisma.steering(
        model, pixels(9, 0)[0], Logit(0), directions[:, 0], "pooled", doses=torch.tensor([0.0, 1.0])
    )
    assert found.report().splitlines()[0].startswith("dose 0: ")
    assert found.plot().axes and found.plot("values").axes


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"direction": torch.ones(5)}, r"expected a direction \[12\] that is not zero; found \[5\]"),
        ({"direction": torch.zeros(12)}, r"expected a direction \[12\] that is not zero; found zeros"),
        ({"metric": None}, r"expected metric as a function, such as prisma.LogitDiff\(3, 8\); found None"),
        ({"doses": torch.zeros(0)}, "expected doses .*, and one random direction or more"),
        ({"doses": torch.tensor(1.0)}, "expected doses .*, and one random direction or more"),
        ({"controls": 0}, "expected doses .*, and one random direction or more"),
    ],
)
def test_bad_input_is_one_sentence(changed: dict[str, Any], message: str) -> None:
    model = model_of("base")
    given: dict[str, Any] = {"metric": Logit(0), "direction": torch.ones(12), "site": SITE}
    with pytest.raises(PrismaError, match=message):
        prisma.steering(model, images_of(model, 2), **given | changed)
