"""Shapley values: how much each patch adds to the target, averaged over all orders in which the patches may come.

    value_i = sum over S without i of |S|! (n - |S| - 1)! / n! (target(S + i) - target(S))

They are the only division of target(all) - target(none) that gives equals the same, gives nothing to what changes
nothing, and adds up over targets. Exact for few players; for many, by random orders, or by a weighted regression on
random coalitions (KernelSHAP). LIME is such a regression with other weights, which does not divide anything exactly.

Sources: Shapley 1953; Castro et al. 2009 (random orders); Lundberg and Lee 1705.07874 (KernelSHAP); Covert and Lee
2012.01536 (pairs of complements); Ribeiro et al. 1602.04938 (LIME).

Shapes: K coalition, S player, P patch.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from prisma.analysis.attribution.games import Game
from prisma.errors import PrismaError

Payoff = Callable[[Tensor], Tensor]
"""Which players are present [coalition, player] (boolean) -> the target [coalition]."""
MOST_EXACT = 12
"""Players up to which all coalitions are run."""
WIDTH = 0.25
"""The width of LIME's kernel, of the distance 1 - sqrt(share of the players that are present)."""
OPEN = 1e-10
"""Directions whose share of the largest eigenvalue is below this are ones that no coalition tells apart."""
RIDGE = 1.0
"""LIME's penalty of squared weights; as in its authors' code for images."""


def payoff_of(game: Game, image: int, members_SP: Tensor) -> Payoff:
    """The payoff of one image whose players are sets of patches. A coalition that comes several times is run once.

    Random ones do: of 2,048 for 196 patches, one in six has all patches but one, or one alone.
    """

    def payoff(present_KS: Tensor) -> Tensor:
        distinct_KS, place = present_KS.unique(dim=0, return_inverse=True)
        there_KP = (distinct_KS.to(members_SP.device).double() @ members_SP.double()) > 0
        return game.of_coalitions(image, there_KP).double()[place.to(members_SP.device)]

    return payoff


def all_coalitions(players: int) -> Tensor:
    """[2 ** player, player], boolean: row i has the players of the binary digits of i."""
    return (torch.arange(2**players)[:, None] >> torch.arange(players)) % 2 == 1


def exact_shapley(payoff: Payoff, players: int) -> Tensor:
    """[player], by the definition. Raises PrismaError: more players than `MOST_EXACT`."""
    if players > MOST_EXACT:
        raise PrismaError(
            f"expected at most {MOST_EXACT} players for exact Shapley values; found {players}: give segments, or use "
            "kernel_shap"
        )
    present_KS = all_coalitions(players)
    values_K, sizes_K = payoff(present_KS).cpu(), present_KS.sum(1)
    found = []
    for player in range(players):
        without = (~present_KS[:, player]).nonzero()[:, 0]
        shares = [1 / (players * math.comb(players - 1, k)) for k in sizes_K[without].tolist()]
        weights = torch.tensor(shares, dtype=torch.float64)
        found.append((weights * (values_K[without + 2**player] - values_K[without])).sum())
    return torch.stack(found)


def shapley_sampling(payoff: Payoff, players: int, samples: int, generator: torch.Generator) -> Tensor:
    """[player], the mean over random orders, each of them once forwards and once backwards: at most `samples` runs.

    The sum is exact for every order, whatever their number.
    """
    orders = max((samples - 2) // max(2 * (players - 1), 1), 1)
    drawn = torch.stack([torch.randperm(players, generator=generator) for _ in range(orders)])
    drawn = torch.stack([drawn, drawn.flip(1)], dim=1).flatten(0, 1)
    ends = payoff(torch.tensor([[False] * players, [True] * players]))
    place = drawn.argsort(1)  # [order, player]: when each comes
    inner = torch.arange(1, players)[:, None] > place[:, None]  # [order, 1 .. n - 1, player]
    middle = payoff(inner.flatten(0, 1)).view(len(drawn), -1) if players > 1 else ends.new_empty(len(drawn), 0)
    values = torch.cat([ends[0].expand(len(drawn), 1), middle, ends[1].expand(len(drawn), 1)], dim=1)
    return values.diff(dim=1).gather(1, place.to(values.device)).mean(0)


def kernel_shap(payoff: Payoff, players: int, samples: int, generator: torch.Generator) -> Tensor:
    """[player], by the regression whose solution are the Shapley values if every coalition is run.

    All coalitions are run where `samples` allows; otherwise coalitions and their complements are drawn by the weights.
    The sum is exact: the two runs with all and no players are constraints.
    """
    if players == 1:
        return payoff(torch.tensor([[False], [True]])).diff()
    if 2**players <= samples:
        present_KS = all_coalitions(players)[1:-1]
        sizes = present_KS.sum(1).tolist()
        weights_K = torch.tensor([1 / (math.comb(players, k) * k * (players - k)) for k in sizes], dtype=torch.float64)
    else:
        present_KS = drawn_by_size(players, samples - 2, generator)
        weights_K = torch.ones(len(present_KS), dtype=torch.float64)
    ends = torch.tensor([[False] * players, [True] * players])
    values = payoff(torch.cat([ends, present_KS])).cpu()
    return constrained_fit(present_KS, values[2:], weights_K, values[0], values[1])


def drawn_by_size(players: int, samples: int, generator: torch.Generator) -> Tensor:
    """Coalitions [sample, player] whose sizes are drawn by the Shapley kernel; each with its complement."""
    sizes = torch.arange(1, players, dtype=torch.float64)
    pairs = (samples + 1) // 2
    drawn = 1 + torch.multinomial(1 / (sizes * (players - sizes)), max(pairs, 1), True, generator=generator)[:pairs]
    ranks = torch.rand(len(drawn), players, generator=generator).argsort(1).argsort(1)
    one = ranks < drawn[:, None]
    return torch.stack([one, ~one], dim=1).flatten(0, 1)[:samples]


def constrained_fit(present_KS: Tensor, values_K: Tensor, weights_K: Tensor, empty: Tensor, whole: Tensor) -> Tensor:
    """The linear game [player] nearest to these values whose ends are exact: equal shares, and differences from them.

    Differences are fitted by least squares among those that add up to zero. Few coalitions leave directions open; there
    players stay equal.
    """
    z = present_KS.double()
    equal = (whole - empty) / z.shape[1]
    centred = z - z.mean(1, keepdim=True)
    left, right = ((centred.T * weights_K) @ x for x in (centred, values_K - empty - equal * z.sum(1)))
    return equal + torch.linalg.pinv(left, rtol=OPEN, hermitian=True) @ right


def lime(payoff: Payoff, players: int, samples: int, generator: torch.Generator) -> Tensor:
    """[player]: the weights of a linear model of the target near the whole image. A player is in half of the runs."""
    drawn = torch.rand(samples, players, generator=generator) < 0.5
    drawn[0] = True
    return lime_fit(drawn, payoff(drawn).cpu())


def lime_fit(present_KS: Tensor, values_K: Tensor) -> Tensor:
    """Ridge regression with an intercept, weighted by LIME's kernel."""
    z = present_KS.double()
    weights_K = torch.exp(-((1 - z.mean(1).sqrt()) ** 2) / WIDTH**2)
    share_K = weights_K / weights_K.sum()
    centred, target = z - share_K @ z, values_K - share_K @ values_K
    left = (centred.T * weights_K) @ centred + RIDGE * torch.eye(z.shape[1], dtype=z.dtype)
    return torch.linalg.solve(left, (centred.T * weights_K) @ target)
