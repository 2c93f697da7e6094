"""Layer-wise relevance propagation for transformers: AttnLRP, CP-LRP, and CP-LRP with the gamma rule.

Relevance begins as the target and is passed back, so that each step divides what it gets among its inputs:

    linear map          by the input's share of each output; what the bias gives is kept by the bias
    activation          all of it to its input
    norm                as a linear map: the standard deviation, or a direction's length, is held constant
    product             half to each factor: of q and k, of pattern and v, of a gated MLP
    softmax             x_i (R_i - s_i sum_j R_j): its Taylor expansion (AttnLRP); none of it (CP-LRP)

With shares that are exact (epsilon 0), relevance is the input times a gradient that is changed at activations, norms
and products, so one backward pass computes it, and nothing is divided by a small number. CP-LRP holds the patterns
constant: relevance passes through values alone, and all of a product is theirs.

The gamma rule is for images, whose maps are noisy where large shares of both signs cancel: in linear maps, the products
of an input and a weight that have the sign of their output count 1 + gamma times.

A map of either adds up to the target minus what biases (and softmax) keep: `delta` says how much. That is so for a
target that is a weighted sum of logits, a cosine similarity or a neuron; a probability begins as its gradient times the
logits.

Sources: Achtibat et al. 2402.05602 (AttnLRP; gamma in vision transformers); Ali et al. 2202.07304 (CP-LRP). Relevance
propagation is covered by patents: its authors state that it is free for personal and scientific use.
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

GAMMA = 0.05
"""How much more the products of an output's sign count in `gamma_lrp`."""


class FrozenNorms(TorchFunctionMode):
    """Norms whose standard deviation, or length, is constant for the gradient; and linear maps by the gamma rule."""

    def __init__(self, gamma: float = 0.0) -> None:
        super().__init__()
        self.gamma = gamma

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _FROZEN:
            return _FROZEN[func](func, *args, **(kwargs or {}))
        if func is F.linear and self.gamma:
            return _by_gamma(self.gamma, *args, **(kwargs or {}))
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


def _unit(func: Any, x: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: None = None) -> Tensor:
    """A direction of length one, such as a CLIP's embedding."""
    return x / x.norm(p, dim, keepdim=True).clamp(min=eps).detach()


def _cosine(func: Any, x: Tensor, y: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    sizes = [one.norm(dim=dim).clamp(min=eps).detach() for one in (x, y)]
    return (x * y).sum(dim) / (sizes[0] * sizes[1])


_FROZEN: dict[Any, Any] = {
    F.layer_norm: _scaled,
    F.rms_norm: _scaled,
    F.normalize: _unit,
    torch.cosine_similarity: _cosine,
}


class _Gamma(torch.autograd.Function):
    """A linear map whose gradient, times the input, is what the gamma rule gives it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, y: Tensor, divisor: Tensor, gamma: float) -> Tensor:
        ctx.save_for_backward(x, weight, y, divisor)
        ctx.gamma = gamma
        return y.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        x, weight, y, divisor = ctx.saved_tensors
        share = torch.where(y == 0, 0, gradient * y / torch.where(y == 0, 1, divisor)).to(weight)
        ups, downs = share * (y > 0), share * (y < 0)
        positive, negative = weight.clamp(min=0), weight.clamp(max=0)
        same = torch.where(x > 0, ups @ positive + downs @ negative, ups @ negative + downs @ positive)
        return (share @ weight + ctx.gamma * same).to(x), None, None, None, None


def _by_gamma(gamma: float, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    with torch.no_grad():
        y, weight = F.linear(x, weight, bias), weight.detach()
        up, size = y > 0, F.linear(x.abs(), weight.abs())  # of all products, whose signed sum is y without its bias
        signed = y if bias is None else y - bias
        same = torch.where(up, signed + size, signed - size) / 2
        of_bias = 0 if bias is None else torch.where(up, bias.clamp(min=0), bias.clamp(max=0))
        divisor = y + gamma * (same + of_bias)
    with torch._C.DisableTorchFunction():
        found: Tensor = _Gamma.apply(x, weight, y, divisor, gamma)
    return found


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


def gamma_lrp(game: Game) -> tuple[Tensor, Tensor]:
    """As `cp_lrp`, with the gamma rule in linear maps."""
    return _propagated(game, softmax=False, gamma=GAMMA)


def _propagated(game: Game, *, softmax: bool, gamma: float = 0.0) -> tuple[Tensor, Tensor]:
    parts = [relevance_of_stream(tokens_of(game), rows, softmax=softmax, gamma=gamma) for rows in game.passes(copies=8)]
    return torch.cat([x.sum(-1) for x in parts]), game.whole


def relevance_of_stream(game: TokenGame, rows: Tensor, *, softmax: bool, gamma: float = 0.0) -> Tensor:
    """[row, token, d_model]: the relevance of each number of the embedding."""
    model = game.vit
    expect_plain(model, [""], "relevance propagation", gradients=True)
    reads = game.target.reads if isinstance(game.target, Reading) else ()
    tap = RuleTap(softmax, reads)
    with torch.enable_grad(), FrozenNorms(gamma):
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
