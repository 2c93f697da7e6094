"""A run while it trains: its weights, its data on the device, and what it writes at a checkpoint."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim import AdamW

from prisma.checkpoint import write_checkpoint
from prisma.data import task
from prisma.data.task import Split
from prisma.ledger import Ledger
from prisma.outline import expect_finite
from prisma.run_folder import METRICS, STATE
from prisma.train.clock import Clock
from prisma.train.config import Recipe
from prisma.train.metrics_log import MetricsLog
from prisma.train.resume import save_state
from prisma.train.tracking import Log
from prisma.vit import ViT


@dataclass(frozen=True)
class Run:
    """The data of the loop. Only the weights and the optimizer's moments change."""

    recipe: Recipe
    id: str
    out: Path
    model: ViT
    optimizer: AdamW
    step: int  # the step at which this process begins
    images: Split  # the training images and their targets, on the device
    inputs: Mapping[str, tuple[Tensor, Tensor]]  # split -> (normalised images, targets) to evaluate, on the device
    ledger: Ledger  # of the probe and the checkpoints so far
    clock: Clock
    expect_alone: Callable[[], None] = lambda: None  # before writing: raises if the folder is another process's by now
    track: Log = field(default=lambda line: None)
    mean: ViT | None = None  # with the running mean of the weights, if the recipe has one
    decoder: nn.Module | None = None  # what is trained beside the model, if the objective has it; no checkpoint has it

    @cached_property
    def learner(self) -> nn.Module:
        """All that is trained: the model as its objective asks it, with the decoder."""
        return self.recipe.objective.learner(self.model, self.decoder)

    def learner_of(self, mean: bool) -> nn.Module:
        """The same, of the present weights or of their running mean."""
        if not mean:
            return self.learner
        assert self.mean is not None, "the recipe has a running mean"
        return self.recipe.objective.learner(self.mean)

    def save(self, log: MetricsLog, step: int) -> None:
        """Write the state of `step`, with the hashes of all that was written before it.

        Raises:
            PrismaError: the weights are NaN or infinite, and the state before stays; or it could not be written.
        """
        self.expect_alone()
        expect_finite(self.model.state_dict(), f"step {step} of the run {self.out}")
        log.sync()
        past = {**self.ledger.files, METRICS: log.sha256}
        save_state(self.out / STATE, self.learner, self.optimizer, step, self.id, past, self.mean)
        self.clock.save()

    def write_model(self, folder: Path, step: int) -> None:
        """Write a checkpoint with the present weights."""
        self._write(folder, self.model, step)

    def write_mean(self, folder: Path, step: int) -> None:
        """Write a checkpoint with the running mean of the weights, if there is one."""
        if self.mean is not None:
            self._write(folder, self.mean, step)

    def _write(self, folder: Path, model: ViT, step: int) -> None:
        names, transform = self.recipe.objective.names, task(self.recipe.task).transform
        header = {"step": str(step), "run": self.id}
        write_checkpoint(folder, model, labels=names, transform=transform.to_dict(), header=header)

    def write(self, log: MetricsLog, line: Mapping[str, Any]) -> None:
        """Add a line to the metrics."""
        log.write(line)
        self.track(line)
