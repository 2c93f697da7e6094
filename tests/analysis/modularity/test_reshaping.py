"""What changes of shape do to channels: the weights of edges against gradients, and what is refused."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from prisma.analysis.modularity.network_graph import network_graph
from prisma.errors import PrismaError
from tests.analysis.modularity.between import CHANNELS, SIDE, Between, Operation, by_gradients, edges_of

FOLLOWED: dict[str, Operation] = {
    "channels_last": lambda self, x: (x.permute(0, 2, 3, 1) * self.scale).permute(0, 3, 1, 2),
    "more_channels": lambda _, x: F.pad(x, (0, 0, 0, 0, 2, 1)),
    "shortcut": lambda _, x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 1)) * 3,
    "some_channels": lambda _, x: x[:, 1:3],
    "ellipsis": lambda _, x: x[..., 1:],
    "cat_of_places": lambda _, x: torch.cat([x, x], -1)[..., :6],
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
    assert np.allclose(edges_of(network), by_gradients(network), rtol=1e-4)


REFUSED: dict[str, Operation] = {
    "getitem": lambda _, x: x[:, [0, 2]],
    "pad": lambda _, x: F.pad(x, (0, 0, 0, 0, 1, -1)),
    "view": lambda _, x: x.view(1, 2, -1).flatten(1),
    "transpose": lambda _, x: x.transpose(1, 2),
    "getattr": lambda _, x: x.mean((2, 3)).T,
    "squeeze": lambda _, x: x.mean((2, 3), keepdim=True).squeeze(),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_mixes_channels_is_refused_by_name(name: str) -> None:
    with pytest.raises(PrismaError, match=r"expected channels that can be followed; found ") as error:
        network_graph(Between(REFUSED[name]))
    assert name.split()[0] in str(error.value) or name == "transpose", "where the reader is another layer"
