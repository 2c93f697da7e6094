"""Sparse coders on a GPU: what the CPU computes, and training there. Deselected by default; `make gpu` runs these."""

from functools import cache
from pathlib import Path

import pytest
import torch

import prisma
from prisma.sparse.coders import COUNTED, KINDS, CoderConfig
from prisma.sparse.evaluation import evaluate
from prisma.sparse.gpu_kernels import batch_threshold, entry_dots, places_above, segment_sums, top_columns
from prisma.sparse.learner import Learner, Plan
from prisma.sparse.losses import Loss
from prisma.sparse.splicing import Splice
from prisma.sparse.training import train
from tests.sparse.test_coders import random_coder
from tests.sparse.test_training import same, stopped_before
from tests.variants import images_of, model_of

pytestmark = pytest.mark.gpu
SITE = "blocks.0.resid_post"
QUICK = {"site": SITE, "width": 24, "k": 4, "steps": 24, "batch": 64}
SIZES = [(kind, 24) for kind in KINDS] + [(kind, 640) for kind in COUNTED]  # as matrices, and as lists


@cache
def tokens(n: int = 64 * 12, d: int = 16) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(0)).cuda()


def learner(kind: str, width: int, device: str = "cuda", steps: int = 12) -> Learner:
    prefixes = (width // 3, width) if kind == "matryoshka" else ()
    plan = Plan(CoderConfig(kind, 16, width, 4, prefixes=prefixes), 1, 4e-3, None, 64 * 8)
    return Learner(plan, steps, torch.device(device))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("n", "m", "k"), [(5, 7, 3), (300, 1000, 16), (64, 20_000, 32)])
def test_kernels_compute_what_torch_does(n: int, m: int, k: int, dtype: torch.dtype) -> None:
    p = torch.randn(n, m, generator=torch.Generator().manual_seed(0)).to(dtype).cuda()
    for by_size, size in ((False, p), (True, p.abs())):
        columns = top_columns(p, k, by_size)
        assert (columns.diff(dim=1) > 0).all()
        assert torch.equal(size.gather(1, columns).sort(dim=1).values, size.topk(k).values.sort(dim=1).values)
    for kept in (1, n * k, n * m - 1):
        theta = batch_threshold(p, kept)
        assert theta == p.flatten().sort(descending=True).values[kept].clamp_min(0)
        columns, rows, offsets = places_above(p, theta, kept)
        on = int(offsets[-1])
        assert torch.equal(torch.stack([rows[:on], columns[:on]]), (p > theta).nonzero().T)
        matrix, own = torch.randn(m, 130).to(p), torch.randn(n, 130).to(p)
        z = torch.where(p > theta, p, 0).float()
        close = 1e-4 if dtype == torch.float32 else 1e-2
        sums = segment_sums(p[rows, columns], columns, offsets, matrix)
        assert (sums - z @ matrix.float()).norm() <= close * sums.float().norm()
        dots, wanted = entry_dots(own, matrix, columns, offsets)[:on], (own.float() @ matrix.float().T)[rows, columns]
        assert (dots - wanted[:on]).norm() <= close * wanted[:on].norm()
    assert top_columns(p[:0], k).shape == (0, k)
    p[:, 1] = torch.nan
    assert (top_columns(p, 1) == 1).all() and batch_threshold(p, 0).isnan()


@pytest.mark.parametrize(("kind", "width"), SIZES)
def test_steps_of_a_graph_are_plain_ones(kind: str, width: int) -> None:
    """With latents that die on the way: their steps have a graph of their own."""
    plain, repeated, told = learner(kind, width), learner(kind, width), list[list[Loss]]()
    plain.capture = None
    for one in (plain, repeated):
        one.quiet[3:5] = 64 * 3
        one.coder.W_enc.data[:, 3:5] = 0
        told.append([one.step(b, b) for b in tokens().split(64)])
    for wanted, kept in zip(*told, strict=True):  # also after other graphs have run
        assert torch.equal(wanted.error, kept.error) and torch.equal(wanted.active, kept.active)
    assert len(repeated._graphs) >= 2 and len(plain.revived) > 0
    assert all(torch.equal(value, repeated.state()[name]) for name, value in plain.state().items())


@pytest.mark.parametrize(("kind", "width"), SIZES)
def test_a_step_does_not_wait_for_the_gpu(kind: str, width: int) -> None:
    one = learner(kind, width)
    one.capture = None
    x = tokens()[:64]
    one.step(x, x)
    torch.cuda.set_sync_debug_mode("error")
    try:
        one.step(x, x)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(("kind", "width"), SIZES)
def test_steps_there_are_steps_here(kind: str, width: int) -> None:
    there, here = learner(kind, width), learner(kind, width, "cpu")
    for b in tokens().split(64)[:4]:
        found, wanted = there.step(b, b), here.step(b.cpu(), b.cpu())
        assert found.error.item() == pytest.approx(wanted.error.item(), rel=1e-3)
        assert found.l0.item() == pytest.approx(wanted.l0.item(), rel=1e-2)


@pytest.mark.parametrize("kind", KINDS)
def test_codes_reconstructions_and_splices_are_those_of_the_cpu(kind: str) -> None:
    model, images = model_of("base"), images_of(model_of("base"), 3)
    coder = random_coder(kind, 12, 24, 4, 0, sites=(SITE,))
    x = prisma.record(model, images, SITE)[1][SITE]
    expected = (coder.encode(x), coder(x), prisma.run(model, images, edit={SITE: Splice(coder).ablate(3)}))
    coder, model = coder.cuda(), model.cuda()
    there = prisma.run(model, images.cuda(), edit={SITE: Splice(coder).ablate(3)})
    for found, value in zip((coder.encode(x.cuda()), coder(x.cuda()), there), expected, strict=True):
        torch.testing.assert_close(found.cpu(), value, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["topk", "matryoshka", "jumprelu", "gated"])
def test_products_in_bfloat16_train_nearly_as_well(kind: str) -> None:
    errors = []
    for compute in (torch.float32, torch.bfloat16):
        one = learner(kind, 640 if kind in COUNTED else 24, steps=24)
        one.compute = compute
        for b in (*tokens().split(64), *tokens().split(64)):
            found = one.step(b, b)
        errors.append(found.error.item())
    assert errors[1] < 1.1 * errors[0] + 0.02


@pytest.mark.parametrize("kind", ["topk", "batchtopk"])
def test_a_stopped_training_continues_with_the_same_bits(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of("registers", torch.float32).cuda()
    images, told = images_of(model, 40).cuda(), {**QUICK, "kind": kind, "checkpoint_every": 8, "width": 640}
    whole = train(model, images, **told, out=tmp_path / "whole")
    with stopped_before(19, monkeypatch):
        train(model, images, **told, out=tmp_path / "stopped")
    assert same(whole, train(model, images, **told, out=tmp_path / "stopped", resume=True))


def test_every_number_of_an_evaluation_is_that_of_the_cpu() -> None:
    model = model_of("registers", torch.float32)
    images = images_of(model, 40)
    coder = train(model, images, kind="topk", **QUICK)
    labels = torch.arange(40) % 3
    expected = evaluate(coder, model, images, labels=labels, baseline_steps=5)
    found = evaluate(coder.cuda(), model.cuda(), images.cuda(), labels=labels, baseline_steps=5)
    for row, wanted in zip(found, expected, strict=True):
        if row["coder"] == "coder":
            numbers = {name: value for name, value in wanted.items() if isinstance(value, float)}
            assert {name: row[name] for name in numbers} == pytest.approx(numbers, rel=1e-3, abs=1e-5, nan_ok=True)
