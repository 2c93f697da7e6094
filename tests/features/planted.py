"""Networks in which what a unit wants to see is known."""

import torch
from torch import Tensor, nn

import prisma

PATCH = 6
TEMPLATE = torch.tensor([[1, 1, 1, -1, -1, -1]] * 3 + [[1, -1, -1, -1, -1, 1]] * 3).float()
"""What neuron 0 of `template_mouse` wants in every patch: light where it is 1, dark where it is -1."""


def template_mouse() -> prisma.ViT:
    """A ViT of grey images of 12 x 12 pixels whose residual stream is the pixels of each patch around grey."""
    config = prisma.ViTConfig(
        image_size=2 * PATCH, patch_size=PATCH, channels=1, n_layers=1, d_model=PATCH**2, n_heads=1, d_mlp=3,
        n_classes=2, norm="none", positions=False,
    )  # fmt: skip
    model = prisma.ViT(config).eval().requires_grad_(False)
    for x in model.parameters():
        x.zero_()
    model.embed.patch.weight.copy_(torch.eye(PATCH**2))
    model.embed.patch.bias.fill_(-0.5)
    model.blocks[0].mlp.pre.weight[0] = TEMPLATE.flatten()
    model.blocks[0].mlp.pre.bias[0] = 2.0  # so that it is on for grey
    return model


def patches(images: Tensor) -> Tensor:
    """[n, patch, pixel] of images [n, 1, 12, 12]."""
    return images.unfold(2, PATCH, PATCH).unfold(3, PATCH, PATCH).reshape(len(images), -1, PATCH**2)


def small_cnn(seed: int = 0) -> nn.Module:
    """A CNN of colour images of any size, with three classes."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.Tanh(), nn.Sequential(nn.Conv2d(4, 5, 3, stride=2, padding=1), nn.Tanh()),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(20, 3),
    ).eval()  # fmt: skip
