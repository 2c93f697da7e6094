"""What operations do to channels: the weights of edges against gradients, and what is refused."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prisma.analysis.modularity.network_graph import network_graph
from prisma.errors import PrismaError
from tests.analysis.modularity.between import Between, Operation, by_gradients, edges_of

FOLLOWED: dict[str, Operation] = {
    "relu": lambda _, x: F.relu(x),
    "half": lambda _, x: 0.5 * x,
    "divided": lambda _, x: x / 4,
    "minus": lambda _, x: 1 - 3 * x,
    "sum": lambda _, x: x + 0.5 * x,
    "alpha": lambda _, x: torch.add(x, x, alpha=2),
    "bias": lambda self, x: x + self.scale[:, None, None],
    "scale": lambda self, x: x * self.scale.view(-1, 1, 1),
    "divisor": lambda self, x: x / self.scale.reshape(1, -1, 1, 1),
    "cat": lambda self, x: torch.cat([x, 2 * x, x[:, :1] * 3], 1),
    "pool": lambda _, x: F.avg_pool2d(x, 2),
    "max_pool": lambda _, x: torch.max_pool2d(x, 2),
    "mean": lambda _, x: x.mean((2, 3)),
    "mean_of_last": lambda _, x: x.mean(-1).mean(dim=-1),
    "mean_kept": lambda _, x: x.mean((-2, -1), keepdim=True).flatten(1),
    "gated": lambda _, x: (x * torch.ones(1)).flatten(start_dim=1),
}


@pytest.mark.parametrize("name", FOLLOWED)
def test_edges_have_the_weights_that_gradients_have(name: str) -> None:
    network = Between(FOLLOWED[name])
    assert np.allclose(edges_of(network), by_gradients(network), rtol=1e-4)


REFUSED: dict[str, Operation] = {
    "mean": lambda _, x: x.mean(-3),
    "amax": lambda _, x: x.amax(1),
    "mean of all": lambda _, x: x.mean() + x[:, :, :, :],
    "sum": lambda _, x: x.sum((2, 3)),
    "flip": lambda _, x: x.flip(1),
    "chunk": lambda _, x: x.chunk(2, 1)[0],
    "pixel_shuffle": lambda _, x: F.pixel_shuffle(x, 2),
    "cumsum": lambda _, x: x.cumsum(1),
    "mul": lambda _, x: x * x.size(1),
    "add": lambda self, x: x[:, :1] + self.scale.view(-1, 1, 1),
    "matmul": lambda _, x: x.flatten(2) @ x.flatten(2).transpose(1, 2),
    "normalize": lambda _, x: F.normalize(x, dim=1),
    "GLU": lambda self, x: self.glu(x),
    "ConstantPad1d": lambda self, x: self.pad(x.mean((2, 3))),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_mixes_channels_is_refused_by_name(name: str) -> None:
    with pytest.raises(PrismaError, match=r"expected channels that can be followed; found ") as error:
        network_graph(Between(REFUSED[name]))
    assert name.split()[0] in str(error.value)


class Gated(nn.Module):
    """A gate of one channel that multiplies all others, and a layer that reads the input again."""

    def __init__(self) -> None:
        super().__init__()
        self.value, self.gate, self.reader = nn.Conv2d(2, 4, 1), nn.Conv2d(2, 1, 1), nn.Conv2d(6, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.reader(torch.cat([self.value(x) * self.gate(x).sigmoid(), x], 1))


def test_a_gate_of_one_channel_reaches_all_and_an_input_is_read_again() -> None:
    network = Gated()
    graph = network_graph(network)
    names = list(graph.layers)
    weight = {(names[e.source], names[e.target]): e.weight.toarray() for e in graph.edges}
    read = network.reader.weight.detach().abs()[:, :, 0, 0].T.numpy()
    assert np.allclose(weight["value", "reader"], read[:4], rtol=1e-6)
    assert np.allclose(weight["gate", "reader"], read[:4].sum(0, keepdims=True), rtol=1e-6)
    assert np.allclose(weight["x", "reader"], read[4:], rtol=1e-6)
