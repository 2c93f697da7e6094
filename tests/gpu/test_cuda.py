"""The core and the trainer on a GPU. Deselected by default (no GPU in CI); `make gpu` runs these."""

from pathlib import Path

import pytest
import torch

import prisma
from prisma.recipes import recipe
from prisma.train import train
from tests.variants import VARIANTS, images_of, model_of

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_site_is_what_the_cpu_computes(variant: str) -> None:
    model, images = model_of(variant), images_of(model_of(variant))
    logits, acts = prisma.record(model, images, "*")
    on_gpu, there = prisma.record(model.cuda(), images.cuda(), "*")
    assert torch.allclose(on_gpu.cpu(), logits, rtol=1e-9, atol=1e-9)
    for site in acts:
        assert torch.allclose(there[site].cpu(), acts[site], rtol=1e-9, atol=1e-9), site


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_fused_and_materialised_attention_agree_in_every_precision(dtype: torch.dtype) -> None:
    model = model_of("base", dtype=torch.float32).cuda().to(dtype)
    images = images_of(model, n=8).cuda()
    fused = model(images)
    materialised, _ = prisma.record(model, images, "blocks.*.attn.pattern")
    error = (materialised - fused).float().norm() / fused.float().norm()
    assert error < 8 * torch.finfo(dtype).eps


@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")  # torch's compiler uses it until 2.11
@pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores")  # torch's advice to be less exact
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_compiled_with_and_without_an_edit_is_eager(dtype: torch.dtype) -> None:
    model = model_of("base", dtype=torch.float32).cuda().to(dtype)
    images = images_of(model, n=8).cuda()
    compiled = torch.compile(model, fullgraph=True)
    edit = {"blocks.0.attn.z": prisma.Zero().at(head=1)}
    for edits in (None, edit):
        ours, eager = prisma.run(compiled, images, edits).float(), prisma.run(model, images, edits).float()
        assert (ours - eager).norm() / eager.norm() < 8 * torch.finfo(dtype).eps
    assert not torch.allclose(prisma.run(compiled, images, edit), compiled(images))


def test_sweep_is_one_forward_per_head() -> None:
    model = model_of("base").cuda()
    clean, corrupt = images_of(model, n=3).cuda(), images_of(model, n=3, seed=2).cuda()
    metric = prisma.LogitDiff(0, 1)
    _, acts = prisma.record(model, corrupt, "blocks.*.attn.z")
    effect = prisma.sweep(model, clean, corrupt, "attn.z", metric)
    for layer, heads in enumerate(effect):
        site = f"blocks.{layer}.attn.z"
        for head, value in enumerate(heads):
            patched = prisma.run(model, clean, {site: prisma.Set(acts[site]).at(head=head)})
            assert torch.allclose(value, metric(patched).mean())


def test_training_learns_and_resumes(tmp_path: Path) -> None:
    short = recipe("digits").override({"steps": "200", "warmup": "20"})
    results = train(short, tmp_path / "run", device="cuda", progress=False)
    accuracy = next(row["value"] for row in results["results"] if row["name"] == "test accuracy")
    assert accuracy > 0.8
    assert train(short, tmp_path / "run", device="cuda", resume=True, progress=False) == results
