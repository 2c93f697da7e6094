"""Edges between latents, against finite differences and sums, in float64."""

import pytest
import torch

import prisma
from prisma.errors import PrismaError
from prisma.sparse.latent_attribution import latent_attribution
from prisma.sparse.latent_edges import latent_edges
from prisma.sparse.latent_nodes import Nodes
from tests.sparse.test_coders import random_coder
from tests.sparse.test_latent_attribution import METRIC
from tests.sparse.test_latent_nodes import FIRST, SECOND, planted, random_pair, transcoder


def test_an_edge_is_the_slope_of_patching_the_sender_while_only_the_receiver_follows() -> None:
    model, clean, corrupt, (first, second) = random_pair()
    found = latent_edges(model, first, second, clean, corrupt, METRIC, batch=2)
    nodes = Nodes.of(model, [first, second])
    _, acts, codes = nodes.record(model, clean)
    _, _, source = nodes.record(model, corrupt)
    e = 1e-5

    def moved(i: int, sign: float) -> torch.Tensor:
        move = (source[FIRST].z - codes[FIRST].z)[..., i, None] * first.W_dec[i]
        return prisma.record(model, clean, SECOND, {FIRST: prisma.Set(acts[FIRST] + sign * e * move)})[1][SECOND]

    def metric_with(change: torch.Tensor) -> torch.Tensor:
        return METRIC(prisma.run(model, clean, {SECOND: prisma.Set(acts[SECOND] + change)}))

    for i in (0, 4, 7):
        up, down = (moved(i, sign) for sign in (1, -1))
        z = second.encode(up) - second.encode(down)
        for j in range(9):
            change = z[..., j, None] * second.W_dec[j] / 2
            slope = (metric_with(change) - metric_with(-change)) / (2 * e)
            assert torch.allclose(found.values[:, i, j], slope, atol=1e-6), (i, j)
        left = ((up - down) - z @ second.W_dec) / 2
        slope = (metric_with(left) - metric_with(-left)) / (2 * e)
        assert torch.allclose(found.values[:, i, -1], slope, atol=1e-6)


def test_a_transcoder_receives_by_what_it_reads_and_sends_by_what_it_writes() -> None:
    model, clean, corrupt, (first, _) = random_pair()
    coder, e = transcoder(), 1e-5
    reads, writes = coder.site, str(coder.config.target)
    found = latent_edges(model, first, coder, clean, corrupt, METRIC)
    nodes = Nodes.of(model, [first, coder])
    _, acts, codes = nodes.record(model, clean)
    source = nodes.record(model, corrupt)[2]
    move = (source[FIRST].z - codes[FIRST].z)[..., 4, None] * first.W_dec[4]

    def code(sign: float) -> torch.Tensor:
        moved = prisma.Set(acts[FIRST] + sign * e * move)
        return coder.encode(prisma.record(model, clean, reads, {FIRST: moved})[1][reads])

    def metric_with(change: torch.Tensor) -> torch.Tensor:
        return METRIC(prisma.run(model, clean, {writes: prisma.Set(acts[writes] + change)}))

    for j in range(9):
        change = (code(1) - code(-1))[..., j, None] * coder.W_dec[j] / 2
        assert torch.allclose(found.values[:, 4, j], (metric_with(change) - metric_with(-change)) / (2 * e), atol=1e-6)
    after = random_coder("topk", 12, 9, 3, 3, sites=("blocks.1.resid_post",))
    sent = latent_edges(model, coder, after, clean, corrupt, METRIC)
    whole = latent_attribution(model, coder, clean, corrupt, METRIC)
    assert torch.allclose(sent.values.sum(-1), whole.values, atol=1e-12)
    late = random_coder("topk", 12, 9, 3, 3, sites=("blocks.1.resid_mid",))
    with pytest.raises(PrismaError, match=f"before the receiver, which reads {FIRST}; found one at blocks.1.resid_mid"):
        latent_edges(
            model,
            late,
            random_coder("topk", 12, 9, 3, 3, sites=(FIRST,), target=writes, d_out=12, centred=False),
            clean,
            corrupt,
            METRIC,
        )


def test_the_edges_of_a_sender_sum_to_its_effect() -> None:
    model, clean, corrupt, (first, second) = random_pair()
    found = latent_edges(model, first, second, clean, corrupt, METRIC)
    whole = latent_attribution(model, first, clean, corrupt, METRIC)
    assert torch.allclose(found.values.sum(-1), whole.values, atol=1e-12)
    some = latent_edges(model, first, second, clean, corrupt, METRIC, [5, 2])
    assert torch.allclose(some.values, found.values[..., [5, 2, 9]]) and some.names["receiver"] == ["5", "2", "error"]


def test_planted_edges_are_found() -> None:
    model, clean, corrupt, before, after = planted()
    found = latent_edges(model, before, after, clean, corrupt, prisma.LogitDiff(0, 1))
    wanted = torch.zeros_like(found.effect)
    wanted[0, 0] = wanted[1, 1] = -1 / 6
    assert torch.allclose(found.effect, wanted, atol=1e-12)
    sites = ("blocks.0.resid_pre", "blocks.0.resid_post")
    assert {edge for edge, _ in found.top(2)} == {tuple((site, g) for site in sites) for g in (0, 1)}


def test_what_cannot_be_asked_is_said() -> None:
    model, clean, corrupt, (first, second) = random_pair()
    with pytest.raises(PrismaError, match=f"before the receiver, which reads {FIRST}; found one at {SECOND}"):
        latent_edges(model, second, first, clean, corrupt, METRIC)
    with pytest.raises(PrismaError, match="expected latents, or None"):
        latent_edges(model, first, second, clean, corrupt, METRIC, [9])
