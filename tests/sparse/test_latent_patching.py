"""Patching of latents, against activations that are put together by hand, in float64."""

import pytest
import torch

import prisma
from prisma.sparse.latent_nodes import Nodes
from prisma.sparse.latent_patching import latent_patching
from tests.sparse.test_coders import random_coder
from tests.sparse.test_latent_attribution import METRIC
from tests.sparse.test_latent_nodes import FIRST, SECOND, random_pair


@pytest.mark.parametrize("tokens", [None, [0, 3]])
def test_each_node_alone_is_as_in_the_other_run(tokens: list[int] | None) -> None:
    model, clean, corrupt, coders = random_pair()
    found = latent_patching(model, coders, clean, corrupt, METRIC, tokens=tokens, batch=2)
    nodes = Nodes.of(model, coders)
    logits, acts, codes = nodes.record(model, clean)
    _, _, source = nodes.record(model, corrupt)
    where = torch.zeros(10, dtype=torch.float64)
    where[slice(None) if tokens is None else tokens] = 1
    for (site, latent), effect in zip(found.named(), found.values.T, strict=True):
        if latent is None:
            move = source[site].error - codes[site].error
        else:
            move = (source[site].z - codes[site].z)[..., latent, None] * nodes.coders[site].W_dec[latent]
        by_hand = METRIC(prisma.run(model, clean, {site: prisma.Set(acts[site] + move * where[:, None])}))
        assert torch.allclose(effect, by_hand - METRIC(logits), atol=1e-10), (site, latent)


def test_named_nodes_alone() -> None:
    model, clean, corrupt, coders = random_pair()
    whole = latent_patching(model, coders, clean, corrupt, METRIC)
    some = latent_patching(model, coders, clean, corrupt, METRIC, [(SECOND, None), (FIRST, 2)])
    assert some.named() == [(SECOND, None), (FIRST, 2)] and some.names["node"] == [f"{SECOND}/error", f"{FIRST}/2"]
    assert torch.allclose(some.of(FIRST, 2), whole.of(FIRST, 2)) and torch.allclose(
        some.of(SECOND, None), whole.of(SECOND, None)
    )


def test_a_site_without_tokens_and_a_transcoder() -> None:
    model, clean, corrupt, coders = random_pair(sites=("pooled",))
    coder = coders[0]
    found = latent_patching(model, coder, clean, corrupt, METRIC)
    x, other = (prisma.record(model, images, "pooled")[1]["pooled"] for images in (clean, corrupt))
    move = (coder.encode(other) - coder.encode(x))[:, 4:5] * coder.W_dec[4]
    assert torch.allclose(found.of("pooled", 4), METRIC(model.readout.head(x + move)) - found.clean, atol=1e-10)
    reads, writes = "blocks.0.ln2.normalized", "blocks.0.mlp_out"
    coder = random_coder("topk", 12, 9, 3, 0, sites=(reads,), target=writes, d_out=12, skip=True, centred=False)
    found = latent_patching(model, coder, clean, corrupt, METRIC, [(writes, 5)])
    acts, others = (prisma.record(model, images, [reads, writes])[1] for images in (clean, corrupt))
    move = (coder.encode(others[reads]) - coder.encode(acts[reads]))[..., 5:6] * coder.W_dec[5]
    by_hand = METRIC(prisma.run(model, clean, {writes: prisma.Set(acts[writes] + move)}))
    assert torch.allclose(found.values[:, 0], by_hand - found.clean, atol=1e-10)
