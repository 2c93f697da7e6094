"""Attention flow against the maximum flows of networkx, and on pipes whose widths are known."""

import sys
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch

from prisma import PrismaError, ViT
from prisma.analysis.attention.attention_flow import attention_flow, readout_flows
from prisma.runs import record
from tests.variants import images_of, model_of


def graph_of(model: ViT, image: torch.Tensor, residual: float) -> Any:
    """Nodes are (depth, token), depth 0 before the first layer, and `out`."""
    c = model.config
    graph, depth = nx.DiGraph(), 0
    kinds = ("time", "attn") if c.attention == "divided" else ("attn",)
    for site in (f"blocks.{layer}.{kind}.pattern" for layer in range(c.n_layers) for kind in kinds):
        pattern = record(model, image[None], [site])[1][site][0].mean(0).tolist()
        skipped = c.n_tokens - len(pattern)
        for q in range(c.n_tokens):
            for k in range(c.n_tokens):
                weight = float(q == k)
                if q >= skipped:
                    weight = residual * weight + (1 - residual) * pattern[q - skipped][k - skipped] * (k >= skipped)
                graph.add_edge((depth, k), (depth + 1, q), capacity=weight)
        depth += 1
    ends = {"class": [0], "mean": list(range(c.n_prefix, c.n_tokens))}.get(c.pool)
    if ends is None:
        pooling = record(model, image[None], ["pool.pattern"])[1]["pool.pattern"][0, :, 0].mean(0).tolist()
        ends, widths = list(range(c.n_tokens - len(pooling), c.n_tokens)), pooling
    else:
        widths = [1 / len(ends)] * len(ends)
    for end, width in zip(ends, widths, strict=True):
        graph.add_edge((depth, end), "out", capacity=width)
    return graph


@pytest.mark.parametrize(
    "variant", ["base", "attention_only", "registers_only", "pool_attention_prefix", "siglip", "video", "divided"]
)
def test_it_is_the_maximum_flow(variant: str) -> None:
    model = model_of(variant)
    images = images_of(model)
    found = attention_flow(model, images, residual=0.2, batch=1)
    graph = graph_of(model, images[1], residual=0.2)
    expected = [nx.maximum_flow_value(graph, (0, k), "out") for k in range(model.config.n_tokens)]
    torch.testing.assert_close(found.readout[1], torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-7)
    torch.testing.assert_close(found.patches[1].flatten(), found.readout[1, model.config.n_prefix :])
    assert found.map is None


def test_a_path_is_as_wide_as_its_narrowest_edge() -> None:
    first = np.array([[1.0, 0.0, 0.0], [0.7, 0.3, 0.0], [0.0, 0.4, 0.6]])
    second = np.array([[0.2, 0.5, 0.3], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    flows = readout_flows(np.array([1.0, 0.0, 0.0]), first, second)
    # token 0: 0.2 by itself, and min(0.7, 0.5) by token 1; token 1: min(0.3, 0.5) and min(0.4, 0.3); token 2: 0.3
    np.testing.assert_allclose(flows, [0.7, 0.6, 0.3], atol=1e-8)


def test_of_no_layers_the_flow_is_what_the_pooling_reads() -> None:
    model = model_of("no_layers", pool="mean")
    found = attention_flow(model, images_of(model))
    expected = torch.tensor([0] + [1 / 9] * 9, dtype=torch.float64).expand(2, -1)
    torch.testing.assert_close(found.readout, expected, rtol=0, atol=1e-8)


def test_without_scipy_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.sparse", None)
    model = model_of("base")
    with pytest.raises(PrismaError, match="attention flow needs scipy"):
        attention_flow(model, images_of(model))
