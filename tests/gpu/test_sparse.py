"""Sparse coders on a GPU: what the CPU computes, and training there. Deselected by default; `make gpu` runs these."""

from pathlib import Path

import pytest
import torch

import prisma
from prisma.sparse.coders import KINDS
from prisma.sparse.evaluation import evaluate
from prisma.sparse.gpu_kernels import batch_threshold, top_columns
from prisma.sparse.splicing import Splice
from prisma.sparse.training import train
from tests.sparse.test_coders import random_coder
from tests.sparse.test_training import same, stopped_before
from tests.variants import images_of, model_of

pytestmark = pytest.mark.gpu
SITE = "blocks.0.resid_post"
QUICK = {"site": SITE, "width": 24, "k": 4, "steps": 60, "batch": 128}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("n", "m", "k"), [(5, 7, 3), (300, 1000, 16), (64, 20_000, 32)])
def test_selections_are_those_of_sorting(n: int, m: int, k: int, dtype: torch.dtype) -> None:
    p = torch.randn(n, m, generator=torch.Generator().manual_seed(0)).to(dtype).cuda()
    for by_size, size in ((False, p), (True, p.abs())):
        columns = top_columns(p, k, by_size)
        assert (columns.diff(dim=1) > 0).all()
        assert torch.equal(size.gather(1, columns).sort(dim=1).values, size.topk(k).values.sort(dim=1).values)
    for kept in (1, n * k, n * m - 1):
        wanted = p.flatten().sort(descending=True).values[kept].clamp_min(0)
        assert batch_threshold(p, kept) == wanted
    assert top_columns(p[:0], k).shape == (0, k)
    p[:, 1] = torch.nan
    assert (top_columns(p, 1) == 1).all()


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


@pytest.mark.parametrize("kind", KINDS)
def test_training_there_is_training_here(kind: str) -> None:
    model = model_of("registers", torch.float32)
    images = images_of(model, 40)
    here = train(model, images, kind=kind, **QUICK).metadata["training"]
    there = train(model.cuda(), images.cuda(), kind=kind, **QUICK).metadata["training"]
    assert there["fvu"] == pytest.approx(here["fvu"], rel=0.02)
    assert there["l0"] == pytest.approx(here["l0"], rel=0.05)


@pytest.mark.parametrize("kind", KINDS)
def test_products_in_bfloat16_train_nearly_as_well(kind: str) -> None:
    model = model_of("registers", torch.float32).cuda()
    images = images_of(model, 40).cuda()
    exact, half = (
        train(model, images, kind=kind, bfloat16=bfloat16, **QUICK).metadata["training"]["fvu"]
        for bfloat16 in (False, True)
    )
    assert half < 1.1 * exact + 0.02


@pytest.mark.parametrize("kind", ["topk", "batchtopk"])
def test_a_stopped_training_continues_with_the_same_bits(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of("registers", torch.float32).cuda()
    images, told = images_of(model, 40).cuda(), {**QUICK, "kind": kind, "checkpoint_every": 20}
    whole = train(model, images, **told, out=tmp_path / "whole")
    with stopped_before(45, monkeypatch):
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
