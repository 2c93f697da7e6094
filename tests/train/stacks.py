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
    """A run of a recipe at step 0, with this seed for both roles."""
    training = replace(recipe.training, init_seed=seed, order_seed=seed)
    own, data, none = replace(recipe, training=training), task(recipe.task), Path()
    model, decoder = initial_model(own.model, seed).double(), own.objective.decoder(seed)
    optimizer = make_optimizer(own.objective.learner(model, decoder and decoder.double()), training)

    def targets(split: Split) -> Tensor:
        found = own.objective.targets(split)
        return found.double() if found.is_floating_point() else found

    train = Split(data.splits["train"].images.double(), targets(data.splits["train"]))
    inputs = {
        name: (data.inputs(name, 100)[0].double(), targets(data.splits[name])[:100]) for name in ("test", "train")
    }
    ledger, clock = Ledger(none), Clock(none, 0)
    return Run(own, "id", none, model, optimizer, 0, train, inputs, ledger, clock, decoder=decoder)


def flat(model: nn.Module) -> Tensor:
    """All weights in a row."""
    return torch.cat([p.detach().flatten() for p in model.parameters()])
