"""A step at a time is the plain loop: forward, backward, clipped AdamW, at the rate of the step."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from prisma.data import task
from prisma.errors import PrismaError
from prisma.ledger import Ledger
from prisma.train import Recipe
from prisma.train.clock import Clock
from prisma.train.data_on import data_on
from prisma.train.initial import initial_model
from prisma.train.optimizer import learning_rate, make_optimizer
from prisma.train.order import batch
from prisma.train.run import Run
from prisma.train.stacked import Stacked
from prisma.train.steps import Eager, steps_of
from tests.train.stacks import flat
from tests.train.stacks import run_of as float64_run


def run_of(recipe: Recipe) -> Run:
    model, none = initial_model(recipe.model, 0), Path()
    images, inputs = data_on("digits", "cpu", 50)
    optimizer = make_optimizer(model, recipe.training)
    return Run(recipe, "", none, model, optimizer, 0, images, inputs, Ledger(none), Clock(none, 0))


def test_in_bfloat16_products_are_rounded_and_weights_are_not(tiny: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of whatever CPU: that it is slow on some does not matter for a few steps."""
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: True)
    ways = {kind: Eager(run_of(tiny.override({"precision": kind}))) for kind in ("float32", "bfloat16")}
    again = Eager(run_of(tiny.override({"precision": "bfloat16"})))
    losses = {kind: way.advance(0, 5) for kind, way in ways.items()}
    assert losses["bfloat16"] == again.advance(0, 5) != losses["float32"]
    torch.testing.assert_close(torch.tensor(losses["bfloat16"]), torch.tensor(losses["float32"]), rtol=0.02, atol=0)
    assert {p.dtype for way in ways.values() for p in way.run.model.parameters()} == {torch.float32}
    assert ways["bfloat16"].evaluate("test") == again.evaluate("test"), "in float32"


def test_eager_steps_are_the_plain_loop_to_the_bit(tiny: Recipe) -> None:
    way, twin, digits = Eager(run_of(tiny)), run_of(tiny), task("digits")
    ((first, norm),) = way.measure(0)
    found = [first, *(loss for (loss,) in way.advance(0, 5))]
    expected = []
    for step in range(5):
        for group in twin.optimizer.param_groups:
            group["lr"] = learning_rate(tiny.training, step)
        images, labels = batch(digits.splits["train"], digits.transform, tiny.training, step)
        loss = F.cross_entropy(twin.model(images), labels)
        twin.optimizer.zero_grad()
        loss.backward()
        found_norm = torch.nn.utils.clip_grad_norm_(twin.model.parameters(), tiny.training.clip)
        assert step or norm == found_norm.item()
        twin.optimizer.step()
        expected.append(loss.item())
    assert found == [expected[0], *expected]
    for p, q in zip(way.run.model.parameters(), twin.model.parameters(), strict=True):
        assert torch.equal(p, q)


def test_the_way_follows_from_the_device_and_the_number_of_runs(tiny: Recipe) -> None:
    run = run_of(tiny)
    assert isinstance(steps_of([run]), Eager)
    other = replace(run_of(tiny), recipe=tiny.override({"init_seed": "1"}))
    assert isinstance(steps_of([run, other]), Stacked)


@pytest.mark.parametrize("parts", [2, 8])
def test_parts_of_a_batch_have_the_gradient_of_the_whole(tiny: Recipe, parts: int) -> None:
    whole, divided = (float64_run(tiny.override({"accumulate": str(n)}), 0) for n in (1, parts))
    one, other = Eager(whole), Eager(divided)
    assert one.measure(3)[0] == pytest.approx(other.measure(3)[0], rel=1e-12)
    for p, q in zip(whole.model.parameters(), divided.model.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-10, atol=1e-14)
    losses = [way.advance(0, 6) for way in (one, other)]
    torch.testing.assert_close(torch.tensor(losses[0]), torch.tensor(losses[1]), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(flat(whole.model), flat(divided.model), rtol=1e-8, atol=1e-10)
    with pytest.raises(PrismaError, match="accumulate=3 contradicts batch_size=32: the parts must be of one size"):
        tiny.override({"accumulate": "3"})
