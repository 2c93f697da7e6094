"""One run that several processes train together: each computes the gradient of a part of every batch.

They are started by `accelerate launch` or `torchrun`, on one machine or on several. The first process leads: it alone
has the folder, the log and the signals, and it tells the others which steps to take. All of them hold the weights and
the optimizer's moments, and make the same update from the mean of their gradients. Losses and weights are those of one
process with the same batch up to the order of sums.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from prisma.errors import PrismaError
from prisma.launched import Processes
from prisma.ledger import Ledger
from prisma.train.clock import Clock
from prisma.train.config import Recipe
from prisma.train.data_on import data_for
from prisma.train.initial import initial_decoder, initial_model
from prisma.train.machine import cpu_threads, pick_device
from prisma.train.optimizer import make_optimizer
from prisma.train.run import Run
from prisma.train.steps import Eager, Steps, steps_of
from prisma.train.stopping import Stopping
from prisma.train.trained import train_only

_END, _BEGIN, _MEASURE, _ADVANCE = range(4)
"""What the first process tells the others to do, with two numbers."""


class Shared(Eager):
    """A run whose batches several processes share, in one of these processes."""

    def __init__(self, run: Run, processes: Processes) -> None:
        super().__init__(run)
        self.part, self.processes = slice(processes.rank, None, processes.count), processes
        if processes.is_first:
            _tell(_BEGIN, run.step, 0, run.images.labels.device)
            self._spread()

    def measure(self, step: int) -> list[tuple[float, float]]:
        self._tell(_MEASURE, step, step + 1)
        return super().measure(step)

    def advance(self, first: int, last: int) -> list[list[float]]:
        self._tell(_ADVANCE, first, last)
        return super().advance(first, last)

    def _tell(self, what: int, first: int, last: int) -> None:
        if self.processes.is_first:
            _tell(what, first, last, self.run.images.labels.device)

    def _gradient(self, step: int) -> float:
        if self._known is None or self._known[0] != step:
            loss = torch.tensor(super()._gradient(step), dtype=torch.float64, device=self.run.images.labels.device)
            gradients = [p.grad for p in self.run.learner.parameters() if p.grad is not None]
            flat = torch.cat([gradient.flatten() for gradient in gradients])
            for whole in (loss, flat):
                dist.all_reduce(whole)
                whole /= self.processes.count
            for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
                gradient.copy_(mean.view_as(gradient))
            self._known = step, loss.item()
        return self._known[1]

    def _spread(self) -> None:
        """Give the weights and moments of the first process to all."""
        for parameter in self.run.learner.parameters():
            dist.broadcast(parameter.detach(), 0)
            if self.run.step and parameter.requires_grad:
                state = self.run.optimizer.state[parameter]
                if not state:
                    step = torch.tensor(float(self.run.step))
                    state |= {"step": step, **{kind: torch.zeros_like(parameter) for kind in ("exp_avg", "exp_avg_sq")}}
                for kind in ("exp_avg", "exp_avg_sq"):
                    dist.broadcast(state[kind], 0)

    def follow(self) -> None:
        """Do what the first process tells, until it ends. What this process logs or writes is nothing."""
        self._spread()
        while (told := _told(self.run.images.labels.device))[0] != _END:
            what, first, last = told
            if what == _MEASURE:
                self.measure(first)
            else:
                self.advance(first, last)


def steps_for(runs: Sequence[Run], processes: Processes) -> Steps:
    """How runs take their steps: in several processes, or in the fastest way in this one."""
    return Shared(runs[0], processes) if processes.count > 1 else steps_of(runs)


def expect_shares(recipe: Recipe, processes: Processes) -> None:
    """Raise PrismaError unless every process has as many images of a batch."""
    if recipe.training.batch_size % processes.count:
        raise PrismaError(
            f"expected batch_size to be a multiple of the {processes.count} processes, which share a batch; found "
            f"{recipe.training.batch_size}"
        )


@contextmanager
def leading(processes: Processes) -> Iterator[None]:
    """While the first process trains. Afterwards, or after an error, the others end.

    Raises:
        PrismaError: another process was lost.
    """
    if processes.count == 1:
        yield
        return
    place = pick_device(processes.device)
    try:
        try:
            yield
        finally:
            _tell(_END, 0, 0, place)
    except RuntimeError as error:
        if not isinstance(error, dist.DistError) and "gloo" not in str(error):
            raise
        raise PrismaError(
            f"expected all {processes.count} processes to train to the end; found that one was lost: --resume goes on "
            "from the newest state"
        ) from error


def follow(recipe: Recipe, processes: Processes) -> None:
    """What the other processes do: they compute with the first one, until it ends."""
    place, config = pick_device(processes.device), recipe.training
    with Stopping() as stopping, cpu_threads(config.threads):
        what, step, _ = _told(place)
        if what == _BEGIN:
            model = initial_model(recipe.model, config.init_seed, config.init).to(place)
            train_only(model, config.trained)
            decoder, (images, _) = initial_decoder(recipe, place), data_for(recipe, place, 0)
            optimizer, nowhere = make_optimizer(recipe.objective.learner(model, decoder), config), Path()
            ledger, clock = Ledger(nowhere), Clock(nowhere, 0)
            run = Run(recipe, "", nowhere, model, optimizer, step, images, {}, ledger, clock, decoder=decoder)
            Shared(run, processes).follow()
        stopping.deliver()


def _tell(what: int, first: int, last: int, device: torch.device) -> None:
    dist.broadcast(torch.tensor([what, first, last], device=device), 0)


def _told(device: torch.device) -> tuple[int, int, int]:
    message: Tensor = torch.zeros(3, dtype=torch.int64, device=device)
    dist.broadcast(message, 0)
    what, first, last = message.tolist()
    return what, first, last
