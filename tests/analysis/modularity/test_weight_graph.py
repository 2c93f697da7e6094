"""One call for the graph of any model."""

import numpy as np
import pytest
import torch
from torch import nn

import prisma
from prisma.analysis.modularity.weight_graph import weight_graph
from prisma.errors import PrismaError
from tests.analysis.modularity.nets import mlp
from tests.variants import model_of


def test_it_reads_models_of_prisma_what_load_returns_and_any_network() -> None:
    loaded = prisma.load("mice/digits")
    heads = weight_graph(loaded)
    assert heads.metadata["graph"] == "heads" and heads.n_nodes == 8
    assert np.array_equal(heads.adjacency.toarray(), weight_graph(loaded.model, "heads").adjacency.toarray())
    assert weight_graph(loaded.model, "blocks.1.mlp").n_edges == 2 * 64 * 128
    assert weight_graph(mlp(4, 3, 2)).n_edges == 18
    assert weight_graph(torch.compile(mlp(4, 3, 2))).n_edges == 18  # type: ignore[arg-type]


def test_a_graph_of_0_3_million_edges_has_all_of_them() -> None:
    graph = weight_graph(mlp(784, 392, 10))
    assert graph.n_edges == 784 * 392 + 392 * 10 and graph.adjacency.nnz == 2 * graph.n_edges


def test_what_is_no_network_is_one_sentence() -> None:
    with pytest.raises(PrismaError, match="expected a network; found a list"):
        weight_graph([1])  # type: ignore[arg-type]
    with pytest.raises(
        PrismaError, match=r"no part of a network that is not a prisma.ViT; found 'heads': pass the part"
    ):
        weight_graph(nn.Linear(2, 2), "heads")
    model = model_of("base")
    model.blocks[0].mlp.out.register_forward_hook(lambda module, args, output: 2 * output)
    with pytest.raises(PrismaError, match="found a forward hook"):
        weight_graph(model, "blocks.0.mlp")
