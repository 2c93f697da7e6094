"""Concept vectors: a planted concept is found, random sets are not, and sensitivities are slopes of steering."""

from typing import Any

import pytest
import torch

import prisma
from prisma import Logit, LogitDiff, PrismaError
from tests.analysis.directions.planted import pixels, two_variables
from tests.variants import images_of, model_of


def planted(metric: Any) -> Any:
    """The concept is a = 1, and random images have a = 0."""
    model, _ = two_variables()
    images, values = pixels(300, 0)
    chosen = values[:, 0] == 1
    site = "blocks.0.resid_post"
    return prisma.concept_vectors(
        model, pixels(20, 5)[0], metric, images[chosen][:40], images[~chosen], site, where=0, draws=20, alpha=10.0
    )


def test_a_planted_concept_raises_its_classes_for_every_image() -> None:
    _, directions = two_variables()
    found = planted(LogitDiff(1, 0))
    assert torch.equal(found.scores, torch.ones(20).double()) and found.p_value() < 0.05
    assert (found.vectors @ directions[:, 0]).min() > 0.95
    assert found.accuracy.mean() > 0.7 > found.random_accuracy.mean()
    assert planted(LogitDiff(0, 1)).scores.max() == 0
    torch.testing.assert_close(found.sensitivity[0], found.vectors @ directions[:, 0])  # 0.5 times two


def test_a_sensitivity_is_the_slope_of_steering() -> None:
    model = model_of("base").requires_grad_(False)
    concept, others, images = images_of(model, 12, 3), images_of(model, 30, 4), images_of(model, 3)
    metric, site = Logit(torch.tensor([0, 1, 4])), "blocks.0.resid_post"
    found = prisma.concept_vectors(model, images, metric, concept, others, site, where="patches", draws=2, batch=2)
    doses = torch.tensor([-1e-5, 1e-5], dtype=torch.float64)
    curve = prisma.steering(model, images, metric, found.vectors[1], site, where="patches", doses=doses)
    torch.testing.assert_close(found.sensitivity[:, 1], curve.values.diff(dim=1)[:, 0] / 2e-5, rtol=1e-4, atol=1e-7)


def test_an_image_without_a_slope_counts_half() -> None:
    found = planted(lambda logits: 0 * logits[:, 0])
    assert torch.equal(found.scores, torch.full((20,), 0.5).double()) and found.p_value() == 1


def test_the_report_and_the_picture() -> None:
    found = planted(LogitDiff(1, 0))
    lines = found.report().splitlines()
    assert lines[0].startswith("concept: TCAV score 1.00") and lines[2].startswith("p-value")
    assert found.plot().axes and found.plot("accuracy").axes


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"concept_images": 9}, "expected 10 concept images or more, and twice as many random ones; found 9 and 30"),
        ({"random_images": 20}, "found 12 and 20"),
        ({"draws": 1}, "expected two draws or more, and alpha of 0 or more; found 1 and 1.0"),
        ({"alpha": -1.0}, "expected two draws or more, and alpha of 0 or more; found 20 and -1.0"),
        ({"metric": lambda logits: logits[:, 0].detach()}, "expected a metric that has a gradient"),
    ],
)
def test_bad_input_is_one_sentence(changed: dict[str, Any], message: str) -> None:
    model = model_of("base")
    given: dict[str, Any] = {"metric": Logit(0), "concept_images": 12, "random_images": 30} | changed
    for name in ("concept_images", "random_images"):
        given[name] = images_of(model, given[name], 3)
    with pytest.raises(PrismaError, match=message):
        prisma.concept_vectors(model, images_of(model, 2), site="blocks.0.resid_post", **given)
