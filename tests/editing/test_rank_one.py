"""The closed form against a slow twin: the same least squares with its constraints, solved as one linear system."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from prisma.editing.rank_one import Covariance, SecondMoment, least_change
from prisma.errors import PrismaError


def moment(keys: Tensor, of: str = "keys", source: str = "s") -> Covariance:
    sums = SecondMoment(of, source)
    for batch in keys.split(7):
        sums.add(batch)
    return sums.covariance()


def by_kkt(K: Tensor, R: Tensor, C: Tensor) -> Tensor:
    """min tr(D C D^T) with D K^T = R^T: the conditions of Karush, Kuhn and Tucker of each row of D, as they stand."""
    n, d = K.shape
    system = torch.cat([torch.cat([2 * C, K.T], 1), torch.cat([K, torch.zeros(n, n, dtype=K.dtype)], 1)])
    right = torch.cat([torch.zeros(d, R.shape[1], dtype=K.dtype), R])
    return torch.linalg.solve(system, right)[:d].T


def by_rows(K: Tensor, R: Tensor, C: Tensor, old: float) -> Tensor:
    """min sum ||D k - r||^2 + old tr(D C D^T), as ordinary least squares of stacked rows."""
    values, vectors = torch.linalg.eigh(C)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    rows, wanted = torch.cat([K, old**0.5 * root]), torch.cat([R, torch.zeros(len(C), R.shape[1], dtype=K.dtype)])
    return torch.linalg.lstsq(rows, wanted).solution.T


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(1, 6), st.integers(1, 4), st.sampled_from([0.0, 0.1, 30.0]), st.integers(0, 99))
def test_least_change_is_what_the_slow_twins_find(d: int, out: int, n: int, old: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    n = min(n, d)
    draw = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    K, R, C = draw(n, d), draw(n, out), moment(draw(5, d))  # fewer keys than numbers: only the ridge makes it regular
    ridge = 0.05
    full = C.matrix + ridge * C.matrix.diagonal().mean() * torch.eye(d, dtype=torch.float64)
    u, v = least_change(K, R, C, ridge=ridge, old=old)
    twin = by_rows(K, R, full, old) if old else by_kkt(K, R, full)
    assert torch.allclose(v @ u.T, twin, rtol=1e-6, atol=1e-6 * float(twin.abs().max()))
    if not old:
        assert torch.allclose(K @ (v @ u.T).T, R, atol=1e-7)


def test_one_key_is_romes_formula_and_leaves_orthogonal_old_keys_alone() -> None:
    old = torch.eye(4, dtype=torch.float64)[:3].repeat(2, 1) * torch.tensor([1.0, 2.0, 3.0]).repeat(2).double()[:, None]
    C = moment(old)
    k, r = torch.tensor([[0.0, 1.0, 0.0, 2.0]]).double(), torch.tensor([[1.0, -1.0]]).double()
    u, v = least_change(k, r, C, ridge=1e-6)
    inverse = torch.linalg.inv(C.matrix + 1e-6 * C.matrix.diagonal().mean() * torch.eye(4, dtype=torch.float64))
    direct = r.T @ (inverse @ k.T).T / (k @ inverse @ k.T)
    assert torch.allclose(v @ u.T, direct, rtol=1e-6)
    assert (old @ u @ v.T).abs().max() < 1e-5  # the fourth number, which no old key has, carries all of the change
    assert torch.allclose(k @ u @ v.T, r)


def test_covariance_is_the_mean_of_products_in_float64(tmp_path) -> None:
    keys = torch.randn(3, 50, 6, generator=torch.Generator().manual_seed(0))
    sums = SecondMoment("blocks.1.mlp.post at class", "abc")
    sums.add(keys[:2])
    sums.add(keys[2])
    found = sums.covariance()
    rows = keys.flatten(0, 1).double()
    assert torch.allclose(found.matrix, torch.einsum("ni,nj->ij", rows, rows) / 150, rtol=1e-12)
    assert (found.n, found.matrix.dtype) == (150, torch.float64)
    found.write(tmp_path / "c.safetensors")
    again = Covariance.read(tmp_path / "c.safetensors")
    assert torch.equal(again.matrix, found.matrix)
    assert (again.n, again.of, again.source) == (found.n, found.of, found.source)


def test_a_covariance_of_other_keys_is_refused(tmp_path) -> None:
    C = moment(torch.eye(3), "a", "0123456789abcdef")
    C.expect_of("a", "0123456789abcdef", 3)
    with pytest.raises(PrismaError, match=r"expected a covariance of keys of 4 numbers; found one of 3"):
        C.expect_of("a", "0123456789abcdef", 4)
    with pytest.raises(PrismaError, match="hash ffff; found one of 0123456789ab: compute it again"):
        C.expect_of("a", "ffff", 3)
    with pytest.raises(PrismaError, match="expected a covariance of b; found one of a"):
        C.expect_of("b", "0123456789abcdef", 3)
    C.write(tmp_path / "c")
    (tmp_path / "c").write_bytes((tmp_path / "c").read_bytes()[:-3])
    with pytest.raises(PrismaError, match="truncated"):
        Covariance.read(tmp_path / "c")
    with pytest.raises(PrismaError, match="found none"):
        SecondMoment("a", "b").covariance()


def test_what_has_no_answer_is_refused() -> None:
    C = moment(torch.randn(20, 4, generator=torch.Generator().manual_seed(0)))
    k, r = torch.ones(1, 4), torch.ones(1, 2)
    with pytest.raises(PrismaError, match="expected keys that do not depend on each other; found 2 that do"):
        least_change(k.repeat(2, 1), r.repeat(2, 1), C)
    assert least_change(k.repeat(2, 1), r.repeat(2, 1), C, old=0.1)[0].shape == (4, 2)
    with pytest.raises(PrismaError, match="a key that is all 0"):
        least_change(0 * k, r, C)
    with pytest.raises(PrismaError, match=r"expected keys \[key, 4\].*found \[1, 3\]"):
        least_change(k[:, :3], r, C)
    with pytest.raises(PrismaError, match="finite numbers in the changes"):
        least_change(k, r * torch.nan, C)
    with pytest.raises(PrismaError, match="found a singular one, of 2 keys of 4 numbers: use a ridge larger than 0"):
        least_change(k, r, moment(torch.eye(4)[:2]), ridge=0)
    with pytest.raises(PrismaError, match="expected ridge and old of at least 0"):
        least_change(k, r, C, old=-1)
