"""Maps from runs without some patches: occlusion and RISE.

Sources: Zeiler and Fergus 1311.2901 (occlusion); Petsiuk et al. 1806.07421 (RISE). Instead of a grey fill, patches may
be left out of the sequence (`prisma.analysis.attribution.games`).

Shapes: K coalition, P patch, S player (a patch, or a segment of several).
"""

from math import ceil

import torch
from torch import Tensor

from prisma.analysis.attribution.games import Game

SHARE = 0.5
"""The share of the players that are present in each run of RISE."""


def occlusion(game: Game, image: int, members_SP: Tensor) -> Tensor:
    """[player]: how much the target falls when this player alone is absent. One run for each player, and one more."""
    present = torch.cat([torch.ones_like(members_SP[:1]), ~members_SP])
    values = game.of_coalitions(image, present)
    return values[0] - values[1:]


def rise(game: Game, image: int, members_SP: Tensor, samples: int, generator: torch.Generator) -> Tensor:
    """[player]: the mean of the target over the random runs in which this player is present.

    In each run, half of the players are present. Only differences between players have a meaning.
    """
    present_KS = halves(len(members_SP), samples, generator).to(members_SP.device)
    values_K = game.of_coalitions(image, (present_KS.double() @ members_SP.double()) > 0)
    weights_KS = present_KS.to(values_K)
    return (values_K @ weights_KS) / weights_KS.sum(0)


def halves(players: int, samples: int, generator: torch.Generator) -> Tensor:
    """Random coalitions [sample, player] of half of the players; every second has all that the one before lacks.

    So each player is in one of two at least. All are of the same size, which for an odd number is the larger half.
    """
    size = ceil(players * SHARE)
    draws = (samples + 1) // 2
    ranks = torch.rand(draws, players, generator=generator).argsort(1).argsort(1)
    both = torch.stack([ranks < size, ranks >= players - size], dim=1)
    return both.flatten(0, 1)[:samples]
