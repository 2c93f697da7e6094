"""A network with an operation between two layers, and what gradients say of it."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from prisma.analysis.modularity.network_graph import network_graph

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


def edges_of(network: Between) -> np.ndarray:
    """The same, of the graph."""
    graph = network_graph(network)
    names = list(graph.layers)
    (edges,) = [e for e in graph.edges if names[e.source] == "first" and names[e.target] == "reader"]
    return np.asarray(edges.weight.toarray())
