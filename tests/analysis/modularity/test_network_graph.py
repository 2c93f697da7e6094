"""Graphs of MLPs and CNNs: against loops over units, and with batch norm as part of the weights."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import fuse_conv_bn_eval

from prisma.analysis.modularity.network_graph import network_graph
from prisma.errors import PrismaError
from tests.analysis.modularity.nets import mlp


def weights_between(network: nn.Module) -> dict[tuple[str, str], np.ndarray]:
    graph = network_graph(network)
    names = list(graph.layers)
    return {(names[e.source], names[e.target]): e.weight.toarray() for e in graph.edges}


def drawn(network: nn.Module) -> nn.Module:
    """All weights and buffers at random, for inference."""
    with torch.no_grad():
        for name, x in [*network.named_parameters(), *network.named_buffers()]:
            if x.is_floating_point():
                x.copy_(torch.rand_like(x) + 0.1 if name.endswith("var") else torch.randn_like(x))
    return network.eval()


def test_an_mlp_is_what_a_double_loop_over_its_weights_makes_of_it() -> None:
    network = mlp(5, 4, 3)
    graph = network_graph(network)
    expected = np.zeros((12, 12))
    for start, layer in ((0, network[0]), (5, network[2])):
        for unit in range(layer.out_features):
            for read in range(layer.in_features):
                value = abs(layer.weight[unit, read].item())
                expected[start + read, start + layer.in_features + unit] = value
    assert np.allclose(graph.adjacency.toarray(), expected + expected.T)
    assert graph.layers == {"input_1": 5, "0": 4, "2": 3} and not graph.pruned


def test_batch_norm_is_part_of_the_convolution_before_it() -> None:
    convs, norms = [nn.Conv2d(3, 6, 3), nn.Conv2d(6, 4, 3)], [nn.BatchNorm2d(6), nn.BatchNorm2d(4)]
    network = drawn(nn.Sequential(convs[0], norms[0], nn.ReLU(), nn.MaxPool2d(2), convs[1], norms[1], nn.ReLU()))
    fused = [fuse_conv_bn_eval(conv, norm) for conv, norm in zip(convs, norms, strict=True)]
    plain = nn.Sequential(fused[0], nn.ReLU(), nn.MaxPool2d(2), fused[1])
    found, expected = weights_between(network), weights_between(plain)
    for one, other in zip(found.values(), expected.values(), strict=True):
        assert np.allclose(one, other, rtol=1e-5)
    assert list(found) == [("input_1", "0"), ("0", "4")]


def test_a_linear_layer_behind_a_flattening_reads_every_place_of_a_channel() -> None:
    network = drawn(nn.Sequential(nn.Conv2d(1, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 4, 5)))
    found = weights_between(network)["0", "3"]
    assert np.allclose(found, network[3].weight.detach().abs().view(5, 3, 4).sum(2).T, atol=1e-6)


class Residual(nn.Module):
    """Two branches that are added, a concatenation, a norm before a layer, a mean over places."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 1)
        self.norm, self.branch = nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1)
        self.wide, self.head = nn.Conv2d(4, 3, 1), nn.Linear(7, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.branch(F.relu(self.norm(x)))
        x = torch.cat([F.max_pool2d(x, 2), F.avg_pool2d(self.wide(x), 2)], dim=1)
        return self.head(F.dropout(x.mean((2, 3)), 0.5, self.training))


def test_residual_connections_concatenations_and_norms_before_a_layer() -> None:
    network = drawn(Residual())
    assert isinstance(network, Residual)
    found = weights_between(network)
    assert set(found) == {
        ("x", "stem"), ("stem", "branch"), ("stem", "wide"), ("branch", "wide"), ("stem", "head"), ("branch", "head"),
        ("wide", "head"),
    }  # fmt: skip
    norm = (network.norm.weight / (network.norm.running_var + network.norm.eps).sqrt()).abs()  # type: ignore[operator]
    read = network.branch.weight.abs().sum((2, 3)) * norm
    assert np.allclose(found["stem", "branch"], read.T.detach(), rtol=1e-5)
    head = network.head.weight.detach().abs()
    assert np.allclose(found["branch", "head"], head[:, :4].T) and np.allclose(found["wide", "head"], head[:, 4:].T)
    assert np.allclose(found["branch", "wide"], found["stem", "wide"])


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(self.first(x)).tanh())


def test_a_layer_that_is_used_twice_is_one_layer() -> None:
    network = Twice()
    found = weights_between(network)
    assert set(found) == {("x", "first"), ("first", "first"), ("first", "second")}
    own = network.first.weight.detach().abs()
    assert np.allclose(found["first", "first"], np.triu((own + own.T).numpy(), 1))


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) if x.sum() > 0 else x


class Mixing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x).transpose(0, 1)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Branching(), "expected a forward that is the same for all inputs; found one of Branching"),
        (Mixing(), "expected channels that can be followed; found transpose at transpose \\(an axis counted from"),
        (nn.Sequential(nn.Linear(2, 2), nn.LSTM(2, 2)), "found LSTM at 1: pass a part"),
        (nn.Sequential(nn.Linear(2, 3), nn.Linear(2, 2)), "expected 1 to read 3 channels of 0; found 2 inputs"),
        (nn.Sequential(nn.ReLU()), "expected a network with linear layers or convolutions; found none"),
        (nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(4), nn.Linear(3, 1)), "norm of 3 channels; found one of 4"),
    ],
)
def test_what_cannot_be_followed_is_one_sentence(network: nn.Module, message: str) -> None:
    with pytest.raises(PrismaError, match=message):
        network_graph(network)
