"""Edge attribution is the derivative of the run over edges, taken by autograd through its slow twin."""

import pytest
import torch
from torch import Tensor

from prisma import PrismaError, ViT
from prisma.analysis.attribution.quadrature import gauss_legendre
from prisma.analysis.circuits.edge_attribution import edge_attribution
from prisma.analysis.circuits.graph import Graph
from prisma.metrics import Rank
from tests.analysis.circuits.edge_twin import EdgeTwin
from tests.analysis.circuits.test_circuit_run import HARD, pairs_of
from tests.variants import model_of


def metric(logits: Tensor) -> Tensor:
    return logits[:, 0] - logits[:, 1] * logits[:, 2]


def derivatives(model: ViT, target: Tensor, donor: Tensor, steps: int) -> Tensor:
    """[sender, receiver] of one pair: of a run whose edges carry own + a (donor - own), in each edge's a, at a = 0."""
    graph, twin = Graph(model.config), EdgeTwin(model.config, model.state_dict())
    _, own = twin.edge_run(target)
    _, other = twin.edge_run(donor)
    found = torch.zeros(graph.edges.shape, dtype=torch.float64)
    for place, weight in [(1.0, 1.0)] if steps == 1 else gauss_legendre(steps):
        embed = other["embed"] + place * (own["embed"] - other["embed"])
        _, here = twin.edge_run(None, embed=embed)
        moved = {name: here[name] + other[name] - own[name] for name in here}
        weights = torch.ones(graph.edges.shape, dtype=torch.float64, requires_grad=True)
        by_name = {edge: weights[at] for edge, at in zip(graph.named(graph.edges), indices(graph.edges), strict=True)}
        logits, _ = twin.edge_run(None, by_name, moved, embed=embed)
        found -= torch.autograd.grad(metric(logits[None])[0], weights)[0] * weight
    return found


def indices(mask: Tensor) -> list[tuple[int, ...]]:
    return [tuple(at) for at in mask.nonzero().tolist()]


ONE_STEP = [*HARD, "divided", "video_rotary", "pool_class_mean", "norm_pooled_mean", "layer_scale", "qk_norm"]
STEPS = ["base", "norm_post", "pool_attention_gated", "divided_everything"]  # steps change the embedding, of any form


@pytest.mark.parametrize(("variant", "steps"), [*((v, 1) for v in ONE_STEP), *((v, 3) for v in STEPS)])
def test_scores_are_derivatives_of_the_run_over_edges(variant: str, steps: int) -> None:
    model = model_of(variant)
    clean, corrupt = pairs_of(model, 2)
    found = edge_attribution(model, clean, corrupt, metric, steps=steps)
    for pair in range(2 if steps == 1 else 1):
        expected = derivatives(model, clean[pair], corrupt[pair], steps)
        torch.testing.assert_close(found.values[pair], expected, rtol=1e-9, atol=1e-10)
        assert expected.abs().max() > 1e-3
    torch.testing.assert_close(found.clean, metric(model(clean)), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.corrupt, metric(model(corrupt)), rtol=1e-12, atol=1e-12)


def test_edges_and_their_names() -> None:
    model = model_of("base")
    found = edge_attribution(model, *pairs_of(model, 2), metric)
    graph = Graph(model.config)
    (sender, receiver), effect = found.top(1)[0]
    at = graph.sender(sender), graph.receiver(receiver)
    assert effect == found.effect[at].item() and abs(effect) == found.effect.abs().max().item()
    assert len(found.top(7)) == 7 and not found.effect[~graph.edges].any()
    assert found.axes["values"] == ("image", "sender", "receiver")
    torch.testing.assert_close(found.stderr, found.values.std(0) / 2**0.5)
    torch.testing.assert_close(found.normalised() * (found.corrupt - found.clean).mean(), found.effect)
    assert found.plot().axes and list(found.names["sender"]) == [str(node) for node in graph.senders]


def test_without_blocks_there_is_one_edge() -> None:
    model = model_of("no_layers")
    assert edge_attribution(model, *pairs_of(model), metric).values.shape == (3, 1, 1)


def test_bad_input_is_refused() -> None:
    model = model_of("base")
    clean, corrupt = pairs_of(model, 2)
    with pytest.raises(PrismaError, match="pairs of one shape"):
        edge_attribution(model, clean, corrupt[:1], metric)
    with pytest.raises(PrismaError, match="a metric that has a gradient"):
        edge_attribution(model, clean, corrupt, Rank(0))
    with pytest.raises(PrismaError, match="expected steps to be at least 1"):
        edge_attribution(model, clean, corrupt, metric, steps=0)
