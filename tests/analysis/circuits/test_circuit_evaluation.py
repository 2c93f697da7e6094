"""CMD and CPR by plain arithmetic, edges at single tokens by their slow twin, and what was planted is found."""

import json
from functools import cache
from itertools import pairwise

import pytest
import torch
from torch import Tensor

import prisma
from prisma import LogitDiff, PrismaError, ViT
from prisma.analysis.circuits.branches import messages
from prisma.analysis.circuits.circuit_evaluation import (
    CircuitEvaluation,
    best_edges,
    circuit_evaluation,
    edge_scores,
    edges_of,
    random_circuit,
)
from prisma.analysis.circuits.circuit_figures import PROPORTIONS
from prisma.analysis.circuits.circuit_run import run_edges
from prisma.analysis.circuits.edge_attribution import edge_attribution
from prisma.analysis.circuits.graph import Graph
from prisma.analysis.statistics import bootstrap_interval
from prisma.data import task
from tests.analysis.circuits.edge_twin import EdgeTwin
from tests.analysis.circuits.test_circuit_discovery import INDUCTION, INDUCTION_METRIC, INDUCTION_PAIRS
from tests.analysis.circuits.test_circuit_run import pairs_of
from tests.analysis.circuits.test_edge_attribution import metric
from tests.planted_circuits import induction
from tests.variants import images_of, model_of

HARD = ["base", "norm_post", "parallel", "sub_norms", "divided_everything", "pool_attention_gated"]


def by_name(model: ViT, values: Tensor) -> dict[tuple[str, str], Tensor]:
    """Values [sender, receiver, token] by edge, as the twin takes them: one for each token of what the sender sends."""
    graph, found = Graph(model.config), {}
    for s, v in graph.edges.nonzero().tolist():
        at = values[s, v, 1:] if graph.senders[s].kind == "time" else values[s, v]
        found[str(graph.senders[s]), str(graph.receivers[v])] = at[:, None]
    return found


@pytest.mark.parametrize("variant", HARD)
@torch.no_grad()
def test_runs_of_edges_at_tokens_are_the_slow_twin(variant: str) -> None:
    model = model_of(variant)
    clean, corrupt = pairs_of(model, 2)
    graph, twin = Graph(model.config), EdgeTwin(model.config, model.state_dict())
    _, other = messages(model, corrupt)
    draw = torch.rand(2, *graph.edges.shape, model.config.n_tokens, generator=torch.Generator().manual_seed(0))
    kept = (draw < torch.tensor([0.4, 0.8])[:, None, None, None]) & graph.edges[..., None]
    found = run_edges(model, clean, kept, other)
    for edges, of_circuit in zip(kept, found, strict=True):
        for image, wrong, logits in zip(clean, corrupt, of_circuit, strict=True):
            expected, _ = twin.edge_run(image, by_name(model, edges.double()), twin.edge_run(wrong)[1])
            torch.testing.assert_close(logits, expected, rtol=1e-10, atol=1e-10)
    whole = kept[0].any(2)
    same = run_edges(model, clean, whole[..., None].expand(-1, -1, model.config.n_tokens), other)
    torch.testing.assert_close(same, run_edges(model, clean, whole, other), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("variant", ["base", "norm_post", "divided"])
def test_scores_at_tokens_are_derivatives_and_sum_to_those_of_edges(variant: str) -> None:
    model = model_of(variant)
    clean, corrupt = pairs_of(model, 1)
    scores = edge_scores(model, clean, corrupt, metric, tokens=True, steps=1)
    torch.testing.assert_close(scores.sum(-1), edge_attribution(model, clean, corrupt, metric).effect)
    twin = EdgeTwin(model.config, model.state_dict())
    weights = by_name(model, torch.ones_like(scores))
    weights = {edge: weight.clone().requires_grad_() for edge, weight in weights.items()}
    logits, _ = twin.edge_run(clean[0], weights, {name: x.detach() for name, x in twin.edge_run(corrupt[0])[1].items()})
    slopes = torch.autograd.grad(metric(logits[None]).sum(), list(weights.values()), allow_unused=True)
    for (edge, found), slope in zip(by_name(model, scores).items(), slopes, strict=True):
        torch.testing.assert_close(found, -slope if slope is not None else torch.zeros_like(found), msg=str(edge))


def test_dead_ends_at_tokens() -> None:
    """By walking: an edge counts if the embedding leads to it and it leads to the readout."""
    model = model_of("base")
    graph, tokens = Graph(model.config), model.config.n_tokens
    exists = edges_of(model, torch.zeros(*graph.edges.shape, tokens))
    assert not exists[:, -1, 1:].any() and exists[:, -1, 0].all() and torch.equal(exists[..., 0], graph.edges)
    mask = exists & (torch.rand(exists.shape, generator=torch.Generator().manual_seed(1)) < 0.3)
    edges = [tuple(at) for at in mask.nonzero().tolist()]

    def after(edge: tuple[int, ...]) -> list[tuple[int, ...]]:
        _, receiver, token = edge
        sides, owner = graph.receivers[receiver].side, graph.writer(receiver)
        return [e for e in edges if e[0] == owner and (sides in ("k", "v") or e[2] == token)]

    @cache
    def walked(edge: tuple[int, ...]) -> set[tuple[int, ...]]:
        return {edge}.union(*(walked(e) for e in after(edge)))

    from_embed = set[tuple[int, ...]]().union(*(walked(e) for e in edges if e[0] == 0))
    expected = {e for e in from_embed if any(x[1] == len(graph.receivers) - 1 for x in walked(e))}
    assert {tuple(at) for at in graph.on_paths(mask).nonzero().tolist()} == expected and 0 < len(expected) < len(edges)


def test_what_was_planted_is_the_best_circuit_and_at_its_tokens() -> None:
    """Four edges of the planted induction are everything. By token they are: v of every token that is read, and so on,
    and of the edges into the readout the one at the class token alone."""
    model = induction()
    found = circuit_evaluation(model, *INDUCTION_PAIRS, INDUCTION_METRIC, draws=5)
    assert found.faithfulness[-3:].tolist() == pytest.approx([1, 1, 1]) and found.cmd < found.random_cmd.min()
    graph, scores = Graph(model.config), edge_scores(model, *INDUCTION_PAIRS, INDUCTION_METRIC, tokens=True)
    exists = edges_of(model, scores)
    planted = {name for s, v, _ in (exists & (scores.abs() > 1e-9)).nonzero().tolist() for name in [(s, v)]}
    assert {(str(graph.senders[s]), str(graph.receivers[v])) for s, v in planted} <= set(INDUCTION)
    by_token = circuit_evaluation(model, *INDUCTION_PAIRS, INDUCTION_METRIC, scores, draws=5)
    assert by_token.metadata["tokens"] and by_token.cmd < found.cmd and by_token.cmd < by_token.random_cmd.min()


def evaluated() -> CircuitEvaluation:
    mouse = prisma.load("mice/digits").model
    images, labels = task("digits").inputs("test", 100)
    threes, eights = images[labels == 3], images[labels == 8]
    n = min(len(threes), len(eights))
    return circuit_evaluation(mouse, threes[:n], eights[:n], LogitDiff(3, 8), steps=1, draws=2)


def test_figures_are_those_of_mib() -> None:
    found = evaluated()
    curve = [
        (found.size_values.mean(0)[i] - found.ablated.mean()) / (found.clean - found.ablated).mean() for i in range(10)
    ]
    width = [b - a for a, b in pairwise(PROPORTIONS)]
    gaps = [abs(1 - x) for x in curve]
    assert found.cmd == pytest.approx(
        sum(w * (a + b) / 2 for w, a, b in zip(width, gaps, gaps[1:], strict=False)).item()
    )
    high = found.value_faithfulness.tolist()
    assert found.cpr == pytest.approx(sum(w * (a + b) / 2 for w, a, b in zip(width, high, high[1:], strict=False)))
    assert found.faithfulness[-1].item() == pytest.approx(1, abs=1e-4) and found.edges[-1] == 110
    torch.testing.assert_close(found.per_pair.mean(0), found.faithfulness)
    low, top = found.interval("cmd")
    ends = found.faithfulness_interval()
    resampled = bootstrap_interval(
        lambda rows: (
            (found.size_values[rows, 3].mean() - found.ablated[rows].mean())
            / (found.clean[rows].mean() - found.ablated[rows].mean())
        ),
        len(found.clean),
    )
    torch.testing.assert_close(ends[:, 3], resampled)
    assert (ends[0] <= found.faithfulness).all() and (found.faithfulness <= ends[1]).all()
    assert low < found.cmd < top and len(found.random_cmd) == 2 and found.random_cmd.min() > found.cmd
    assert found.report().startswith(f"CMD {found.cmd:.2f} (") and "random circuits" in found.report()
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["figures"]["cpr"]["value"] == found.cpr
    assert found.plot().axes and found.plot("per_pair").axes


def test_random_circuits_are_as_large_and_value_is_not_size() -> None:
    model = model_of("base")
    graph = Graph(model.config)
    for size in (0, 3, 40, int(graph.edges.sum())):
        circuit = random_circuit(graph, graph.edges, size, seed=size)
        assert size <= circuit.sum() <= size + 6 and torch.equal(graph.on_paths(circuit), circuit)
    assert not torch.equal(*(random_circuit(graph, graph.edges, 9, seed) for seed in (0, 1)))
    scores = torch.zeros(graph.edges.shape)
    scores[0, -1], scores[graph.sender("m1"), -1] = 1, -2
    scores[0, graph.receiver("m1")] = -3
    assert graph.named(best_edges(graph, graph.edges, scores, 1)) == [("embed", "logits")]
    named = graph.named(best_edges(graph, graph.edges, scores.abs(), 2))
    assert named == [("embed", "m1"), ("m1", "logits")]


def test_bad_input_is_refused() -> None:
    model = model_of("base")
    clean, corrupt = pairs_of(model, 2)
    with pytest.raises(PrismaError, match=r"expected scores \[9, 21\], or \[9, 21, 10\] by token; found \[9, 20\]"):
        circuit_evaluation(model, clean, corrupt, metric, torch.zeros(9, 20))
    with pytest.raises(PrismaError, match="expected draws to be at least 0; found -1"):
        circuit_evaluation(model, clean, corrupt, metric, draws=-1)
    with pytest.raises(PrismaError, match="expected ablation to be one of corrupt, mean, zero; found 'noise'"):
        circuit_evaluation(model, clean, corrupt, metric, steps=1, ablation="noise")
    with pytest.raises(PrismaError, match="expected one of cmd, cpr; found 'area'"):
        evaluated().interval("area")
    assert (
        circuit_evaluation(model, clean, images_of(model, 2, seed=2), metric, steps=1, draws=0).random_cmd.numel() == 0
    )
