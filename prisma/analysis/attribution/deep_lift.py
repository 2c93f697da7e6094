"""DeepLift: differences from a baseline, passed back through a rule for each nonlinearity, by captum.

Captum has rules for modules such as ReLU, Sigmoid and Tanh. What it has no rule for, it passes back as a gradient,
without saying so: in a vision transformer GELU, LayerNorm and the products of attention. (Its rule for MaxPool is not
exact where values tie, as after a ReLU.) So the map is held against what it must add up to, and a network on which it
does not is refused with the measured error.

Source: Shrikumar et al. 1704.02685.
"""

import warnings

import torch
from torch import Tensor, nn

from prisma.analysis.attribution.games import Game
from prisma.analysis.readings import Reading
from prisma.errors import PrismaError, expect_packages

MOST = 0.01
"""The largest completeness error, as a share of the change of the target, of a network whose rules are known."""


class _Measured(nn.Module):
    """A network followed by a metric, as captum wants it; half of its rows are baselines."""

    def __init__(self, game: Game, rows: Tensor) -> None:
        super().__init__()
        self.network, self.game, self.rows = game.model, game, rows

    def forward(self, pixels: Tensor) -> Tensor:
        return self.game.of_pixels(pixels, self.rows.repeat(len(pixels) // len(self.rows)))


def deep_lift(game: Game) -> tuple[Tensor, Tensor]:
    """The map [image, token], and the change [image] that it divides.

    Raises:
        PrismaError: captum is not installed; or the map does not add up, because the network computes something that
            has no rule.
    """
    expect_packages("captum", extra="attribution")
    from captum.attr import DeepLift

    if isinstance(game.target, Reading):
        raise PrismaError("expected a metric of the logits for DeepLift; found a number inside the model")
    parts = []
    for rows in game.passes(copies=8):
        with torch.enable_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of hooks and of gradients that captum asks for
            pixels = game.images[rows].detach().clone().requires_grad_()
            found = DeepLift(_Measured(game, rows)).attribute(pixels, game.baseline[rows].detach())
        parts.append(game.by_token(found.detach()))
    map_BT, change = torch.cat(parts), game.whole - game.empty
    off = (map_BT.double().sum(1) - change).abs()
    if bool((off > MOST * change.abs().clamp(min=map_BT.abs().sum(1) * 1e-3)).any()):
        worst = int((off / change.abs()).argmax())
        raise PrismaError(
            f"expected a network of which every operation has a rule of DeepLift; found a {type(game.model).__name__} "
            f"whose map adds up to {map_BT[worst].sum():.3g} where the target changes by {change[worst]:.3g} (image "
            f"{worst}): an error of {off[worst] / change[worst].abs():.2g} times the change; use integrated_gradients"
        )
    return map_BT, change
