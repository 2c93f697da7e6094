"""The small parts of a block: norms, layer scale, and the MLP.

Shapes: B batch, T token, M d_model, N d_mlp.

Sources: Touvron et al. 2103.17239 (layer scale); Shazeer 2002.05202 (gated MLP); Shleifer et al. 2110.09456
(sub-norms).
"""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prisma.config import TransformerConfig
from prisma.plain import expect_plain
from prisma.sites import AnyTap, no_tap

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "relu": F.relu,
    "silu": F.silu,
}


def make_norm(config: TransformerConfig, width: int, eps: float | None = None) -> nn.Module:
    """A norm of the kind that this architecture uses, over the last `width` numbers."""
    kind = nn.LayerNorm if config.norm_kind == "layer" else nn.RMSNorm
    return kind(width, eps=config.norm_eps if eps is None else eps)


def gain(norm: nn.LayerNorm | nn.RMSNorm) -> Tensor:
    """The factors of a norm [width], or one factor of 1 where it has none."""
    return torch.ones(1) if norm.weight is None else norm.weight


def epsilon(norm: nn.LayerNorm | nn.RMSNorm, x: Tensor) -> float:
    """What a norm of `x` adds to the mean square."""
    return torch.finfo(x.dtype).eps if norm.eps is None else norm.eps


class LayerScale(nn.Module):
    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((d_model,), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


class MLP(nn.Module):
    def __init__(self, config: TransformerConfig, d_mlp: int) -> None:
        super().__init__()
        self.pre = nn.Linear(config.d_model, d_mlp)
        self.pre_linear = nn.Linear(config.d_model, d_mlp) if config.gated_mlp else None
        self.activation = config.activation
        self.ln = make_norm(config, d_mlp) if config.norm_post else None
        self.out = nn.Linear(d_mlp, config.d_model)

    def forward(self, x_BTM: Tensor, tap: AnyTap) -> Tensor:
        return self.write(self.neurons(x_BTM, tap), tap)

    def neurons(self, x_BTM: Tensor, tap: AnyTap = no_tap) -> Tensor:
        """The activation of every neuron [batch, token, d_mlp]."""
        post_BTN = ACTIVATIONS[self.activation](tap("pre", self.pre(x_BTM)))
        if self.pre_linear is not None:
            post_BTN = post_BTN * tap("pre_linear", self.pre_linear(x_BTM))
        return tap("post", post_BTN)

    @property
    def W_in(self) -> Tensor:
        """[d_model, d_mlp], a view; of a gated MLP, its linear branch."""
        expect_plain(self, ["pre", "pre_linear"], "W_in")
        return (self.pre if self.pre_linear is None else self.pre_linear).weight.mT

    @property
    def W_out(self) -> Tensor:
        """[d_mlp, d_model], a view."""
        expect_plain(self, ["out"], "W_out")
        return self.out.weight.mT

    def write(self, post_BTN: Tensor, tap: AnyTap = no_tap) -> Tensor:
        """The activation of every neuron -> the sum of what they write [batch, token, d_model], bias included."""
        if self.ln is not None:
            post_BTN = tap("ln.normalized", self.ln(post_BTN))
        return self.out(post_BTN)
