"""Layer-wise relevance propagation for transformers: AttnLRP and CP-LRP.

Relevance begins as the target and is passed back, so that each step divides what it gets among its inputs:

    linear map          by the input's share of each output; what the bias gives is kept by the bias
    activation          all of it to its input
    norm                as a linear map: the standard deviation is held constant
    product             half to each factor: of q and k, of pattern and v, of a gated MLP
    softmax             x_i (R_i - s_i sum_j R_j): its Taylor expansion (AttnLRP); none of it (CP-LRP)

With shares that are exact (epsilon 0), relevance is the input times a gradient that is changed at activations, norms
and products, so one backward pass computes it, and nothing is divided by a small number. CP-LRP holds the patterns
constant: relevance passes through values alone, and all of a product is theirs.

A map of either adds up to the target minus what biases (and softmax) keep: `delta` says how much.

Sources: Achtibat et al. 2402.05602 (AttnLRP); Ali et al. 2202.07304 (CP-LRP). Relevance propagation is covered by
patents: its authors state that it is free for personal and scientific use.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from prisma.analysis.attribution.games import Game, TokenGame
from prisma.analysis.attribution.questions import values_of_logits
from prisma.analysis.readings import Reading
from prisma.errors import PrismaError
from prisma.plain import expect_plain


class FrozenNorms(TorchFunctionMode):
    """Norms whose standard deviation is a constant for the gradient."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (F.layer_norm, F.rms_norm):
            return _scaled(func, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _scaled(
    func: Any, x: Tensor, shape: Any, weight: Tensor | None = None, bias: Tensor | None = None, eps: float | None = 1e-5
) -> Tensor:
    """LayerNorm or RMSNorm over the last axis."""
    centred = x - x.mean(-1, keepdim=True) if func is F.layer_norm else x
    least = torch.finfo(x.dtype).eps if eps is None else eps
    found = centred / (centred.square().mean(-1, keepdim=True) + least).sqrt().detach()
    found = found if weight is None else found * weight
    return found if bias is None else found + bias


class RuleTap:
    """A tap that changes no value, but what is passed back at products, patterns and activations.

    Args:
        softmax: whether relevance passes through the pattern: AttnLRP; otherwise CP-LRP.
        reads: sites to remember, in `tensors`.
    """

    def __init__(
        self, softmax: bool, reads: tuple[str, ...] = (), scope: str = "", tensors: dict[str, Tensor] | None = None
    ) -> None:
        self.softmax, self.reads, self.scope = softmax, reads, scope
        self.tensors: dict[str, Tensor] = {} if tensors is None else tensors
        self.hidden: dict[str, Tensor] = {}  # what the MLP of this scope has before its activation

    def __call__(self, site: str, x: Tensor) -> Tensor:
        if site in ("q", "k", "pattern"):
            x = halved(x) if self.softmax else x.detach()
        elif site == "v" and self.softmax:
            x = halved(x)
        elif site in ("pre", "pre_linear"):
            self.hidden[site] = x
        elif site == "post":
            x = shared(x, list(self.hidden.values()))
        if self.scope + site in self.reads:
            self.tensors[self.scope + site] = x
        return x

    def wants(self, site: str) -> bool:
        return site in ("scores", "pattern") or self.scope + site in self.reads

    def within(self, scope: str) -> "RuleTap":
        return RuleTap(self.softmax, self.reads, f"{self.scope}{scope}.", self.tensors)


def halved(x: Tensor) -> Tensor:
    """The same value with half of the gradient."""
    return x.detach() + (x - x.detach()) / 2


def shared(y: Tensor, inputs: list[Tensor]) -> Tensor:
    """The same value `y`, whose relevance goes to these inputs in equal parts: each has the gradient y / x / n."""
    y = y.detach()
    for x in inputs:
        slope = torch.where(x == 0, 0, y / torch.where(x == 0, 1, x)).detach() / len(inputs)
        y = y + slope * (x - x.detach())
    return y


def attn_lrp(game: Game) -> tuple[Tensor, Tensor]:
    """The relevance of each token of the embedding [image, token], and the target [image]."""
    return _propagated(game, softmax=True)


def cp_lrp(game: Game) -> tuple[Tensor, Tensor]:
    """As `attn_lrp`, with patterns held constant."""
    return _propagated(game, softmax=False)


def _propagated(game: Game, *, softmax: bool) -> tuple[Tensor, Tensor]:
    parts = [relevance_of_stream(tokens_of(game), rows, softmax=softmax) for rows in game.passes(copies=8)]
    return torch.cat([x.sum(-1) for x in parts]), game.whole


def relevance_of_stream(game: TokenGame, rows: Tensor, *, softmax: bool) -> Tensor:
    """[row, token, d_model]: the relevance of each number of the embedding."""
    model = game.vit
    expect_plain(model, [""], "relevance propagation", gradients=True)
    reads = game.target.reads if isinstance(game.target, Reading) else ()
    tap = RuleTap(softmax, reads)
    with torch.enable_grad(), FrozenNorms():
        x = model.embed(game.images[rows]).detach().requires_grad_()
        logits = model.readout(model.encode(x, tap=tap), tap)
        if isinstance(game.target, Reading):
            values = game.target.value(tap.tensors)
        else:
            values = values_of_logits(game.target, logits, rows, len(game.images))
        if not values.requires_grad:
            raise PrismaError(f"expected a target that has a gradient; found {game.target!r}, which has none")
        (gradient,) = torch.autograd.grad(values.sum(), x)
    return (x * gradient).detach().to(torch.promote_types(x.dtype, torch.float32))


def tokens_of(game: Game) -> TokenGame:
    """The game of a vision transformer, inside of which a method looks. Raises PrismaError for another network."""
    if not isinstance(game, TokenGame):
        raise PrismaError("expected a vision transformer of Prisma, inside of which this method looks; found a network")
    return game
