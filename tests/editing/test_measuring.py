import math

import pytest
import torch

from prisma import Zero
from prisma.editing.measuring import Share, answers, measure_edit
from prisma.editing.weight_edit import LowRank, WeightEdit, source_of
from prisma.errors import PrismaError


def test_wilson_intervals_of_known_counts() -> None:
    assert Share(10, 10).interval == pytest.approx((0.7225, 1.0), abs=1e-4)
    assert Share(0, 10).interval == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert Share(30, 40).interval == pytest.approx((0.5981, 0.8581), abs=1e-4)
    assert math.isnan(Share(0, 0).value) and Share(0, 0).interval == (0.0, 1.0)
    assert str(Share(1, 2)) == "0.500 [0.095, 0.905] of 2"


def always(model, target: int) -> WeightEdit:
    """One class has a logit that nothing exceeds."""
    row = torch.zeros(10, 1)
    row[target] = 1e4
    return WeightEdit((LowRank.of(model, "readout.head.bias", torch.ones(1, 1), row),))


def test_an_edit_that_answers_one_class_for_everything_fails_in_locality(digits) -> None:
    model, images, labels = digits.loaded.model, digits.test_images, digits.test_labels
    hashed = source_of(model)
    with torch.no_grad():
        said = model(images).argmax(-1)
    found = measure_edit(model, always(model, 8), images, labels, 3, 8, key_images=images[:5])
    mine, rest = (labels == 3) & (said == 3), labels != 3
    assert found.success == Share(5, 5)
    assert found.generalisation == found.forgotten == Share(int(mine.sum()), int(mine.sum()))
    assert found.locality == Share(int((said[rest] == 8).sum()), int(rest.sum()))
    assert found.near_boundary.n == round(0.1 * int(rest.sum())) and 0 < found.near_gap <= 1
    assert source_of(model) == hashed


def test_no_edit_changes_nothing(digits) -> None:
    found = measure_edit(digits.loaded.model, {}, digits.test_images, digits.test_labels, 3, 8)
    assert found.generalisation.value == found.forgotten.value == 0
    assert found.locality.value == found.near_boundary.value == 1
    assert found.to_dict()["success"] == {"value": None, "interval": [0.0, 1.0], "n": 0}
    names = ["success", "generalisation", "forgotten", "locality", "near boundary"]
    assert [row["measure"] for row in found.rows()] == names


def test_edits_of_sites_are_measured_too(digits) -> None:
    zeroed = {"blocks.1.attn.z": Zero().at(head=0)}
    logits = answers(digits.loaded.model, zeroed, digits.test_images[:20])
    assert not torch.equal(logits, answers(digits.loaded.model, None, digits.test_images[:20]))
    with pytest.raises(PrismaError, match="a WeightEdit, or edits of sites by name; found 3"):
        answers(digits.loaded.model, 3, digits.test_images[:20])  # type: ignore[arg-type]
    with pytest.raises(PrismaError, match="some of class 3"):
        measure_edit(digits.loaded.model, {}, digits.test_images, digits.test_labels * 0, 3, 8)
