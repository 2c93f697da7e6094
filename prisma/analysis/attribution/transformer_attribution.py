"""Transformer attribution: attention weighted by its relevance and its gradient, rolled out over the layers.

    R_l = (I + mean_heads relu(dtarget/dA_l * R(A_l))) R_{l-1},   R_0 = I

R(A) is relevance by these rules, each of which passes on all that it gets:

    linear map          by the positive products of input and weight; biases get nothing
    norm, activation,   all of it to its input
    softmax, scaling
    product of two      by the input's share of each output, half to each factor
    sum of two streams  by each summand's share, scaled so that the two sums keep their proportion

The rules are put in the place of the gradient while a run is recorded, so they hold for whatever the model computes; an
operation without a rule is refused by name.

Source: Chefer et al. 2012.09838. The later rule of the same authors, without relevance, is `prisma.relevance`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.overrides import TorchFunctionMode, resolve_name

from prisma.analysis.attention.token_maps import readout_row
from prisma.analysis.attribution.games import Game, TokenGame, divided
from prisma.analysis.attribution.lrp import tokens_of
from prisma.analysis.attribution.questions import values_of_logits
from prisma.analysis.border import record
from prisma.analysis.readings import Reading
from prisma.errors import PrismaError
from prisma.plain import expect_plain
from prisma.sites import Tap

STRUCTURE = (
    "unflatten", "unbind", "transpose", "flatten", "view", "reshape", "permute", "expand", "expand_as", "chunk", "cat",
    "squeeze", "unsqueeze", "contiguous", "__getitem__", "to", "stack", "split", "__get__", "__len__",
)  # fmt: skip
"""Operations that move numbers: relevance moves back as a gradient does."""
IDENTITY = (
    F.layer_norm, F.rms_norm, F.normalize, F.gelu, F.relu, F.silu, torch.sigmoid, Tensor.softmax, Tensor.neg,
    Tensor.__neg__,
)  # fmt: skip
PRODUCT, SUM, SCALE = (Tensor.matmul, Tensor.__matmul__), (Tensor.add, Tensor.__add__), (Tensor.mul, Tensor.__mul__)


def divided_by(relevance: Tensor, whole: Tensor) -> Tensor:
    """The quotient, 0 where the divisor is 0."""
    safe = torch.where(whole == 0, 1, whole)
    return torch.where(whole == 0, 0, relevance / safe)


class _Identity(torch.autograd.Function):
    """The value of an operation; relevance goes to its input."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, y: Tensor) -> Tensor:
        return y.clone()

    @staticmethod
    def backward(ctx: FunctionCtx, relevance: Tensor) -> tuple[Tensor, None]:
        return relevance, None


class _Linear(torch.autograd.Function):
    """Relevance by the positive products of input and weight."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, y: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return y.clone()

    @staticmethod
    def backward(ctx: Any, relevance: Tensor) -> tuple[Tensor, None, None]:
        x, weight = ctx.saved_tensors
        ups, downs = (x.clamp(min=0), weight.clamp(min=0)), (x.clamp(max=0), weight.clamp(max=0))
        share = divided_by(relevance, F.linear(*ups) + F.linear(*downs))
        return ups[0] * (share @ ups[1]) + downs[0] * (share @ downs[1]), None, None


class _Sum(torch.autograd.Function):
    """Relevance by each summand's share; both are scaled, so that their sums keep the proportion of their sizes."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        return a + b

    @staticmethod
    def backward(ctx: Any, relevance: Tensor) -> tuple[Tensor, Tensor]:
        a, b = ctx.saved_tensors
        share = divided_by(relevance, a + b)
        parts = [a * share, b * share]
        axes = tuple(range(1, a.ndim))
        sums = [part.sum(axes, keepdim=True) for part in parts]
        scale = divided_by(relevance.sum(axes, keepdim=True), sums[0].abs() + sums[1].abs())
        return parts[0] * sums[0].sign() * scale, parts[1] * sums[1].sign() * scale


class _Product(torch.autograd.Function):
    """A bilinear operation: relevance by each factor's share of each output, half to each."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, operation: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        ctx.save_for_backward(a, b)
        ctx.operation = operation
        return operation(a, b)

    @staticmethod
    def backward(ctx: Any, relevance: Tensor) -> tuple[Tensor, Tensor, None]:
        with torch.enable_grad():
            a, b = (x.detach().requires_grad_() for x in ctx.saved_tensors)
            y = ctx.operation(a, b)
            slopes = torch.autograd.grad(y, (a, b), divided_by(relevance, y.detach()))
        return a.detach() * slopes[0] / 2, b.detach() * slopes[1] / 2, None


class _Share(torch.autograd.Function):
    """A linear operation of one tensor, such as a mean: relevance by the share of each number in each output."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, operation: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.save_for_backward(x)
        ctx.operation = operation
        return operation(x)

    @staticmethod
    def backward(ctx: Any, relevance: Tensor) -> tuple[Tensor, None]:
        with torch.enable_grad():
            x = ctx.saved_tensors[0].detach().requires_grad_()
            y = ctx.operation(x)
            (slope,) = torch.autograd.grad(y, x, divided_by(relevance, y.detach()))
        return x.detach() * slope, None


def _multiplied(other: Tensor, first: bool, x: Tensor) -> Tensor:
    return x @ other if first else other @ x


class RelevanceMode(TorchFunctionMode):
    """While this is on, what is recorded for the gradient are the rules of relevance."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = [x for part in args for x in (part if isinstance(part, list | tuple) else [part])]
        live = [x for x in given if isinstance(x, Tensor) and x.requires_grad and not isinstance(x, nn.Parameter)]
        if not live or not torch.is_grad_enabled():
            found = func(*args, **kwargs)
            return found.detach() if isinstance(found, Tensor) else found  # of weights alone, which are constants
        if func is F.linear:
            return _apply(_Linear, args[0], args[1].detach(), func(*args, **kwargs).detach())
        if func in IDENTITY or (func in SCALE and len(live) == 1):
            return _apply(_Identity, live[0], func(*args, **kwargs).detach())
        if func in (*PRODUCT, *SCALE) and len(live) == 2:
            return _apply(_Product, *live, func)
        if func in PRODUCT:  # with a constant, which gets nothing
            other = args[1].detach() if live[0] is args[0] else args[0].detach()
            return _apply(_Share, live[0], partial(_multiplied, other, live[0] is args[0]))
        if func in SUM and len(live) == 2:
            return _apply(_Sum, *live)
        if func is Tensor.mean:
            return _apply(_Share, args[0], lambda x: x.mean(*args[1:], **kwargs))
        if func in SUM or getattr(func, "__name__", "") in STRUCTURE:
            return func(*args, **kwargs)
        raise PrismaError(f"expected operations with a rule of relevance; found {resolve_name(func) or func}")


def _apply(rule: Any, *args: Any) -> Any:
    with torch._C.DisableTorchFunction():
        return rule.apply(*args)


def transformer_attribution(game: Game) -> tuple[Tensor, None]:
    """The row of the readout [image, token] of the rolled out map. Numbers are at least 0, without a unit."""
    tokens = tokens_of(game)
    if isinstance(tokens.target, Reading) or divided(tokens.config):
        found = tokens.target if isinstance(tokens.target, Reading) else "divided attention"
        raise PrismaError(f"expected a metric of the logits of a model with joint attention; found {found}")
    expect_plain(tokens.vit, [""], "relevance propagation", gradients=True)
    return torch.cat([_rows(tokens, rows) for rows in game.passes(copies=8)]), None


def _rows(game: TokenGame, rows: Tensor) -> Tensor:
    gradients, relevances = _gradients(game, rows), propagated(game, rows)[1]
    n = game.config.n_tokens
    exact = next(iter(relevances.values())).dtype if relevances else game.whole.dtype
    map_BQK = torch.eye(n, dtype=exact, device=rows.device).repeat(len(rows), 1, 1)
    weighted = {site: (gradients[site] * relevances[site]).relu() for site in relevances}
    for site in (site for site in weighted if site != "pool.pattern"):
        map_BQK = map_BQK + weighted[site].mean(1) @ map_BQK
    return readout_row(game.config, weighted.get("pool.pattern"), map_BQK)


def _sites(game: TokenGame) -> list[str]:
    layers = [f"blocks.{layer}.attn.pattern" for layer in range(game.config.n_layers)]
    return [*layers, *(["pool.pattern"] if game.config.pool == "attention" else [])]


def _values(game: TokenGame, logits: Tensor, rows: Tensor) -> Tensor:
    assert not isinstance(game.target, Reading)
    return values_of_logits(game.target, logits, rows, len(game.images))


def _gradients(game: TokenGame, rows: Tensor) -> dict[str, Tensor]:
    with torch.enable_grad():
        leaf = game.images[rows].detach().requires_grad_()
        logits, acts = record(game.vit, leaf, _sites(game))
        patterns = list(acts.values())
        found = torch.autograd.grad(_values(game, logits, rows).sum(), patterns) if patterns else ()
    return dict(zip(acts, found, strict=True))


def propagated(game: TokenGame, rows: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The relevance of the embedding [row, token, d_model], and of each pattern [row, head, query, key], by its site.

    Relevance begins as the gradient of the target by the logits: 1 at the class of a logit.
    """
    tap = Tap(frozenset(_sites(game)), {})
    with torch.enable_grad():
        x = game.vit.embed(game.images[rows]).detach().requires_grad_()
        with RelevanceMode():
            logits = game.vit.readout(game.vit.encode(x, tap=tap), tap)
        leaf = logits.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(_values(game, leaf, rows).sum(), leaf)
        patterns = list(tap.tensors.values())
        first, *found = torch.autograd.grad(logits, [x, *patterns], gradient)
    return first, dict(zip(tap.tensors, found, strict=True))
