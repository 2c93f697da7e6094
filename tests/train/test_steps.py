"""A step at a time is the plain loop: forward, backward, clipped AdamW, at the rate of the step."""

from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F

from prisma.data import task
from prisma.ledger import Ledger
from prisma.train import Recipe
from prisma.train.clock import Clock
from prisma.train.initial import initial_model
from prisma.train.loop import data_on
from prisma.train.optimizer import learning_rate, make_optimizer
from prisma.train.order import batch
from prisma.train.run import Run
from prisma.train.stacked import Stacked
from prisma.train.steps import Eager, steps_of


def run_of(recipe: Recipe) -> Run:
    model, none = initial_model(recipe.model, 0), Path()
    images, inputs = data_on("digits", "cpu", 50)
    optimizer = make_optimizer(model, recipe.training)
    return Run(recipe, "", none, model, optimizer, 0, images, inputs, Ledger(none), Clock(none, 0))


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
