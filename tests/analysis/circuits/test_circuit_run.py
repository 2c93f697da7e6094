"""A run over edges is the plain run with all of them, the other run with none, and its slow twin with any."""

import pytest
import torch
from torch import Tensor

from prisma import PrismaError, ViT
from prisma.analysis.circuits.branches import messages
from prisma.analysis.circuits.circuit_run import run_edges
from prisma.analysis.circuits.graph import Graph
from tests.analysis.circuits.edge_twin import EdgeTwin
from tests.variants import ANALYSED, images_of, model_of

HARD = [
    "base", "attention_only_norm_none", "norm_post", "norm_res_post", "parallel", "sub_norms", "everything_post",
    "rotary_head_table", "score_bias", "divided_everything", "pool_attention_gated",
]  # fmt: skip


def pairs_of(model: ViT, n: int = 3) -> tuple[Tensor, Tensor]:
    return images_of(model, n), images_of(model, n, seed=2)


@pytest.mark.parametrize("variant", ANALYSED)
@torch.no_grad()
def test_all_edges_are_the_plain_run_and_none_the_other(variant: str) -> None:
    model = model_of(variant)
    clean, corrupt = pairs_of(model)
    other_logits, other = messages(model, corrupt)
    edges = Graph(model.config).edges
    found = run_edges(model, clean, torch.stack([edges, edges & False, edges | True]), other, batch=2)
    for logits, expected in zip(found, (model(clean), other_logits, model(clean)), strict=True):
        torch.testing.assert_close(logits, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("variant", HARD)
@torch.no_grad()
def test_any_edges_are_the_slow_twin(variant: str) -> None:
    model = model_of(variant)
    clean, corrupt = pairs_of(model, 2)
    graph, twin = Graph(model.config), EdgeTwin(model.config, model.state_dict())
    _, other = messages(model, corrupt)
    kept = (
        torch.rand(2, *graph.edges.shape, generator=torch.Generator().manual_seed(0))
        < torch.tensor([0.3, 0.8])[:, None, None]
    )
    found = run_edges(model, clean, kept & graph.edges, other)
    for edges, of_circuit in zip(kept & graph.edges, found, strict=True):
        weights = dict.fromkeys(graph.named(graph.edges & ~edges), 0.0)
        for image, wrong, logits in zip(clean, corrupt, of_circuit, strict=True):
            expected, _ = twin.edge_run(image, weights, twin.edge_run(wrong)[1])
            torch.testing.assert_close(logits, expected, rtol=1e-10, atol=1e-10)


@torch.no_grad()
def test_circuits_and_images_do_not_mix() -> None:
    model = model_of("base")
    clean, corrupt = pairs_of(model)
    graph = Graph(model.config)
    _, other = messages(model, corrupt)
    kept = torch.rand(5, *graph.edges.shape, generator=torch.Generator().manual_seed(0)) < 0.6
    together = run_edges(model, clean, kept, other, batch=100)
    for circuit, edges in enumerate(kept):
        for i in range(len(clean)):
            alone = run_edges(model, clean[i : i + 1], edges, other[i : i + 1])
            torch.testing.assert_close(together[circuit, i], alone[0], rtol=1e-10, atol=1e-10)
    assert torch.allclose(together, run_edges(model, clean, kept, other, batch=1), rtol=1e-10, atol=1e-10)


def test_what_does_not_fit_is_refused() -> None:
    model = model_of("base")
    clean, corrupt = pairs_of(model)
    _, other = messages(model, corrupt)
    edges = Graph(model.config).edges
    with pytest.raises(PrismaError, match=r"expected boolean edges \[9, 21\]; found \[8, 21\]"):
        run_edges(model, clean, edges[1:], other)
    with pytest.raises(PrismaError, match=r"found \[9, 21\] of torch\.int64"):
        run_edges(model, clean, edges.long(), other)
    with pytest.raises(PrismaError, match="messages of the other run for 3 images; found 2"):
        run_edges(model, clean, edges, other[:2])
    with pytest.raises(PrismaError, match="expected batch to be at least 1"):
        run_edges(model, clean, edges, other, batch=0)
