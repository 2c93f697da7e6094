"""The definitions, against slow and obvious sums, and against what other libraries got wrong."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prisma.errors import PrismaError
from prisma.sparse.coders import CoderConfig, drawn, unit
from prisma.sparse.metrics import Sums, dictionary_recovery, legacy_explained_variance, matched, structure


def row_of(x: torch.Tensor, y: torch.Tensor, z: torch.Tensor, sizes: list[int]) -> dict[str, float]:
    sums = Sums(x.shape[-1], z.shape[-1])
    for parts in zip(x.split(sizes), y.split(sizes), z.split(sizes), strict=True):
        sums.add(*parts)
    return sums.row()


@given(st.lists(st.integers(1, 3), min_size=1, max_size=4), st.integers(2, 4), st.integers(0, 99))
def test_numbers_are_their_definitions_however_tokens_are_put_into_batches(sizes: list[int], t: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    n, d, m = sum(sizes), 3, 6
    x = torch.randn(n, t, d, generator=generator) + 5
    y = x + torch.randn(n, t, d, generator=generator)
    z = torch.randn(n, t, m, generator=generator).relu() * (torch.arange(m) < 4)
    found = row_of(x, y, z, sizes)
    rows, guesses, codes = x.flatten(0, 1).double(), y.flatten(0, 1).double(), z.flatten(0, 1).double()
    mean = rows.mean(0)
    on = codes > 0
    wanted = {
        "fvu": sum((a - b).dot(a - b) for a, b in zip(rows, guesses, strict=True))
        / sum((a - mean).dot(a - mean) for a in rows),
        "l0": on.sum() / (n * t),
        "l1": codes.sum() / (n * t),
        "cosine": sum(a.dot(b) / a.norm() / b.norm() for a, b in zip(rows, guesses, strict=True)) / (n * t),
        "length": guesses.square().sum().sqrt() / rows.square().sum().sqrt(),
        "relative_bias": guesses.square().sum(1).mean() / (rows * guesses).sum(1).mean(),
        "dead": (~on.any(0)).sum() / m,
        "dense_10": on.sum(0)[on.double().mean(0) > 0.1].sum() / max(on.sum(), 1),
        "per_image": on.sum() / max((z > 0).any(1).sum(), 1),
    }
    for name, value in wanted.items():
        assert found[name] == pytest.approx(float(value), rel=1e-6), name
    assert found["n_tokens"] == n * t


def test_predicting_the_mean_vector_explains_nothing() -> None:
    """One scalar mean (overcomplete) gives an R2 of .97 to it on data whose dimensions have offsets."""
    x = torch.randn(4, 50, 8) + torch.arange(8) * 10
    y = x.mean((0, 1)).expand_as(x)
    assert row_of(x, y, torch.zeros(4, 50, 3), [4])["fvu"] == pytest.approx(1)
    scalar = 1 - ((x - y).square().sum() / (x - x.mean()).square().sum()).item()
    assert scalar > 0.97


def test_a_constant_error_counts() -> None:
    """The variance of the residual (dictionary_learning) ignores it."""
    x = torch.randn(2, 200, 4)
    assert (x - (x + 3)).var() < 1e-9
    assert row_of(x, x + 3, torch.zeros(2, 200, 3), [2])["fvu"] == pytest.approx(9 / x.var().item(), rel=0.02)


def test_large_tokens_hide_the_rest_in_pooled_numbers_only() -> None:
    x = torch.randn(10, 50, 8)
    x[:, 0] *= 40
    y = x.clone()
    y[:, 1:] *= 0.5
    z = torch.zeros(10, 50, 3)
    assert row_of(x, y, z, [10])["fvu"] < 0.02 and row_of(x[:, 1:], y[:, 1:], z[:, 1:], [10])["fvu"] == pytest.approx(
        0.25, rel=0.05
    )
    assert 1 - legacy_explained_variance(x.flatten(0, 1), y.flatten(0, 1)) > 0.2


def test_equal_tokens_have_no_fvu() -> None:
    with pytest.raises(
        PrismaError, match="expected tokens that differ, to compare errors with their spread; found 6 equal"
    ):
        row_of(torch.ones(2, 3, 4), torch.ones(2, 3, 4), torch.zeros(2, 3, 4), [2])


def test_how_alike_directions_are() -> None:
    coder = drawn(CoderConfig("topk", 4, 6, 2))
    coder.W_dec.data[:4], coder.W_dec.data[4:] = torch.eye(4), torch.eye(4)[:2]
    coder.W_enc.data.copy_(coder.W_dec.T)
    found = structure(coder)
    assert found["decoder_cosine"] == pytest.approx(4 / 6) and found["encoder_decoder"] == pytest.approx(1)
    assert structure(drawn(CoderConfig("topk", 4, 1, 1)))["decoder_cosine"] == 0


def test_planted_directions_are_recovered_up_to_order_and_sign() -> None:
    known = unit(torch.randn(5, 8, generator=torch.Generator().manual_seed(0)))
    order = torch.tensor([3, 0, 4, 2, 1])
    found = dictionary_recovery(torch.cat([-2 * known[order], torch.zeros(2, 8)]), known)
    assert found.mcc == pytest.approx(1) and found.uniqueness == 1
    assert [order[i].item() for i in found.matches] == [0, 1, 2, 3, 4]
    shared = matched(torch.tensor([[0.9, 0.1], [0.8, 0.3], [0.0, 0.2]]))
    assert (
        shared.matches == (0, 1, -1)
        and shared.mcc == pytest.approx(1.2 / 3)
        and shared.uniqueness == pytest.approx(2 / 3)
    )
