"""Sparse operations, against dense ones."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prisma.sparse import kernels
from prisma.sparse.kernels import Entries, Matrix, Places, encoded, keep_largest, top_threshold


def test_the_k_largest_are_kept_in_their_places() -> None:
    p = torch.tensor([[1.0, -5.0, 3.0], [2.0, 0.5, 0.1]])
    assert keep_largest(p, 2, p).tolist() == [[1, 0, 3], [2, 0.5, 0]]
    assert keep_largest(p, 1, p.abs()).tolist() == [[0, -5, 0], [2, 0, 0]]


@given(st.integers(1, 6), st.integers(2, 9), st.integers(1, 9), st.integers(0, 99), st.booleans())
def test_a_threshold_keeps_as_many_as_sorting_does(n: int, m: int, k: int, seed: int, half: bool) -> None:
    p = torch.randn(n, m, generator=torch.Generator().manual_seed(seed))
    p = p.half() if half else p
    theta = top_threshold(p, min(k, m))
    wanted = [x for x in p.flatten().sort(descending=True).values[: n * k].tolist() if x > 0]
    assert sorted(p[p > theta].tolist(), reverse=True) == pytest.approx(wanted) or half  # in float16 some are equal
    assert theta >= 0 and (p > theta).sum() <= n * k


@given(st.lists(st.lists(st.integers(0, 6), max_size=4, unique=True), min_size=1, max_size=5), st.integers(0, 99))
def test_products_with_entries_are_products_with_the_matrix(rows: list[list[int]], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    columns = torch.tensor([j for row in rows for j in row], dtype=torch.long)
    values = torch.randn(len(columns), dtype=torch.float64, generator=generator)
    offsets = torch.tensor([0, *torch.tensor([len(row) for row in rows]).cumsum(0).tolist()])
    at = Places(columns, torch.tensor([i for i, row in enumerate(rows) for _ in row], dtype=torch.long), offsets, 7)
    entries, weight = Entries(values, at), torch.randn(7, 3, dtype=torch.float64, generator=generator)
    dense = torch.zeros(len(rows), 7, dtype=torch.float64).index_put((at.rows, columns), values)
    assert torch.allclose(entries.times(weight), dense @ weight)
    assert torch.equal(Entries.of(dense).places.offsets, offsets) and torch.equal(entries.active, (dense != 0).any(0))
    some = dense.clone()
    some[:, :2] = some[:, 5:] = 0
    assert torch.allclose(entries.between(2, 5).times(weight), some @ weight)
    assert torch.allclose(Matrix(dense).between(2, 5).times(weight), some @ weight)
    assert torch.allclose(kernels._transposed_times(values, at, torch.eye(len(rows)).double()), dense.T)


@pytest.mark.parametrize("above", [0, 10**9], ids=["sparse", "dense"])
@pytest.mark.parametrize("kind", ["topk", "abstopk", "groupmax", "batchtopk"])
def test_gradients_are_those_of_autograd(kind: str, above: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "SPARSE_ABOVE", above)
    generator = torch.Generator().manual_seed(0)
    x, shift, w, b = (
        torch.randn(s, dtype=torch.float64, generator=generator).requires_grad_()
        for s in ((9, 4), (4,), (4, 12), (12,))
    )
    out = torch.randn(12, 5, dtype=torch.float64, generator=generator)
    entries = encoded(x, shift, w, b, 3, kind)
    found = torch.autograd.grad(entries.times(out).square().sum(), (x, shift, w, b))
    p, at = (x - shift) @ w + b, entries.places
    kept = torch.zeros_like(p).index_put((at.rows, at.columns), torch.ones_like(entries.values)).bool()
    z = (p if kind == "abstopk" else p.relu()) * kept
    wanted = torch.autograd.grad((z @ out).square().sum(), (x, shift, w, b))
    assert all(torch.allclose(a, c, atol=1e-10) for a, c in zip(found, wanted, strict=True))


def test_what_is_done_depends_on_the_tensor_and_not_on_what_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sparsify's decoder fails on a CPU where triton is installed."""
    monkeypatch.setitem(__import__("sys").modules, "triton", type("triton", (), {})())
    entries = encoded(torch.eye(3), None, torch.eye(3), torch.zeros(3), 1, "topk")
    assert torch.equal(entries.times(torch.eye(3)), torch.eye(3))
