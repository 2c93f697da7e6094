"""A model in which it is known which direction carries which variable."""

import torch
from torch import Tensor

from prisma import ViT, ViTConfig

FEATURES = 8
CONFIG = ViTConfig(
    image_size=2, patch_size=2, channels=2, n_layers=1, d_model=FEATURES, n_heads=2, d_mlp=0, n_classes=4,
    norm="none", class_token=False, positions=False, pool="mean",
)  # fmt: skip


@torch.no_grad()
def two_variables() -> tuple[ViT, Tensor]:
    """(model, directions [feature, variable]). Pixels 0 and 1 are the variables a and b, each -1 or 1.

    The stream is an orthogonal map of the pixels, attention writes nothing, and the class 2 [b > 0] + [a > 0] reads the
    two directions alone.
    """
    torch.manual_seed(0)
    model = ViT(CONFIG).eval()
    basis = torch.linalg.qr(torch.randn(FEATURES, FEATURES)).Q
    for parameter in model.parameters():
        parameter.zero_()
    model.embed.patch.weight.copy_(basis.view_as(model.embed.patch.weight))
    signs = torch.tensor([[2.0 * (c & 1) - 1, (c & 2) - 1.0] for c in range(4)])
    model.readout.head.weight.copy_(0.5 * signs @ basis[:, :2].T)
    return model.requires_grad_(False), basis[:, :2]


def pixels(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """(images, variables [n, 2], each 0 or 1); the other pixels are noise."""
    random = torch.Generator().manual_seed(seed)
    x, values = 0.1 * torch.randn(n, FEATURES, generator=random), torch.randint(2, (n, 2), generator=random)
    x[:, :2] = 2.0 * values - 1
    return x.view(n, 2, 2, 2), values


def triples(n: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """(bases, sources, labels of the base with the source's a)."""
    (base, own), (source, other) = pixels(n, seed), pixels(n, seed + 100)
    return base, source, 2 * own[:, 1] + other[:, 0]
