"""What operations do to channels: the weights of edges against gradients, and what is refused."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prisma.analysis.modularity.network_graph import network_graph
from prisma.errors import PrismaError

CHANNELS, SIDE = 4, 6
Operation = Callable[["Between", Tensor], Tensor]


class Between(nn.Module):
    """A convolution, an operation, and a layer that reads it. All weights are above 0, so that no gradients cancel."""

    def __init__(self, operation: Operation) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.operation, self.first = operation, nn.Conv2d(2, CHANNELS, 1)
        self.scale = nn.Parameter(torch.rand(CHANNELS) + 0.5)
        self.gate, self.pad, self.glu = nn.Conv2d(2, 1, 1), nn.ConstantPad1d((1, 1), 0.0), nn.GLU(1)
        with torch.no_grad():
            found = operation(self, self.first(torch.rand(1, 2, SIDE, SIDE)))
        self.reader: nn.Module = nn.Linear(found.shape[-1], 3) if found.ndim < 4 else nn.Conv2d(found.shape[1], 3, 2)
        with torch.no_grad():
            for x in self.parameters():
                x.abs_()

    def forward(self, x: Tensor) -> Tensor:
        return self.reader(self.operation(self, self.first(x)))


def by_gradients(network: Between) -> np.ndarray:
    """[unit of the first, unit of the reader]: the gradient of a unit in the middle, summed over places."""
    read: list[Tensor] = []
    network.first.register_forward_hook(lambda _, __, output: read.append(output))
    out = network(torch.rand(1, 2, SIDE, SIDE) + 1)
    rows = []
    for unit in range(3):
        value = out[0, unit, out.shape[2] // 2, out.shape[3] // 2] if out.ndim == 4 else out[..., unit].flatten()[0]
        (moved,) = torch.autograd.grad(value, read[0], retain_graph=True)
        rows.append(moved.abs().sum((0, 2, 3)))
    return torch.stack(rows, 1).numpy()


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
    "channels_last": lambda self, x: (x.permute(0, 2, 3, 1) * self.scale).permute(0, 3, 1, 2),
    "more_channels": lambda _, x: F.pad(x, (0, 0, 0, 0, 2, 1)),
    "shortcut": lambda _, x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 1)) * 3,
    "some_channels": lambda _, x: x[:, 1:3],
    "ellipsis": lambda _, x: x[..., 1:],
    "cat": lambda self, x: torch.cat([x, 2 * x, x[:, :1] * 3], 1),
    "cat_of_places": lambda _, x: torch.cat([x, x], -1)[..., :6],
    "pool": lambda _, x: F.avg_pool2d(x, 2),
    "max_pool": lambda _, x: torch.max_pool2d(x, 2),
    "mean": lambda _, x: x.mean((2, 3)),
    "mean_of_last": lambda _, x: x.mean(-1).mean(dim=-1),
    "mean_kept": lambda _, x: x.mean((-2, -1), keepdim=True).flatten(1),
    "gated": lambda _, x: (x * torch.ones(1)).flatten(start_dim=1),
    "flatten": lambda _, x: torch.flatten(x, 1),
    "flatten_from_last": lambda _, x: x.permute(0, 2, 3, 1).flatten(1),
    "flatten_of_places": lambda _, x: x.flatten(2).mean(-1),
    "view": lambda _, x: x.view(x.size(0), -1),
    "reshape": lambda _, x: x.reshape(-1, CHANNELS * SIDE * SIDE),
    "squeeze": lambda _, x: F.adaptive_avg_pool2d(x, 1).squeeze(-1).squeeze(2),
    "unsqueeze": lambda _, x: x.mean((2, 3)).unsqueeze(-1).unsqueeze(3).flatten(1),
    "transpose": lambda _, x: x.flatten(2).transpose(1, 2),
    "padding": lambda self, x: F.pad(x, (1, 1, 1, 1)),
}


@pytest.mark.parametrize("name", FOLLOWED)
def test_edges_have_the_weights_that_gradients_have(name: str) -> None:
    network = Between(FOLLOWED[name])
    graph = network_graph(network)
    names = list(graph.layers)
    (edges,) = [e for e in graph.edges if names[e.source] == "first" and names[e.target] == "reader"]
    assert np.allclose(edges.weight.toarray(), by_gradients(network), rtol=1e-4)


REFUSED: dict[str, Operation] = {
    "mean": lambda _, x: x.mean(-3),
    "amax": lambda _, x: x.amax(1),
    "mean of all": lambda _, x: x.mean() + x[:, :, :, :],
    "sum": lambda _, x: x.sum((2, 3)),
    "getitem": lambda _, x: x[:, [0, 2]],
    "flip": lambda _, x: x.flip(1),
    "chunk": lambda _, x: x.chunk(2, 1)[0],
    "pad": lambda _, x: F.pad(x, (0, 0, 0, 0, 1, -1)),
    "pixel_shuffle": lambda _, x: F.pixel_shuffle(x, 2),
    "cumsum": lambda _, x: x.cumsum(1),
    "view": lambda _, x: x.view(1, 2, -1).flatten(1),
    "mul": lambda _, x: x * x.size(1),
    "add": lambda self, x: x[:, :1] + self.scale.view(-1, 1, 1),
    "transpose": lambda _, x: x.transpose(1, 2),
    "matmul": lambda _, x: x.flatten(2) @ x.flatten(2).transpose(1, 2),
    "normalize": lambda _, x: F.normalize(x, dim=1),
    "GLU": lambda self, x: self.glu(x),
    "ConstantPad1d": lambda self, x: self.pad(x.mean((2, 3))),
    "getattr": lambda _, x: x.mean((2, 3)).T,
    "squeeze": lambda _, x: x.mean((2, 3), keepdim=True).squeeze(),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_mixes_channels_is_refused_by_name(name: str) -> None:
    with pytest.raises(PrismaError, match=r"expected channels that can be followed; found ") as error:
        network_graph(Between(REFUSED[name]))
    assert name.split()[0] in str(error.value) or name == "transpose", "where the reader is another layer"


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
