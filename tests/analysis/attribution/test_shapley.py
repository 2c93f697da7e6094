"""Shapley values against the mean over all orders, against each other, and against captum."""

import math
from itertools import permutations

import pytest
import torch
from captum.attr import KernelShap, LimeBase, ShapleyValues
from sklearn.linear_model import Ridge
from torch import Tensor

from prisma import Logit, PrismaError
from prisma.analysis.attribution.games import TokenGame
from prisma.analysis.attribution.shapley import (
    RIDGE,
    WIDTH,
    all_coalitions,
    constrained_fit,
    drawn_by_size,
    exact_shapley,
    kernel_shap,
    lime,
    lime_fit,
    payoff_of,
    shapley_sampling,
)
from tests.variants import images_of, model_of

N = 6
TABLE = torch.randn(2**N, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def payoff(present: Tensor) -> Tensor:
    """Any game: a random number for each coalition."""
    return TABLE[(present.long() << torch.arange(N)).sum(1)]


def over_all_orders() -> Tensor:
    total = torch.zeros(N, dtype=torch.float64)
    for order in permutations(range(N)):
        for i, player in enumerate(order):
            before = sum(1 << other for other in order[:i])
            total[player] += TABLE[before + (1 << player)] - TABLE[before]
    return total / math.factorial(N)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_exact_values_are_the_mean_over_all_orders() -> None:
    torch.testing.assert_close(exact_shapley(payoff, N), over_all_orders())
    with pytest.raises(PrismaError, match="at most 12 players for exact Shapley values; found 13"):
        exact_shapley(payoff, 13)


def test_a_regression_on_all_coalitions_is_exact() -> None:
    torch.testing.assert_close(kernel_shap(payoff, N, 2**N, seeded()), exact_shapley(payoff, N))


def test_estimates_near_the_exact_values_and_their_sums_are_exact() -> None:
    exact, change = exact_shapley(payoff, N), TABLE[-1] - TABLE[0]
    for estimate in (kernel_shap, shapley_sampling):
        few, many = (estimate(payoff, N, samples, seeded()) for samples in (20, 40_000))
        torch.testing.assert_close(few.sum(), change)
        torch.testing.assert_close(many.sum(), change)
        if estimate is shapley_sampling:
            assert (many - exact).abs().max() < 0.06 < (few - exact).abs().max()


def test_drawn_coalitions_near_the_exact_values() -> None:
    """Where not all coalitions are run: those that are drawn, with the same fit."""
    drawn = drawn_by_size(N, 40_000, seeded())
    found = constrained_fit(drawn, payoff(drawn), torch.ones(len(drawn)).double(), TABLE[0], TABLE[-1])
    assert (found - exact_shapley(payoff, N)).abs().max() < 0.02
    assert torch.equal(drawn[1::2], ~drawn[::2])
    share = (drawn.sum(1) == 1).double().mean()  # of the weights 1 / (k (n - k)): 1/5, 1/8, 1/9, 1/8, 1/5
    assert abs(share - (1 / 5) / (2 / 5 + 2 / 8 + 1 / 9)) < 0.01


def test_what_each_player_adds_is_found_with_few_runs() -> None:
    worth = torch.randn(30, generator=seeded(1), dtype=torch.float64)

    def additive(present: Tensor) -> Tensor:
        return present.double() @ worth + 5

    for method in (kernel_shap, shapley_sampling):
        torch.testing.assert_close(method(additive, 30, 200, seeded()), worth, rtol=1e-8, atol=1e-8)
    assert torch.corrcoef(torch.stack([lime(additive, 30, 500, seeded()), worth]))[0, 1] > 0.99
    assert kernel_shap(lambda present: present[:, 0] * 2.0, 1, 10, seeded()).tolist() == [2]


def setting() -> tuple[TokenGame, Tensor]:
    model = model_of("base", dtype=torch.float32)
    images = images_of(model, n=1)
    mask = torch.arange(9).view(3, 3).repeat_interleave(2, 0).repeat_interleave(2, 1)[None, None]
    return TokenGame(model, images, torch.zeros_like(images), Logit(2), absent="baseline"), mask


def test_captum_finds_the_same_exact_values() -> None:
    """With segments of three patches each, which are rows of the image."""
    game, mask = setting()
    theirs = ShapleyValues(game.model).attribute(
        game.images, target=2, feature_mask=mask // 3, perturbations_per_eval=6
    )
    rows = torch.arange(9)[None] // 3 == torch.arange(3)[:, None]
    ours = exact_shapley(payoff_of(game, 0, rows), 3)
    torch.testing.assert_close(ours.float(), theirs[0, 0, ::2, 0], rtol=1e-4, atol=1e-5)


def test_captum_fits_the_same_models_to_the_same_coalitions() -> None:
    """KernelSHAP, and LIME with a penalty: its regressions, on the coalitions that we drew."""
    game, mask = setting()
    value = payoff_of(game, 0, torch.eye(9, dtype=torch.bool))
    drawn = drawn_by_size(9, 60, seeded())
    values = value(torch.cat([torch.zeros(1, 9, dtype=torch.bool), torch.ones(1, 9, dtype=torch.bool), drawn]))
    ours = constrained_fit(drawn, values[2:], torch.ones(60).double(), values[0], values[1])
    theirs = _captum(KernelShap(game.model), game, mask, drawn)
    torch.testing.assert_close(ours.float(), theirs, rtol=1e-3, atol=2e-3)
    theirs = _captum_lime(game, mask, drawn)
    torch.testing.assert_close(lime_fit(drawn, values[2:]).float(), theirs, rtol=1e-3, atol=1e-4)


def test_a_coalition_that_comes_again_is_not_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    game, _ = setting()
    drawn = torch.cat([drawn_by_size(9, 10, seeded()), drawn_by_size(9, 10, seeded()), all_coalitions(9)[:3]])
    each = torch.cat([game.of_coalitions(0, coalition[None]) for coalition in drawn]).double()
    asked: list[int] = []
    of_runs = TokenGame.of_runs
    monkeypatch.setattr(
        TokenGame, "of_runs", lambda self, rows, there: (asked.append(len(there)), of_runs(self, rows, there))[1]
    )
    torch.testing.assert_close(payoff_of(game, 0, torch.eye(9, dtype=torch.bool))(drawn).float(), each.float())
    assert asked == [len(drawn.unique(dim=0))] and asked[0] < len(drawn)


def _captum(method: KernelShap, game: TokenGame, mask: Tensor, drawn: Tensor) -> Tensor:
    """Captum's KernelShap with given coalitions; it holds the two ends by a large weight."""
    ends = torch.cat([torch.zeros(1, 9), torch.ones(1, 9)])
    rows = iter(torch.cat([ends, drawn.float()]))
    method.perturb_func = lambda *args, **kwargs: next(rows)[None]  # type: ignore[method-assign]
    similar = iter([1e6, 1e6] + [1.0] * len(drawn))
    method.similarity_func = lambda *args, **kwargs: torch.tensor([next(similar)])
    found = LimeBase.attribute(
        method, game.images, target=2, feature_mask=mask, n_samples=len(drawn) + 2, num_interp_features=9,
        baselines=0, show_progress=False,
    )  # fmt: skip
    return found.flatten()


class _Ridge(torch.nn.Module):
    """scikit-learn's ridge regression, as captum wants a model."""

    def fit(self, loader: object) -> None:
        x, y, w = next(iter(loader))  # type: ignore[call-overload]
        self.inner = Ridge(alpha=RIDGE).fit(x, y.flatten(), sample_weight=w.flatten())

    def representation(self) -> Tensor:
        return torch.from_numpy(self.inner.coef_).float()[None]


def _captum_lime(game: TokenGame, mask: Tensor, drawn: Tensor) -> Tensor:
    rows = iter(drawn.float())
    lime_kernel = [torch.exp(-((1 - row.float().mean().sqrt()) ** 2) / WIDTH**2) for row in drawn]
    weights = iter(lime_kernel)

    def to_input(row: Tensor, image: Tensor, **kwargs: object) -> Tensor:
        return image * row[0][mask].float()

    method = LimeBase(
        game.model, _Ridge(), lambda *args, **kwargs: next(weights), lambda *args, **kwargs: next(rows)[None], True,
        to_input, None,
    )  # fmt: skip
    found = method.attribute(game.images, target=2, n_samples=len(drawn), show_progress=False)
    return found.flatten()


@pytest.mark.parametrize("samples", [2, 3, 4, 9, 40])
def test_of_too_few_coalitions_the_nearest_to_equal_shares_is_taken(samples: int) -> None:
    """Against least squares under a constraint, with a penalty of the differences that goes to zero."""
    worth = torch.tensor([3.0, -1.0, 0.5, 0.0, 2.0, 1.0, 4.0], dtype=torch.float64)

    def payoff(present: Tensor) -> Tensor:
        return present.double() @ worth + present[:, 0] * present[:, 1]

    found = kernel_shap(payoff, 7, samples, seeded())
    z = drawn_by_size(7, samples - 2, seeded()).double()
    whole = payoff(torch.ones(1, 7, dtype=torch.bool))[0]
    penalty, one = 1e-7 * torch.eye(7).double(), torch.ones(7).double()
    left = torch.zeros(8, 8).double()
    left[:7, :7], left[:7, 7], left[7, :7] = z.T @ z + penalty, one, one
    expected = torch.linalg.solve(left, torch.cat([z.T @ payoff(z.bool()) + 1e-7 * whole / 7, whole[None]]))[:7]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.sum(), whole)


def test_all_coalitions_are_the_digits_of_their_row() -> None:
    assert all_coalitions(2).tolist() == [[False, False], [True, False], [False, True], [True, True]]
