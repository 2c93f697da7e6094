"""The methods of attribution by name, and how each is run on a game. To add one, add an entry to `METHODS`.

Shapes: B image, T token, P patch, S player.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from prisma.analysis.attention.relevance import relevance
from prisma.analysis.attribution.deep_lift import deep_lift
from prisma.analysis.attribution.games import Game
from prisma.analysis.attribution.importance import importance
from prisma.analysis.attribution.lrp import attn_lrp, cp_lrp, gamma_lrp, tokens_of
from prisma.analysis.attribution.path_methods import gradient_shap, integrated_gradients
from prisma.analysis.attribution.removal_methods import occlusion, rise
from prisma.analysis.attribution.shapley import exact_shapley, kernel_shap, lime, payoff_of, shapley_sampling
from prisma.analysis.attribution.transformer_attribution import transformer_attribution
from prisma.analysis.readings import Reading
from prisma.errors import PrismaError, nearest, quoted
from prisma.metrics import Logit


@dataclass(frozen=True)
class Plan:
    """What a method is told: how many runs, which players, the seed, and the baselines that were given."""

    samples: int
    members: Sequence[Tensor]  # of each image: [player, patch], boolean
    seed: int
    baselines: Tensor | None
    tolerance: float | None = None  # to which a map is refined, where the number of samples was not given


Divided = tuple[Tensor, Tensor | None]
"""A map [image, token], and what it divides [image], or None."""


@dataclass(frozen=True)
class Method:
    """A method of attribution."""

    summary: str
    samples: int  # by default: runs per image; 0 where the method decides itself
    run: Callable[[Any, Plan], Divided]
    tolerated: bool = True  # whether its completeness error is held against the tolerance
    removes: bool = False  # whether patches are made absent, so that `absent` and `segments` count
    begins: bool = False  # whether it goes from a baseline to the image


def _by_player(of_image: Callable[..., Tensor], game: Game, plan: Plan, *, divides: bool) -> Divided:
    """The map of a method of one image's players; a segment's value is divided equally among its patches."""
    maps = []
    for image, members_SP in enumerate(plan.members):
        values_S = of_image(game, image, members_SP, plan, torch.Generator().manual_seed(plan.seed + image))
        share_SP = members_SP.double() / members_SP.sum(1, keepdim=True)
        of_patches = values_S.to(share_SP) @ share_SP
        maps.append(torch.cat([of_patches.new_zeros(game.n_prefix), of_patches]))
    return torch.stack(maps), game_change(game) if divides else None


def game_change(game: Game) -> Tensor:
    """[image]: the target of the whole image minus that of none of its patches."""
    ends = torch.tensor([[True], [False]], device=game.images.device).expand(2, game.n_patches)
    values = [game.of_coalitions(image, ends) for image in range(len(game.images))]
    return torch.stack([whole - empty for whole, empty in values])


def _players(
    function: Callable[..., Tensor], *, divides: bool, sampled: bool = True
) -> Callable[[Game, Plan], Divided]:
    """A method of the payoff of players."""

    def of_image(game: Game, image: int, members_SP: Tensor, plan: Plan, generator: torch.Generator) -> Tensor:
        options = (plan.samples, generator) if sampled else ()
        return function(payoff_of(game, image, members_SP), len(members_SP), *options)

    return partial(_by_player, of_image, divides=divides)


def _occlusion(game: Game, image: int, members_SP: Tensor, plan: Plan, generator: torch.Generator) -> Tensor:
    return occlusion(game, image, members_SP)


def _rise(game: Game, image: int, members_SP: Tensor, plan: Plan, generator: torch.Generator) -> Tensor:
    return rise(game, image, members_SP, plan.samples, generator)


def _relevance(game: Game, plan: Plan) -> Divided:
    tokens = tokens_of(game)
    if isinstance(game.target, Reading):
        raise PrismaError("expected a metric of the logits for this method; found a number inside the model")
    return relevance(tokens.vit, game.images, game.target, batch=game.batch).readout, None


def _importance(game: Game, plan: Plan) -> Divided:
    tokens = tokens_of(game)
    if not isinstance(game.target, Logit):
        raise PrismaError(f"expected the logit of a class for importance; found {game.target!r}")
    return importance(tokens.vit, game.images, game.target.target, batch=game.batch).summed, None


METHODS: Mapping[str, Method] = {
    "integrated_gradients": Method(
        "gradients on the straight path from the baseline",
        32,
        lambda game, plan: integrated_gradients(game, plan.samples, plan.tolerance),
        begins=True,
    ),
    "gradient_shap": Method(
        "gradients at random points between baselines and the image",
        64,
        lambda game, plan: gradient_shap(game, plan.samples, plan.seed, plan.baselines),
        tolerated=False,
        begins=True,
    ),
    "occlusion": Method(
        "the fall of the target without each patch", 0, partial(_by_player, _occlusion, divides=False), removes=True
    ),
    "rise": Method(
        "the mean of the target over random runs with each patch",
        2048,
        partial(_by_player, _rise, divides=False),
        removes=True,
    ),
    "exact_shapley": Method(
        "Shapley values by their definition", 0, _players(exact_shapley, divides=True, sampled=False), removes=True
    ),
    "shapley_sampling": Method(
        "Shapley values from random orders", 2048, _players(shapley_sampling, divides=True), removes=True
    ),
    "kernel_shap": Method(
        "Shapley values from a regression on random coalitions", 2048, _players(kernel_shap, divides=True), removes=True
    ),
    "lime": Method("a linear model of the target near the image", 1024, _players(lime, divides=False), removes=True),
    "attn_lrp": Method(
        "relevance propagation, also through patterns",
        0,
        lambda game, plan: attn_lrp(game),
        tolerated=False,
    ),
    "cp_lrp": Method(
        "relevance propagation, with patterns held constant",
        0,
        lambda game, plan: cp_lrp(game),
        tolerated=False,
    ),
    "gamma_lrp": Method(
        "relevance propagation that favours what has the sign of each output, with patterns held constant",
        0,
        lambda game, plan: gamma_lrp(game),
        tolerated=False,
    ),
    "relevance": Method("attention weighted by its gradient, rolled out", 0, _relevance, tolerated=False),
    "transformer_attribution": Method(
        "attention weighted by its gradient and its relevance, rolled out",
        0,
        lambda game, plan: transformer_attribution(game),
        tolerated=False,
    ),
    "importance": Method("gradient at the class token's attention, in every block", 0, _importance, tolerated=False),
    "deep_lift": Method(
        "differences from the baseline by captum's rules", 0, lambda game, plan: deep_lift(game), begins=True
    ),
}
"""Name -> method."""


def method_named(name: str) -> Method:
    """Raises PrismaError: there is no such method; the nearest are given."""
    if not isinstance(name, str) or name not in METHODS:
        raise PrismaError(
            f"expected a method of attribution; found {quoted(str(name))}; the nearest: {nearest(str(name), METHODS)}"
        )
    return METHODS[name]
