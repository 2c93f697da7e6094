"""Graphs from images: against numpy's correlations and the weights of a network without non-linearity."""

import numpy as np
import pytest
import torch
from torch import nn

import prisma
from prisma.analysis.modularity.data_graphs import activation_graph, gradient_graph
from prisma.analysis.modularity.modularity import agreement, modularity
from prisma.errors import PrismaError
from tests.variants import images_of, model_of


def test_correlations_are_those_of_numpy_and_a_constant_unit_has_no_edges() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval()
    with torch.no_grad():
        network[0].weight[1], network[0].bias[1] = 0, 1e4
        network[2].bias += 1e4  # what all images have in common
    images = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    graph = activation_graph(network, images, ["1", "2"], batch=7)
    with torch.no_grad():
        values = torch.cat([network[:2](images), network(images)], 1).double().numpy()
    keep = [0, 2, 3, 4, 5]
    expected = np.abs(np.corrcoef(values[:, keep].T)) - np.eye(5)
    assert np.allclose(graph.adjacency.toarray()[np.ix_(keep, keep)], expected, atol=1e-4)
    assert graph.adjacency[[1]].nnz == 0 and graph.layers == {"1": 4, "2": 2}


def test_units_that_are_active_together_are_a_community() -> None:
    network = nn.Sequential(nn.Linear(2, 12, bias=False)).eval()
    side = torch.arange(12) % 2
    network[0].weight.data = nn.functional.one_hot(side).float() + 0.05 * torch.randn(12, 2)
    found = modularity(activation_graph(network, torch.randn(200, 2), "0"), 2, 9)
    assert agreement(found.labels, side) == 1 and found.p == 0.1 and found.z > 3


def test_tokens_of_a_vision_transformer_are_samples() -> None:
    model = model_of("base")
    images = images_of(model, 4)
    graph = activation_graph(model, images, "blocks.*.mlp.post")
    _, acts = prisma.record(model, images, "blocks.*.mlp.post")
    values = torch.cat([x.flatten(0, 1) for x in acts.values()], 1).detach().numpy()
    assert np.allclose(graph.adjacency.toarray(), np.abs(np.corrcoef(values.T)) - np.eye(20), atol=1e-9)


def test_gradients_of_a_linear_network_are_its_weights() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2), nn.Linear(2, 2)).eval().requires_grad_(False)
    graph = gradient_graph(network, torch.randn(5, 3), ["0", "1", "2"], batch=2)
    assert np.allclose(graph.edges[0].weight.toarray(), network[1].weight.abs().T.numpy(), atol=1e-6)
    assert np.allclose(graph.edges[1].weight.toarray(), network[2].weight.abs().T.numpy(), atol=1e-6)
    assert graph.layers == {"0": 4, "1": 2, "2": 2}


def test_gradients_through_tokens_and_places_are_those_of_finite_differences() -> None:
    model = model_of("base").requires_grad_(False)
    images = images_of(model, 2)
    names = ["blocks.0.mlp.post", "blocks.1.mlp.post"]
    found = gradient_graph(model, images, names).edges[0].weight.toarray()
    _, acts = prisma.record(model, images, names)
    at, step = acts[names[0]], 1e-6
    moved = []
    for token in range(at.shape[1]):
        change = torch.zeros_like(at)
        change[:, token, 3] = step
        _, after = prisma.record(model, images, names[1], {names[0]: prisma.Set(at + change)})
        moved.append(((after[names[1]] - acts[names[1]]).sum(1) / step).abs())  # [image, unit]
    assert np.allclose(found[3], torch.stack(moved).mean((0, 1)).numpy(), atol=1e-5)


def test_channels_of_a_cnn() -> None:
    network = nn.Sequential(nn.Conv2d(1, 3, 1), nn.Conv2d(3, 2, 1)).eval()
    graph = gradient_graph(network, torch.rand(2, 1, 4, 4), ["0", "1"])
    assert np.allclose(graph.edges[0].weight.toarray(), network[1].weight.detach().abs().sum((2, 3)).T, atol=1e-6)
    assert activation_graph(network, torch.rand(9, 1, 4, 4), ["0", "1"]).layers == {"0": 3, "1": 2}


def test_what_gives_no_graph_is_one_sentence() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).eval()
    with pytest.raises(PrismaError, match="expected at least 2 images, because a correlation needs them; found 1"):
        activation_graph(network, torch.zeros(1, 3), "0")
    with pytest.raises(PrismaError, match=r"expected at least two layers, and images; found \['0'\] and 1 images"):
        gradient_graph(network, torch.zeros(1, 3), "0")
    with pytest.raises(
        PrismaError, match="expected each layer to depend on the one before; found that 0 does not on 1"
    ):
        gradient_graph(network, torch.zeros(1, 3), ["1", "0"])
    model = model_of("base")
    with pytest.raises(PrismaError, match="expected layers with the same number of tokens; found"):
        activation_graph(model, images_of(model, 3), ["blocks.0.mlp.post", "pooled"])
    with pytest.raises(PrismaError, match="expected finite activations; found nan at 0, in image 1"):
        activation_graph(network, torch.tensor([[0.0] * 3, [torch.nan] * 3]), "0")


def test_activations_changed_in_place_are_read_as_they_were() -> None:
    torch.manual_seed(0)
    layers = [nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)]
    x = torch.randn(20, 4)
    found = [
        activation_graph(nn.Sequential(layers[0], nn.ReLU(inplace=inplace), layers[2]).eval(), x, ["0", "2"]).adjacency
        for inplace in (False, True)
    ]
    assert abs(found[0] - found[1]).max() == 0
