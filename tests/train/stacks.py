"""Runs in float64 that write nothing, so that rounding is far below what a mistake changes."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from prisma.data import task
from prisma.data.task import Split
from prisma.ledger import Ledger
from prisma.train import Recipe
from prisma.train.clock import Clock
from prisma.train.initial import initial_model
from prisma.train.optimizer import make_optimizer
from prisma.train.run import Run


def run_of(recipe: Recipe, seed: int) -> Run:
    """A run of a recipe on digits at step 0, with this seed for both roles."""
    training = replace(recipe.training, init_seed=seed, order_seed=seed)
    model = initial_model(recipe.model, seed).double()
    digits = task("digits")
    train = Split(digits.splits["train"].images.double(), digits.splits["train"].labels)
    inputs = {name: (x.double(), y) for name in ("test", "train") for x, y in [digits.inputs(name, 100)]}
    own, none = replace(recipe, training=training), Path()
    return Run(own, "id", none, model, make_optimizer(model, training), 0, train, inputs, Ledger(none), Clock(none, 0))


def flat(model: nn.Module) -> Tensor:
    """All weights in a row."""
    return torch.cat([p.detach().flatten() for p in model.parameters()])
