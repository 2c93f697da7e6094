"""Graphs of parts of a vision transformer: composition scores, and weights with norms folded in."""

import numpy as np
import pytest
import torch

import prisma
from prisma.analysis.modularity.vit_graph import vit_graph
from prisma.circuits import folded_in, neuron_weights, stream_weights
from prisma.errors import PrismaError
from tests.variants import VARIANTS, model_of


def test_heads_are_connected_by_composition() -> None:
    model = model_of("base")  # two layers of three heads
    graph = vit_graph(model)
    scores = prisma.composition(model)
    mean = (scores.q + scores.k + scores.v) / 3  # type: ignore[operator]
    assert graph.layers == {"blocks.0.attn.z": 3, "blocks.1.attn.z": 3}
    assert np.allclose(graph.adjacency[:3, 3:].toarray(), mean[0, :, 1], atol=1e-6)
    assert graph.adjacency[:3, :3].nnz == 0


def test_heads_with_qk_norm_are_connected_by_v_alone() -> None:
    model = model_of("qk_norm")
    graph = vit_graph(model)
    assert graph.metadata["by"] == ["v"]
    assert np.allclose(graph.adjacency[:3, 3:].toarray(), prisma.composition(model, of=["v"]).v[0, :, 1], atol=1e-6)


@pytest.mark.parametrize("variant", ["base", "gated_silu", "norm_post", "layer_scale", "sub_norms", "norm_none"])
def test_an_mlp_has_the_weights_with_which_neurons_read_and_write(variant: str) -> None:
    model = model_of(variant)
    graph = vit_graph(model, "blocks.1.mlp")
    block = model.blocks[1]
    read = torch.zeros(12, 10, dtype=torch.float64)
    for branch in (block.mlp.pre, block.mlp.pre_linear):
        if branch is not None:
            weight = branch.weight.double().mT
            read += (folded_in(block.ln2, weight) if model.config.norm == "pre" else weight).abs()
    assert list(graph.layers.values()) == [12, 10, 12]
    assert np.allclose(graph.edges[0].weight.toarray(), read.detach(), atol=1e-6)
    assert np.allclose(graph.edges[1].weight.toarray(), neuron_weights(model, 1).abs().detach(), atol=1e-5)


def test_the_stream_is_one_layer_that_all_read_and_write() -> None:
    model = model_of("base")
    graph = vit_graph(model, "stream")
    names = list(graph.layers)
    values, neurons = ({f"blocks.{i}.{name}": n for i in range(2)} for name, n in (("attn.v", 12), ("mlp.post", 10)))
    assert graph.layers == {"pixels": 8, "stream": 12, **values, **neurons, "classes": 5}
    edges = {(names[e.source], names[e.target]): e.weight.toarray() for e in graph.edges}
    mlp = vit_graph(model, "blocks.0.mlp")
    both = mlp.edges[0].weight.toarray() + mlp.edges[1].weight.toarray().T
    assert np.allclose(edges["stream", "blocks.0.mlp.post"], both)
    w = stream_weights(model, 1)
    units = [(h, d) for h in range(3) for d in range(4)]
    own = [[(w["W_V"][h, m, d].abs() + w["W_O"][h, d, m].abs()).item() for h, d in units] for m in range(12)]
    assert np.allclose(edges["stream", "blocks.1.attn.v"], own)
    assert np.allclose(edges["pixels", "stream"], model.embed.patch.weight.detach().abs().T, atol=1e-6)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_form_of_the_model_has_a_stream(variant: str) -> None:
    model = model_of(variant)
    graph = vit_graph(model, "stream")
    mlps = model.config.n_layers if model.config.d_mlp else 0
    assert sum(name.endswith("mlp.post") for name in graph.layers) == mlps
    assert graph.layers["stream"] == model.config.d_model


@pytest.mark.parametrize("part", ["blocks.2.mlp", "mlp", "blocks.0", "blocks.0.attn"])
def test_another_part_is_one_sentence(part: str) -> None:
    with pytest.raises(PrismaError, match=rf"heads or stream, or blocks.0.mlp to blocks.1.mlp; found '{part}'"):
        vit_graph(model_of("base"), part)
    with pytest.raises(PrismaError, match=r"expected part to be heads or stream; found 'blocks.0.mlp'"):
        vit_graph(model_of("attention_only"), "blocks.0.mlp")
    with pytest.raises(PrismaError, match="expected at least two attentions"):
        vit_graph(model_of("one_layer"))
