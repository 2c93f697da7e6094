import math

import pytest
import torch

from prisma import Zero
from prisma.editing.measuring import Share, answers, measure_edit, measure_edits
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
    logits, before = answers(digits.loaded.model, [zeroed, None], digits.test_images[:20])
    assert not torch.equal(logits, before)
    with pytest.raises(PrismaError, match="a WeightEdit, or edits of sites by name; found 3"):
        answers(digits.loaded.model, [3], digits.test_images[:20])  # type: ignore[arg-type]
    with pytest.raises(PrismaError, match="some of class 3"):
        measure_edit(digits.loaded.model, {}, digits.test_images, digits.test_labels * 0, 3, 8)


def test_edits_that_begin_in_the_middle_give_what_whole_runs_give(digits) -> None:
    model, x = digits.loaded.model, digits.test_images[:30]
    draw = torch.Generator().manual_seed(0)
    u, v = torch.randn(128, 1, generator=draw), torch.randn(64, 1, generator=draw)
    edits = [
        *(WeightEdit((LowRank.of(model, f"blocks.{layer}.mlp.out", u, v),)) for layer in (0, 1)),
        always(model, 4),
        WeightEdit((LowRank.of(model, "embed.patch.bias", torch.ones(1, 1), v),)),
    ]
    found = answers(model, [None, *edits], x, batch=13)
    torch.testing.assert_close(found[0], model(x))
    for edit, logits in zip(edits, found[1:], strict=True):
        torch.testing.assert_close(logits, edit.edited(model)(x), rtol=1e-4, atol=1e-4)
        assert not torch.allclose(logits, found[0], atol=1e-3)
    (hook,) = [model.blocks[1].register_forward_hook(lambda module, args, out: out * 0)]
    hooked = answers(model, edits[:1], x)[0]
    expected = edits[0].edited(model)(x)
    hook.remove()
    assert torch.equal(hooked, expected)  # what a hook does is not left out
    many = measure_edits(model, edits[:2], digits.test_images, digits.test_labels, 3, 8, key_images=[x[:3], None])
    assert many[1] == measure_edit(model, edits[1], digits.test_images, digits.test_labels, 3, 8)
    assert (many[0].success.n, many[1].success.n) == (3, 0)
