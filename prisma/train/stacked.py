"""Runs of one recipe with other seeds, stacked so that they take every step together.

On a GPU a step is one CUDA graph, which takes its batch, its learning rate and its place in the list of losses from
tables on the device, so that nothing waits for Python.

Shapes: R run, B batch.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn.utils import clip_grad_norm_, get_total_norm
from torch.optim import AdamW

from prisma.data import task
from prisma.data.transform import as_floats
from prisma.train.captured import captured
from prisma.train.each_run import of_each_run
from prisma.train.evaluate import evaluate, evaluate_each
from prisma.train.machine import computes_in_bfloat16
from prisma.train.mean_weights import move_to, share_of
from prisma.train.optimizer import BETAS, EPS, decay_groups, learning_rate
from prisma.train.order import batch_indices, batch_moves, move
from prisma.train.run import Run
from prisma.vit import ViT

AT_ONCE = 128  # steps in a call, so that a signal waits a second at most


class Stacked:
    """Runs of one recipe with other seeds, which are at the same step: many steps in a call.

    The models and optimizers of the runs share memory with the stacks, so that they always have the present weights.
    """

    at_once = AT_ONCE

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs, self.config, self.model = runs, runs[0].recipe.training, runs[0].model
        self.learner, self.objective = runs[0].learner, runs[0].recipe.objective
        self.data, self.device = runs[0].images, runs[0].images.labels.device
        transform = task(runs[0].recipe.task).transform
        per_channel = [torch.tensor(x, device=self.device).view(-1, 1, 1) for x in (transform.mean, transform.std)]
        self.mean, self.std = per_channel
        self.weights = _stack_weights([run.model for run in runs])
        self.mean_weights = _stack_weights([run.mean for run in runs if run.mean is not None])
        self.lr = torch.zeros((), device=self.device)
        self.optimizer, self._has_shared = self._make_optimizer(), False
        if runs[0].step:
            self._share_moments()
        shape = (AT_ONCE, len(runs), self.config.batch_size)
        self.table = {  # what a step reads at its place, and writes
            "rows": torch.zeros(shape, dtype=torch.int64, device=self.device),
            "moves": torch.zeros(*shape, 3, device=self.device) if self._moves else None,
            "lr": torch.zeros(AT_ONCE, device=self.device),
            "share": torch.zeros(AT_ONCE, device=self.device),
            "loss": torch.zeros(AT_ONCE, len(runs), device=self.device),
        }
        self.place = torch.zeros(1, dtype=torch.int64, device=self.device)
        self._step = self._captured() if self.device.type == "cuda" else self._take

    def measure(self, step: int) -> list[tuple[float, float]]:
        self._fill(step, step + 1)
        losses = self._gradients()
        norms = self._norms([weight.grad for weight in self.weights.values() if weight.grad is not None])
        self.optimizer.zero_grad()
        return list(zip(losses.tolist(), norms.tolist(), strict=True))

    def advance(self, first: int, last: int) -> list[list[float]]:
        if first == last:
            return []
        self._fill(first, last)
        for _ in range(first, last):
            self._step()
        if not self._has_shared:
            self._share_moments()
        losses: list[list[float]] = self._at("loss", slice(last - first)).tolist()
        return losses

    def evaluate(self, split: str, mean: bool = False) -> list[tuple[float, ...]]:
        images, targets = self.runs[0].inputs[split]
        if len(self.runs) == 1:
            with self._precise():
                return [evaluate(self.runs[0].learner_of(mean), images, targets, objective=self.objective)]
        weights = self.mean_weights if mean else self.weights
        each = of_each_run(lambda weights, x: functional_call(self.learner, weights, (x,)), (0, None))
        with self._precise():
            return evaluate_each(lambda x: each(weights, x), images, targets, objective=self.objective)

    @property
    def _moves(self) -> bool:
        return bool(self.config.shift or self.config.turn)

    def _at(self, name: str, place: Tensor | slice) -> Tensor:
        table = self.table[name]
        assert table is not None
        return table[place] if isinstance(place, slice) else table.index_select(0, place)[0]

    def _fill(self, first: int, last: int) -> None:
        """Put the batches and learning rates of some steps into the tables, and go to their beginning."""
        n, configs = len(self.data.labels), [run.recipe.training for run in self.runs]
        here = slice(last - first)
        rows = [
            torch.stack([batch_indices(n, c.batch_size, c.order_seed, step) for c in configs])
            for step in range(first, last)
        ]
        self._at("rows", here).copy_(torch.stack(rows))
        if self._moves:
            moves = [torch.stack([batch_moves(c.batch_size, c, step) for c in configs]) for step in range(first, last)]
            self._at("moves", here).copy_(torch.stack(moves))
        rates = [learning_rate(self.config, step) for step in range(first, last)]
        self._at("lr", here).copy_(torch.tensor(rates))
        self._at("share", here).copy_(torch.tensor([share_of(self.config, step) for step in range(first, last)]))
        self.place.zero_()

    def _gradients(self) -> Tensor:
        """The losses [run] on the batches of the present place, whose gradients the weights hold afterwards."""
        self.optimizer.zero_grad()
        parts, whole = self.config.accumulate, torch.zeros(len(self.runs), device=self.device)
        images, targets = self._batches()
        for some, own in zip(images.chunk(parts, 1), targets.chunk(parts, 1), strict=True):
            losses = self._losses(some, own) / parts
            losses.sum().backward()
            whole = whole + losses.detach()
        return whole

    def _losses(self, images: Tensor, targets: Tensor) -> Tensor:
        """The losses [run] of the weights on a batch for each."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._in_bfloat16):
            if len(self.runs) == 1:
                inputs, wanted = self.objective.question(images[0], targets[0], None)
                return self.objective.loss(self.learner(*inputs).float(), wanted)[None]
            return of_each_run(self._loss)(self.weights, images, targets)

    def _batches(self) -> tuple[Tensor, Tensor]:
        """(images [run, batch, channel, height, width], targets [run, batch, ...]) of the present place."""
        rows_RB = self._at("rows", self.place)
        images = as_floats(self.data.images[rows_RB.flatten()])
        if self._moves:
            images = move(images, self._at("moves", self.place).flatten(0, 1))
        return ((images - self.mean) / self.std).unflatten(0, rows_RB.shape), self.data.labels[rows_RB]

    def _loss(self, weights: dict[str, Tensor], images: Tensor, targets: Tensor) -> Tensor:
        inputs, wanted = self.objective.question(images, targets, None)
        return self.objective.loss(functional_call(self.learner, weights, inputs).float(), wanted)

    @property
    def _in_bfloat16(self) -> bool:
        return computes_in_bfloat16(self.config.precision, self.device)

    def _precise(self) -> AbstractContextManager[object]:
        """Evaluation is in float32; in bfloat16 recipes, products may use the GPU's matrix units."""
        return _tensor_float_32() if self._in_bfloat16 else nullcontext()

    def _take(self) -> None:
        """One step of all runs: everything that it needs is on the device."""
        losses = self._gradients()
        self._clip()
        self.lr.copy_(self._at("lr", self.place))
        self.optimizer.step()
        move_to(self.mean_weights.values(), self.weights.values(), self._at("share", self.place))
        self._at("loss", slice(None)).index_copy_(0, self.place, losses[None])
        self.place.add_(1)

    def _clip(self) -> None:
        """Scale the gradient of each run to at most `clip`, as `clip_grad_norm_` does for one."""
        if len(self.runs) == 1:
            clip_grad_norm_(self.weights.values(), self.config.clip)
            return
        gradients = [weight.grad for weight in self.weights.values() if weight.grad is not None]
        factors = (self.config.clip / (self._norms(gradients) + 1e-6)).clamp(max=1)
        for gradient in gradients:
            gradient.mul_(factors.view(-1, *[1] * (gradient.ndim - 1)))

    def _norms(self, gradients: Sequence[Tensor]) -> Tensor:
        """The norm of the gradient of each run [run]."""
        if len(self.runs) == 1:
            return get_total_norm(gradients)[None]
        return torch.linalg.vector_norm(torch.cat([g.flatten(1) for g in gradients], 1), dim=1)

    def _make_optimizer(self) -> AdamW:
        """AdamW over the stacks, with the moments of the runs, or zeros at step 0."""
        names = {id(parameter): name for name, parameter in self.model.named_parameters()}
        groups = decay_groups(self.model, self.config.weight_decay, self.config.decay_all)
        stacks = [{**group, "params": [self.weights[names[id(p)]] for p in group["params"]]} for group in groups]
        on_gpu = self.device.type == "cuda"
        optimizer = AdamW(stacks, lr=self.lr, betas=BETAS, eps=EPS, fused=True, capturable=on_gpu)
        for name, weight in self.weights.items():
            optimizer.state[weight] = self._first_moments(name, weight)
        return optimizer

    def _first_moments(self, name: str, weight: Tensor) -> dict[str, Tensor]:
        parameters = [run.model.get_parameter(name) for run in self.runs]
        states = [run.optimizer.state.get(parameter, {}) for run, parameter in zip(self.runs, parameters, strict=True)]
        step = torch.tensor(float(self.runs[0].step), device=self.device)
        if not self.runs[0].step:
            return {"step": step, "exp_avg": torch.zeros_like(weight), "exp_avg_sq": torch.zeros_like(weight)}
        several = len(states) > 1
        moments = {
            kind: torch.stack([state[kind] for state in states]) if several else states[0][kind]
            for kind in ("exp_avg", "exp_avg_sq")
        }
        return {"step": step, **moments}

    def _share_moments(self) -> None:
        """Let the optimizers of the runs, which have no moments before the first update, share those of the stacks."""
        for name, weight in self.weights.items():
            for i, run in enumerate(self.runs):
                run.optimizer.state[run.model.get_parameter(name)] = {
                    kind: x if kind == "step" or len(self.runs) == 1 else x[i]
                    for kind, x in self.optimizer.state[weight].items()
                }
        self._has_shared = True

    def _captured(self) -> Callable[[], None]:
        """A step as one CUDA graph. Weights, moments and tables are afterwards as they were."""
        states = [x for state in self.optimizer.state.values() for x in state.values()]
        changed = [*self.weights.values(), *self.mean_weights.values(), *states, self.place]
        return captured(self._take, self.optimizer, changed)


def _stack_weights(models: Sequence[ViT]) -> dict[str, Tensor]:
    """The parameters of all models by name, [model, ...]; of one model, its own; of none, none."""
    if len(models) < 2:
        return {name: parameter for model in models for name, parameter in model.named_parameters()}
    stacks = {}
    for name, first in models[0].named_parameters():
        parameters = [model.get_parameter(name) for model in models]
        stacks[name] = torch.stack([p.detach() for p in parameters]).requires_grad_(first.requires_grad)
        for i, parameter in enumerate(parameters):
            parameter.data = stacks[name].detach()[i]
    return stacks


@contextmanager
def _tensor_float_32() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
