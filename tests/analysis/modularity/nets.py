"""Networks whose graph is known, and those of the published figures, small: digits of 8x8 in the place of MNIST."""

import itertools
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from prisma.data import task


def mlp(*widths: int, seed: int = 0) -> nn.Sequential:
    """Linear layers with ReLU between them."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        pairs = [(nn.Linear(a, b), nn.ReLU()) for a, b in itertools.pairwise(widths)]
    return nn.Sequential(*[part for pair in pairs for part in pair][:-1])


def two_blocks(*widths: int, seed: int = 0) -> nn.Sequential:
    """Two networks of these widths side by side, without a weight between them."""
    halves, both = (mlp(*widths, seed=seed), mlp(*widths, seed=seed + 1)), mlp(*(2 * width for width in widths))
    with torch.no_grad():
        for whole, *parts in zip(both, *halves, strict=True):
            if isinstance(whole, nn.Linear):
                whole.weight.copy_(torch.block_diag(*(part.weight for part in parts)))
                whole.bias.copy_(torch.cat([part.bias for part in parts]))
    return both


def planted(sizes: tuple[int, ...] = (20, 20, 20), strong: float = 1.0, weak: float = 0.05) -> np.ndarray:
    """A symmetric matrix of communities: strong weights inside, weak ones between."""
    random = np.random.default_rng(0)
    community = np.repeat(np.arange(len(sizes)), sizes)
    upper = np.triu(random.random((sum(sizes),) * 2), 1)
    weights = upper * np.where(community[:, None] == community, strong, weak)
    return weights + weights.T


@cache
def published() -> dict[str, nn.Sequential]:
    """The networks of toumei's figures: 64-32-10 reads a digit, and two of it with a sum behind add two digits."""
    images, labels = task("digits").inputs("train")
    pixels = images.flatten(1)
    draws = torch.Generator().manual_seed(0)

    def fit(network: nn.Module, parts: nn.Module, steps: int, lr: float, two: bool) -> None:
        optimizer = torch.optim.Adam(parts.parameters(), lr)
        for _ in range(steps):
            rows = torch.randint(len(pixels), (64, 2), generator=draws)
            optimizer.zero_grad()
            if two:
                answer = network(pixels[rows].flatten(1))[:, 0]
                F.mse_loss(answer, labels[rows].sum(1).float()).backward()
            else:
                F.cross_entropy(network(pixels[rows[:, 0]]), labels[rows[:, 0]]).backward()
            optimizer.step()

    found = {"untrained": mlp(64, 32, 10), "trained": mlp(64, 32, 10)}
    fit(found["trained"], found["trained"], 300, 3e-2, two=False)
    for name in ("engineered", "cross weights trained"):
        both = mlp(128, 64, 20)
        with torch.no_grad():
            for i in (0, 2):
                weight = found["trained"][i].weight
                both[i].weight.copy_(torch.block_diag(weight, weight))
                both[i].bias.copy_(found["trained"][i].bias.repeat(2))
        found[name] = nn.Sequential(*both, *mlp(20, 20, seed=3), *mlp(20, 4, 1, seed=4))
        fit(found[name], found[name][3:], 300, 2e-3, two=True)
    fit(found[name], found[name], 300, 2e-3, two=True)
    return found
