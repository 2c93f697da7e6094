"""Attribution of latents, against finite differences and against patching whole sites, in float64."""

from pathlib import Path

import pytest
import torch

import prisma
from prisma.errors import PrismaError
from prisma.sparse.latent_attribution import latent_attribution
from prisma.sparse.latent_nodes import LatentEffects, Nodes
from prisma.sparse.latent_patching import latent_patching
from tests.sparse.test_coders import random_coder
from tests.sparse.test_latent_nodes import FIRST, planted, random_pair

METRIC = prisma.LogitDiff(1, 3)


def slope(model: prisma.ViT, images: torch.Tensor, site: str, x: torch.Tensor, move: torch.Tensor) -> torch.Tensor:
    """[image]: how the metric changes when the site moves from x along `move`, by a central difference."""
    near = [METRIC(prisma.run(model, images, {site: prisma.Set(x + e * move)})) for e in (1e-5, -1e-5)]
    return (near[0] - near[1]) / 2e-5


@pytest.mark.parametrize("into", ["clean", "corrupt"])
def test_effects_are_slopes_towards_the_other_run(into: str) -> None:
    model, clean, corrupt, coders = random_pair()
    found = latent_attribution(model, coders, clean, corrupt, METRIC, into=into, batch=2)
    images, others = (clean, corrupt) if into == "clean" else (corrupt, clean)
    nodes = Nodes.of(model, coders)
    _, acts, codes = nodes.record(model, images)
    _, _, source = nodes.record(model, others)
    for (site, latent), effect in zip(found.named(), found.values.T, strict=True):
        if latent is None:
            move = source[site].error - codes[site].error
        else:
            move = (source[site].z - codes[site].z)[..., latent, None] * nodes.coders[site].W_dec[latent]
        assert torch.allclose(effect, slope(model, images, site, acts[site], move), atol=1e-7), (site, latent)
    assert torch.allclose(found.clean, METRIC(model(clean))) and torch.allclose(found.corrupt, METRIC(model(corrupt)))


@pytest.mark.parametrize("site", [FIRST, "blocks.0.attn.z", "pooled"])
def test_the_integrated_effects_of_a_site_are_what_patching_all_of_it_does(site: str) -> None:
    model, clean, corrupt, coders = random_pair(sites=(site,))
    found = latent_attribution(model, coders[0], clean, corrupt, METRIC, steps=40)
    whole = METRIC(prisma.run(model, clean, {site: prisma.Set(prisma.record(model, corrupt, site)[1][site])}))
    assert torch.allclose(found.values.sum(1), whole - found.clean, atol=1e-6)


def test_some_tokens_alone(tmp_path: Path) -> None:
    model, clean, corrupt, coders = random_pair()
    each = [latent_attribution(model, coders, clean, corrupt, METRIC, tokens=[i]).values for i in range(10)]
    found = latent_attribution(model, coders, clean, corrupt, METRIC)
    assert torch.allclose(torch.stack(each).sum(0), found.values, atol=1e-12)
    assert torch.equal(LatentEffects.from_npz(found.to_npz(tmp_path / "found.npz")).values, found.values)


def test_a_transcoder() -> None:
    model, clean, corrupt, _ = random_pair()
    reads, writes = "blocks.0.ln2.normalized", "blocks.0.mlp_out"
    coder = random_coder("topk", 12, 9, 3, 0, sites=(reads,), target=writes, d_out=12, skip=True, centred=False)
    found = latent_attribution(model, coder, clean, corrupt, METRIC, steps=40)
    whole = METRIC(prisma.run(model, clean, {writes: prisma.Set(prisma.record(model, corrupt, writes)[1][writes])}))
    assert torch.allclose(found.values.sum(1), whole - found.clean, atol=1e-6)


def test_a_linear_model_is_attributed_exactly_to_the_latents_that_were_planted() -> None:
    model, clean, corrupt, before, after = planted()
    found = latent_attribution(model, [before, after], clean, corrupt, prisma.LogitDiff(0, 1))
    exact = latent_patching(model, [before, after], clean, corrupt, prisma.LogitDiff(0, 1))
    assert torch.allclose(found.values, exact.values, atol=1e-12)
    share = 1 / 6  # of the head's attention
    wanted = torch.zeros(len(found.nodes), dtype=torch.float64)
    wanted[[0, 1, before.config.width + 1, before.config.width + 2]] = -share
    assert torch.allclose(found.effect, wanted, atol=1e-12)
    assert {node for node, _ in found.top(4)} == {
        (site, g) for site in ("blocks.0.resid_pre", "blocks.0.resid_post") for g in (0, 1)
    }
    assert torch.allclose(found.of("blocks.0.resid_pre", 0), torch.full((2,), -share, dtype=torch.float64))
    assert found.normalised().sum().item() == pytest.approx(2)  # once before the head, once after it


def test_in_inference_mode_with_frozen_weights_and_what_is_refused() -> None:
    model, clean, corrupt, coders = random_pair()
    wanted = latent_attribution(model, coders, clean, corrupt, METRIC)
    model.requires_grad_(False)
    with torch.inference_mode():
        assert torch.allclose(latent_attribution(model, coders, clean + 0, corrupt + 0, METRIC).values, wanted.values)
    for arguments, message in (
        ({"steps": 0}, "expected steps to be at least 1; found 0"),
        ({"into": "both"}, "expected into to be clean or corrupt"),
        ({"metric": prisma.KL(model(clean))}, "use steps=5"),
        ({"corrupt": corrupt[:2]}, "clean and corrupt must hold pairs of one shape"),
    ):
        with pytest.raises(PrismaError, match=message):
            latent_attribution(model, coders, **{"clean": clean, "corrupt": corrupt, "metric": METRIC, **arguments})
    with pytest.raises(PrismaError, match=r"expected a node of this result; found \('blocks.0.resid_post', 11\)"):
        wanted.of(FIRST, 11)
