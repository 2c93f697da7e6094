"""Runs of one recipe with other seeds, stacked so that they take every step together.

On a GPU a step is one CUDA graph, which takes its batch, its learning rate and its place in the list of losses from
tables on the device, so that nothing waits for Python.

Shapes: R run, B batch.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call
from torch.nn.utils import clip_grad_norm_, get_total_norm
from torch.optim import AdamW
from torch.overrides import TorchFunctionMode

from prisma.data import task
from prisma.data.transform import as_floats
from prisma.train.evaluate import evaluate, evaluate_each
from prisma.train.optimizer import BETAS, EPS, decay_groups, learning_rate
from prisma.train.order import batch_indices, batch_moves, move
from prisma.train.run import Run

AT_ONCE = 128  # steps in a call, so that a signal waits a second at most
_WARM_UP = 3  # steps before a graph is captured, as torch.cuda.graphs asks for


class Stacked:
    """Runs of one recipe with other seeds, which are at the same step: many steps in a call.

    The models and optimizers of the runs share memory with the stacks, so that they always have the present weights.
    """

    at_once = AT_ONCE

    def __init__(self, runs: Sequence[Run]) -> None:
        self.runs, self.config, self.model = runs, runs[0].recipe.training, runs[0].model
        self.data, self.device = runs[0].images, runs[0].images.labels.device
        transform = task(runs[0].recipe.task).transform
        per_channel = [torch.tensor(x, device=self.device).view(-1, 1, 1) for x in (transform.mean, transform.std)]
        self.mean, self.std = per_channel
        self.weights = _stack_weights(runs)
        self.lr = torch.zeros((), device=self.device)
        self.optimizer, self._has_shared = self._make_optimizer(), False
        if runs[0].step:
            self._share_moments()
        shape = (AT_ONCE, len(runs), self.config.batch_size)
        self.table = {  # what a step reads at its place, and writes
            "rows": torch.zeros(shape, dtype=torch.int64, device=self.device),
            "moves": torch.zeros(*shape, 3, device=self.device) if self._moves else None,
            "lr": torch.zeros(AT_ONCE, device=self.device),
            "loss": torch.zeros(AT_ONCE, len(runs), device=self.device),
        }
        self.place = torch.zeros(1, dtype=torch.int64, device=self.device)
        self._step = self._captured() if self.device.type == "cuda" else self._take

    def measure(self, step: int) -> list[tuple[float, float]]:
        self._fill(step, step + 1)
        losses = self._losses()
        found = torch.autograd.grad(losses.sum(), list(self.weights.values()), allow_unused=True)
        norms = self._norms([gradient for gradient in found if gradient is not None])
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

    def evaluate(self, split: str) -> list[tuple[float, float]]:
        images, labels = self.runs[0].inputs[split]
        if len(self.runs) == 1:
            with self._precise():
                return [evaluate(self.model, images, labels)]
        each = _of_each_run(lambda weights, x: functional_call(self.model, weights, (x,)), (0, None))
        with self._precise():
            return evaluate_each(lambda x: each(self.weights, x), images, labels)

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
        self.place.zero_()

    def _losses(self) -> Tensor:
        """The losses [run] of the weights on the batches of the present place."""
        images, labels_RB = self._batches()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._in_bfloat16):
            if len(self.runs) == 1:
                return F.cross_entropy(self.model(images[0]).float(), labels_RB[0])[None]
            return _of_each_run(self._loss)(self.weights, images, labels_RB)

    def _batches(self) -> tuple[Tensor, Tensor]:
        """(images [run, batch, channel, height, width], labels [run, batch]) of the present place."""
        rows_RB = self._at("rows", self.place)
        images = as_floats(self.data.images[rows_RB.flatten()])
        if self._moves:
            images = move(images, self._at("moves", self.place).flatten(0, 1))
        return ((images - self.mean) / self.std).unflatten(0, rows_RB.shape), self.data.labels[rows_RB]

    def _loss(self, weights: dict[str, Tensor], images: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(self.model, weights, (images,)).float(), labels)

    @property
    def _in_bfloat16(self) -> bool:
        return self.config.precision == "bfloat16" and self.device.type == "cuda"

    def _precise(self) -> AbstractContextManager[object]:
        """Evaluation is in float32; in bfloat16 recipes, products may use the GPU's matrix units."""
        return _tensor_float_32() if self._in_bfloat16 else nullcontext()

    def _take(self) -> None:
        """One step of all runs: everything that it needs is on the device."""
        self.optimizer.zero_grad()
        losses = self._losses()
        losses.sum().backward()
        self._clip()
        self.lr.copy_(self._at("lr", self.place))
        self.optimizer.step()
        self._at("loss", slice(None)).index_copy_(0, self.place, losses.detach()[None])
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
        changed = [*self.weights.values(), *states, self.place]
        with torch.no_grad():
            before = [x.detach().clone() for x in changed]
        own = torch.cuda.Stream(self.device)
        own.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(own):
            for _ in range(_WARM_UP):
                self._take()
        torch.cuda.current_stream(self.device).wait_stream(own)
        graph = torch.cuda.CUDAGraph()
        self.optimizer.zero_grad()
        with torch.cuda.graph(graph):
            self._take()
        with torch.no_grad():
            torch._foreach_copy_([x.detach() for x in changed], before)
        return graph.replay


def _of_each_run(function: Callable[..., Tensor], dims: tuple[int | None, ...] | int = 0) -> Callable[..., Tensor]:
    """The function of one run for all of them."""

    def of_each(*arguments: object) -> Tensor:
        with _Merged():
            found: Tensor = torch.vmap(function, in_dims=dims)(*arguments)
        return found

    return of_each


class _Merged(TorchFunctionMode):
    """What torch does not stack well: a linear map of every image alone, with copies of its weights; and attention."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is F.linear and args[0].ndim > 2:
            x, *rest = args
            return func(x.flatten(0, -2), *rest, **(kwargs or {})).unflatten(0, x.shape[:-1])
        if func is F.scaled_dot_product_attention and (kwargs or {}).get("attn_mask") is None and len(args) == 3:
            return _Attention.apply(*args)
        return func(*args, **(kwargs or {}))


class _Attention(torch.autograd.Function):
    """Fused attention of images of several runs, which are only more images to it. Its gradient is torch's own."""

    @staticmethod
    def forward(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        raise NotImplementedError  # it is called on stacks alone

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        raise NotImplementedError

    @staticmethod
    def vmap(info: Any, dims: Sequence[int | None], *stacks: Tensor) -> tuple[Tensor, int]:
        q, k, v = (
            (x.movedim(dim, 0) if dim is not None else x.expand(info.batch_size, *x.shape)).flatten(0, 1)
            for x, dim in zip(stacks, dims, strict=True)
        )
        return F.scaled_dot_product_attention(q, k, v).unflatten(0, (info.batch_size, -1)), 0


def _stack_weights(runs: Sequence[Run]) -> dict[str, Tensor]:
    """The parameters of all runs by name, [run, ...]; of one run, its own."""
    if len(runs) == 1:
        return dict(runs[0].model.named_parameters())
    stacks = {}
    for name, _ in runs[0].model.named_parameters():
        parameters = [run.model.get_parameter(name) for run in runs]
        stacks[name] = torch.stack([p.detach() for p in parameters]).requires_grad_()
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
