"""Modules that answer for a ViT while it is trained on pixels. Their parameters have the names that they have in it.

Shapes: B batch, T token, M d_model, P patch.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prisma.blocks import Block
from prisma.config import ViTConfig
from prisma.layers import make_norm
from prisma.vit import Readout, ViT, draw_matrices


class PatchReadout(nn.Module):
    """Images -> what the readout gives for the token of each patch, without pooling: [batch, patch, class]."""

    def __init__(self, model: ViT) -> None:
        super().__init__()
        self.config = model.config
        self.embed, self.blocks, self.readout = model.embed, model.blocks, model.readout

    def forward(self, images: Tensor) -> Tensor:
        x_BTM = _normed(self.readout, _encoded(self.blocks, self.embed(images)))
        given: Tensor = self.readout.head(x_BTM[:, self.config.n_prefix :])
        return given


class Decoder(nn.Module):
    """The tokens of some patches -> the pixels of the others. It is thrown away after training."""

    def __init__(self, encoder: ViTConfig, config: ViTConfig) -> None:
        super().__init__()
        self.n_prefix, pixels = config.n_prefix, config.channels * config.patch_sides[0] * config.patch_sides[1]
        self.enter = nn.Linear(encoder.d_model, config.d_model)
        self.missing = nn.Parameter(torch.empty(config.d_model))  # in the place of every patch that was dropped
        self.positions = nn.Parameter(torch.empty(config.n_patches, config.d_model))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.ln_final = make_norm(config, config.d_model)
        self.leave = nn.Linear(config.d_model, pixels)
        draw_matrices(self)
        for tokens in (self.missing, self.positions):
            nn.init.trunc_normal_(tokens, std=0.02)

    def forward(self, x_BTM: Tensor, order_BP: Tensor) -> Tensor:
        """The pixels of the dropped patches [batch, dropped patch, pixel].

        Args:
            x_BTM: prefix tokens, then those of the kept patches, in the order of `order_BP`.
            order_BP: all patches of each image, the kept ones first.
        """
        x = self.enter(x_BTM)
        n_kept = x.shape[1] - self.n_prefix
        missing = self.missing.to(x.dtype).expand(len(x), order_BP.shape[1] - n_kept, -1)
        positions = F.pad(self.positions[order_BP], (0, 0, self.n_prefix, 0))
        x = _encoded(self.blocks, torch.cat([x, missing], dim=1) + positions)
        given: Tensor = self.leave(self.ln_final(x[:, self.n_prefix + n_kept :]))
        return given


def decoder_config(encoder: ViTConfig, layers: int, width: int, heads: int) -> ViTConfig:
    """The architecture of a decoder. Raises PrismaError if there is none such."""
    return ViTConfig(
        image_size=encoder.image_size,
        patch_size=encoder.patch_size,
        cut_edge=encoder.cut_edge,
        channels=encoder.channels,
        class_token=encoder.class_token,
        registers=encoder.registers,
        pool="mean",
        n_layers=layers,
        d_model=width,
        n_heads=heads,
        d_mlp=4 * width,
        n_classes=0,
    )


class MaskedAutoencoder(nn.Module):
    """An encoder and its decoder: images and the order of their patches -> the pixels of those that were dropped."""

    def __init__(self, model: ViT, decoder: Decoder, n_kept: int) -> None:
        super().__init__()
        self.config, self.n_kept = model.config, n_kept
        self.embed, self.blocks, self.readout = model.embed, model.blocks, model.readout
        self.decoder = decoder

    def forward(self, images: Tensor, order_BP: Tensor) -> Tensor:
        given: Tensor = self.decoder(self.encoded(images, order_BP[:, : self.n_kept]), order_BP)
        return given

    def encoded(self, images: Tensor, kept: Tensor) -> Tensor:
        """The final tokens of the prefix and of the kept patches, which alone are run: [batch, token, d_model].

        Args:
            kept: the patches of each image that are seen [batch, kept patch].
        """
        x_BTM = self.embed(images)
        prefix, patches = x_BTM.tensor_split([self.config.n_prefix], dim=1)
        seen = patches.gather(1, kept[..., None].expand(-1, -1, patches.shape[-1]))
        return _normed(self.readout, _encoded(self.blocks, torch.cat([prefix, seen], dim=1)))


def _encoded(blocks: nn.ModuleList, x_BTM: Tensor) -> Tensor:
    for block in blocks:
        x_BTM = block(x_BTM)
    return x_BTM


def _normed(readout: Readout, x_BTM: Tensor) -> Tensor:
    return x_BTM if readout.ln_final is None else readout.ln_final(x_BTM)
