"""One coder in training: its steps, which of its latents are dead, and the state that continues bitwise.

A coder is trained on activations that are centred by their mean and scaled so that their numbers are about 1, and
becomes one of raw activations (`scaling`) whenever it is written. Centring is what keeps latents alive: where the
mean is large beside the spread (gamma), nearly all of them die from it (arXiv 2605.31518).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.optim import Adam, Optimizer

from prisma.errors import PrismaError
from prisma.sparse.coders import BATCHED, COUNTED, Coder, CoderConfig, drawn, unit, unit_
from prisma.sparse.kernels import top_threshold
from prisma.sparse.losses import Loss, best_scale, loss
from prisma.sparse.scaling import Scaling, of_raw_activations
from prisma.train.captured import captured, shared_pool

WARMUP, COOLING = 0.05, 0.2
"""The share of the steps in which the rate rises, and that in which it falls."""
FIRST_THRESHOLD = 0.1  # of jumprelu
STEERING = 0.01
"""How fast the coefficient of the sparsity term follows the number of active latents, by step; faster in trainings of
less than 600 steps."""
SIZED = COUNTED
"""Kinds whose first code is multiplied by a number if the encoder is, so that its size can be chosen."""
SIZING = 2 / 3
"""The power of the best scale that is taken. With all of it the error is least at first, but the latents that are
active then outgrow the others: of BatchTopK's in `benchmarks.sparse`, at the smaller size, 43 % die in 300 steps, where
12 % do with this."""
SIZED_BY = 512  # tokens of the first batch: one number needs no more, and this is a hundredth of ten steps
REVIVED_EVERY = 8
"""Steps between two looks at which latents are dead: each makes a GPU wait."""
SMALLEST_ROOM = 64  # for dead latents, where shapes are fixed
CHECKED_EVERY = 100  # steps between two looks at whether the loss is finite and latents are active


@dataclass(frozen=True)
class Plan:
    """What one coder of a training is to become."""

    config: CoderConfig
    seed: int
    lr: float
    sparsity: float | None  # coefficient of the sparsity term; None: it follows the number of active latents to k
    dead_after: int  # tokens on which a latent was not active before it counts as dead
    frozen: str | None = None  # "decoder" or "encoder": what stays as it was drawn, up to the size of the encoder
    begin: str | None = None  # "data": the first directions are tokens (`begin_at`)


Capture = Callable[[Callable[[], Loss], Optimizer, Sequence[Tensor], Any], Callable[[], Loss]]
"""What makes a graph of a step: `prisma.train.captured.captured`."""


@dataclass(frozen=True)
class _Revived:
    """The latents of which AuxK has hold."""

    latents: Tensor  # where shapes are fixed, with room for more: what is left is latent 0
    count: Tensor | None = None  # how many they are, where they are not all


@dataclass(frozen=True)
class _Graph:
    """A step that was captured."""

    inputs: tuple[Tensor, ...]  # where it reads them
    replay: Callable[[], Loss]


class Learner:
    """A coder and its optimizer. `step` is one update, of which everything is in `state`.

    On a GPU a step is a CUDA graph, for which everything that changes from step to step is on the device. The shapes of
    AuxK have room for as many dead latents as a power of two there (`fixed`), so that few graphs are needed.
    """

    def __init__(self, plan: Plan, steps: int, device: torch.device, compute: torch.dtype = torch.float32) -> None:
        self.plan, self.steps, self.compute = plan, steps, compute
        self.coder = drawn(plan.config, plan.seed).to(device)
        if plan.config.kind == "jumprelu":
            self.coder.threshold.data.fill_(FIRST_THRESHOLD)
        if plan.frozen is not None:
            (self.coder.W_dec if plan.frozen == "decoder" else self.coder.W_enc).requires_grad_(False)
        self.trained = [x for x in self.coder.parameters() if x.requires_grad]
        on_gpu = device.type == "cuda"
        exact = torch.float64 if device.type == "cpu" else torch.float32  # not every device has float64
        self.lr = torch.zeros((), dtype=exact, device=device)
        self.optimizer = Adam(self.trained, lr=self.lr, betas=(0.9, 0.999), fused=True, capturable=on_gpu)
        self.quiet = torch.zeros(plan.config.width, dtype=torch.long, device=device)  # tokens since a latent was active
        first = plan.sparsity if plan.sparsity is not None else 0.1
        self.sparsity = torch.full((), first, dtype=exact, device=device)
        self.revived = torch.zeros(0, dtype=torch.long, device=device)  # the latents of which AuxK has hold
        self.taken = 0  # steps
        self.capture: Capture | None = captured if on_gpu else None
        self.fixed = device.type != "cpu"
        self._rooms = {0: _Revived(self.revived)}
        self._graphs: dict[tuple[Any, ...], _Graph] = {}
        self._pool = shared_pool() if on_gpu else None

    @property
    def dead(self) -> Tensor:
        """[m], bool: the latents that were not active on the last `dead_after` tokens."""
        return self.quiet >= self.plan.dead_after

    def step(self, x: Tensor, y: Tensor) -> Loss:
        """One update on tokens [N, d] and what they shall become [N, d_out], centred and scaled.

        Raises:
            PrismaError: the loss is not finite, or no latent is active any more.
        """
        if self.taken == 0:
            self._begin(x, y)
        if self.taken % REVIVED_EVERY == 0:
            self.revived = self.dead.nonzero()[:, 0]
            self._hold()
        self.lr.fill_(self.plan.lr * rate(self.taken, self.steps))
        may_repeat = self.capture is not None and self.optimizer.state  # the first step makes the moments
        found = self._repeated(x, y) if may_repeat else self._take(x, y, self._rooms[self._room])
        self.taken += 1
        if self.taken % CHECKED_EVERY == 0 or self.taken == self.steps:
            self._expect_alive(found, len(x))
        return found

    @property
    def _room(self) -> int:
        """For how many dead latents there is room."""
        n = len(self.revived)
        return min(max(SMALLEST_ROOM, 1 << (n - 1).bit_length()), self.plan.config.width) if self.fixed and n else n

    def _hold(self) -> None:
        """Let AuxK have hold of `revived`."""
        n, room = len(self.revived), self._room
        if not self.fixed or not n:
            self._rooms = (self._rooms if self.fixed else {}) | {room: _Revived(self.revived)}
            return
        new = self.revived.new_zeros
        held = self._rooms.setdefault(room, _Revived(new(room), new(())))  # where a graph reads them
        held.latents.zero_()[:n] = self.revived
        assert held.count is not None
        held.count.fill_(n)

    def _take(self, x: Tensor, y: Tensor, revived: _Revived) -> Loss:
        """One update. Everything that it needs is on the device; where shapes are fixed, none depends on a number."""
        self.optimizer.zero_grad()
        exact = self.compute == torch.float32
        with nullcontext() if exact else torch.autocast(x.device.type, self.compute):
            found = loss(
                self.coder,
                x,
                y,
                sparsity=self.sparsity.float(),
                dead=revived.latents,
                k_aux=max(x.shape[-1] // 2, 1),
                n_dead=revived.count,
            )
        found.total.backward()
        self._along_the_sphere()
        self.optimizer.step()
        self._unit_decoder()
        self.quiet.add_(len(x)).masked_fill_(found.active, 0)
        self._follow(found)
        return replace(found, total=found.total.detach())  # what leads to it belongs to this step's stream

    def _repeated(self, x: Tensor, y: Tensor) -> Loss:
        """The same update by a graph, which is captured when it is first needed."""
        like = (x.shape, y.shape, x is y, self._room)
        if like not in self._graphs:
            assert self.capture is not None
            inputs, revived = (x.clone(),) if x is y else (x.clone(), y.clone()), self._rooms[self._room]
            moments = [value for state in self.optimizer.state.values() for value in state.values()]
            changed = [*self.trained, *moments, self.quiet, self.sparsity]
            replay = self.capture(
                lambda: self._take(inputs[0], inputs[-1], revived), self.optimizer, changed, self._pool
            )
            self._graphs[like] = _Graph(inputs, replay)
        graph = self._graphs[like]
        for own, new in zip(graph.inputs, (x, y), strict=False):
            own.copy_(new)
        return Loss(**{name: value.clone() for name, value in vars(graph.replay()).items()})  # other graphs write there

    @torch.no_grad()
    def begin_at(self, x: Tensor) -> None:
        """Let the directions begin at some tokens of x [N, d], centred and scaled; of fewer than latents, at all.

        A token at the mean has no direction: its latent would be dead for good.
        """
        x = x[x.any(-1)]
        generator = torch.Generator().manual_seed(self.plan.seed)
        chosen = torch.randperm(len(x), generator=generator)[: self.plan.config.width].to(x.device)
        self.coder.W_dec[: len(chosen)] = unit(x[chosen])
        self.coder.W_enc.copy_(self.coder.W_dec.T)

    @torch.no_grad()
    def _begin(self, x: Tensor, y: Tensor) -> None:
        """Give the encoder a size with which the first reconstruction is not too large.

        The latents that are chosen for their pre-activations write several times too much while their directions are
        random, and hundreds of steps of Adam would go into unlearning that. A transcoder begins near zero (`drawn`).
        """
        if self.plan.config.kind in SIZED and self.plan.config.target is None:
            self.coder.W_enc.mul_(best_scale(self.coder, x[:SIZED_BY], y[:SIZED_BY]) ** SIZING)

    @torch.no_grad()
    def _follow(self, found: Loss) -> None:
        """The coefficient of the sparsity term follows the number of active latents."""
        config = self.plan.config
        if self.plan.sparsity is None and config.k is not None and config.kind not in COUNTED:
            off = (found.l0.to(self.sparsity) / config.k - 1).clamp(-1, 1)
            self.sparsity.mul_((max(STEERING, 6 / self.steps) * off).exp())

    def _expect_alive(self, found: Loss, batch: int) -> None:
        if not found.total.isfinite():
            raise PrismaError(
                f"expected a finite loss; found {found.total.item()} at step {self.taken}: try a smaller lr"
            )
        if self.dead.all():
            tokens = int(self.quiet.min())
            raise PrismaError(
                f"expected latents that are active; found a dead coder: none of {self.plan.config.width:,} was active "
                f"since step {self.taken - tokens // batch} ({tokens:,} tokens): try a smaller lr or sparsity"
            )

    @torch.no_grad()
    def _along_the_sphere(self) -> None:
        """Take from the decoder's gradient what would change the length of its rows."""
        weight = self.coder.W_dec
        if weight.grad is not None:
            weight.grad.addcmul_((weight.grad * weight).sum(-1, keepdim=True), weight, value=-1)

    @torch.no_grad()
    def _unit_decoder(self) -> None:
        if self.plan.frozen != "decoder":
            unit_(self.coder.W_dec)

    def finished(self, x: Scaling, y: Scaling) -> Coder:
        """The coder as it is now, of raw activations."""
        return of_raw_activations(self.coder, x, y)

    @torch.no_grad()
    def calibrate(self, x: Tensor) -> None:
        """Choose the threshold of batchtopk with which tokens [N, d], centred and scaled, have k latents on average.

        No step depends on it: in training, each batch has a threshold of its own.
        """
        config = self.plan.config
        if config.kind in BATCHED and config.k is not None:
            self.coder.threshold.copy_(top_threshold(self.coder.pre(x), config.k))

    def state(self) -> dict[str, Tensor]:
        """Everything that the next steps depend on."""
        found = {f"coder.{name}": x for name, x in self.coder.state_dict().items()}
        for i, x in enumerate(self.optimizer.param_groups[0]["params"]):
            found |= {f"adam.{i}.{key}": value for key, value in self.optimizer.state[x].items()}
        own = {"quiet": self.quiet, "revived": self.revived}
        return found | own | {"sparsity": self.sparsity}

    def restore(self, state: Mapping[str, Tensor], taken: int) -> None:
        """Continue from a state after `taken` steps."""
        self.coder.load_state_dict({n.removeprefix("coder."): x for n, x in state.items() if n.startswith("coder.")})
        self._graphs, device = {}, self.quiet.device  # which have hold of other moments
        for i, x in enumerate(self.optimizer.param_groups[0]["params"]):
            start = f"adam.{i}."
            parts = {name.removeprefix(start): value for name, value in state.items() if name.startswith(start)}
            self.optimizer.state[x] = {name: value.clone().to(device) for name, value in parts.items()}
        self.quiet.copy_(state["quiet"])
        self.sparsity.copy_(state["sparsity"])
        self.revived, self.taken = state["revived"].to(device), taken
        self._hold()


def rate(step: int, steps: int) -> float:
    """The share of the learning rate at a step: it rises, stays at 1, and falls to 0 at the end."""
    rising = min((step + 1) / max(WARMUP * steps, 1), 1)
    return min(rising, (steps - step) / max(COOLING * steps, 1), 1)


def default_lr(width: int) -> float:
    """The learning rate where none is given: it falls with the root of the width, as in Gao et al."""
    return min(1e-3 * math.sqrt(4096 / width), 2e-3)
