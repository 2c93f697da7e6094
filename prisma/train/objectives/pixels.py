"""Objectives that ask for the image itself: all of its patches, or those that the encoder did not see.

Source: He et al. 2111.06377 (masked autoencoders).
"""

from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from torch import Tensor, nn

from prisma.config import ViTConfig
from prisma.data.task import SEED, Task
from prisma.train.objectives.base import Squares, expect
from prisma.train.objectives.learners import Decoder, MaskedAutoencoder, PatchReadout, decoder_config
from prisma.vit import ViT, patches_of

if TYPE_CHECKING:
    from prisma.train.config import TrainConfig

_DROPS, _DROPS_OF_EVALUATION = 2, 3  # streams of random numbers from one seed, beside those of `prisma.train.order`
_LEAST = 1e-6  # added to the variance of a patch's pixels


class Reconstruction(Squares):
    """The token of every patch gives back the patch's pixels: the readout without its pooling. No pixel is hidden.

    What it has to learn is to keep the pixels within `d_model` numbers a patch. The logits of the model, which pools,
    are the mean of what its patches give.
    """

    name = "reconstruction"
    explained = (
        "Loss is the mean squared error of the pixels that the patches' tokens give back, as the model gets them "
        "(normalised); r2 is R², the share of the pixels' variance about the mean patch that is explained: 1 is best, "
        "and 0 is as good as always the mean patch."
    )

    def __init__(self, config: ViTConfig, normalised: bool) -> None:
        super().__init__(pixel_names(config))
        self.config, self.normalised = config, normalised

    @classmethod
    def of(cls, model: ViTConfig, training: "TrainConfig", data: Task) -> Self:
        plain = model.pool == "mean" and not (model.pool_prefix or model.norm_pooled)
        what = "a model with pool=mean, whose readout is the same for every patch,"
        expect(plain, cls.name, what, f"pool={model.pool}, or prefix tokens or norm_pooled with it")
        _expect_contrast(model, training, cls.name)
        return cls(model, training.norm_pixels)

    def learner(self, model: ViT, decoder: nn.Module | None = None) -> nn.Module:
        return PatchReadout(model)

    def question(self, images: Tensor, targets: Tensor, draws: Tensor | None) -> tuple[tuple[Tensor, ...], Tensor]:
        return (images,), pixels_to_give(self.config, images, self.normalised)


class Masked(Squares):
    """A masked autoencoder: the encoder sees some patches of each image, and a small decoder gives the others' pixels.

    The share `drop` of the patches is taken out before the first block, others for each image and step. The decoder
    gets the encoder's tokens, and one learned token in the place of each patch that is missing. Only the missing
    patches count in the loss.
    """

    name = "masked"
    has_draws = True
    has_decoder = True
    explained = (
        "Loss is the mean squared error of the pixels of the patches that the encoder did not see; r2 is R², the share "
        "of their variance about the mean patch that is explained: 1 is best, and 0 is as good as always the mean "
        "patch. Both are of the encoder with the decoder that it was trained with, which is not published."
    )

    def __init__(self, config: ViTConfig, training: "TrainConfig") -> None:
        super().__init__()
        self.config, self.training, self.normalised = config, training, training.norm_pixels
        self.n_kept = config.n_patches - round(config.n_patches * training.drop)

    @classmethod
    def of(cls, model: ViTConfig, training: "TrainConfig", data: Task) -> Self:
        tied = {"rotary": model.rotary != "none", "score_bias": model.score_bias, "frames": model.frames > 1}
        odd = [name for name, there in tied.items() if there]
        expect(not odd, cls.name, "a model of images whose attention does not know the number of tokens", odd)
        plain = model.pool in ("class", "mean", "class_mean") and not model.norm_pooled
        expect(plain, cls.name, "pool=class, mean or class_mean, after the final norm,", f"pool={model.pool}")
        expect(not training.ema, cls.name, "ema=0, because a decoder has no running mean,", training.ema)
        expect(training.trained == "all", cls.name, "trained=all, because a decoder needs all,", training.trained)
        _expect_contrast(model, training, cls.name)
        decoder_config(model, training.decoder_layers, training.decoder_d_model, training.decoder_heads)
        found = cls(model, training)
        what = "a share `drop` that leaves and takes at least one patch of each image"
        expect(0 < found.n_kept < model.n_patches, cls.name, what, f"{training.drop:g} of {model.n_patches}")
        return found

    def decoder(self, seed: int) -> nn.Module:
        shape = self.training.decoder_layers, self.training.decoder_d_model, self.training.decoder_heads
        with torch.random.fork_rng(devices=()), torch.device("cpu"):
            torch.manual_seed(seed + 2**32)  # beyond all seeds of models
            return Decoder(self.config, decoder_config(self.config, *shape))

    def learner(self, model: ViT, decoder: nn.Module | None = None) -> nn.Module:
        assert isinstance(decoder, Decoder), "it is trained beside the model"
        return MaskedAutoencoder(model, decoder, self.n_kept)

    def draws(self, n: int, step: int) -> Tensor:
        return patch_orders((self.training.order_seed, _DROPS, step), n, self.config.n_patches)

    def evaluation_draws(self, n: int) -> Tensor:
        return patch_orders((SEED, _DROPS_OF_EVALUATION), n, self.config.n_patches)

    def question(self, images: Tensor, targets: Tensor, draws: Tensor | None) -> tuple[tuple[Tensor, ...], Tensor]:
        assert draws is not None, "every image has an order of its patches"
        dropped = draws[:, self.n_kept :, None]
        pixels = pixels_to_give(self.config, images, self.normalised)
        return (images, draws), pixels.gather(1, dropped.expand(-1, -1, pixels.shape[-1]))


def patch_orders(seed: tuple[int, ...], n: int, patches: int) -> Tensor:
    """An order of the patches for each of `n` images [n, patch], int64: the first are kept, the last dropped."""
    numbers = np.random.RandomState(seed).random_sample((n, patches))
    return torch.from_numpy(numbers.argsort(1, kind="stable").astype(np.int64))


def pixels_to_give(config: ViTConfig, images: Tensor, normalised: bool) -> Tensor:
    """The pixels of the patches of normalised images [batch, patch, pixel]; or each patch less its mean, over its
    standard deviation, so that contrast within patches counts and not their brightness.
    """
    pixels = patches_of(config, images)
    if not normalised:
        return pixels
    return (pixels - pixels.mean(-1, keepdim=True)) / (pixels.var(-1, keepdim=True) + _LEAST).sqrt()


def _expect_contrast(model: ViTConfig, training: "TrainConfig", name: str) -> None:
    """Raise PrismaError if patches of one pixel are to be normalised, each by itself."""
    n = len(pixel_names(model))
    expect(n > 1 or not training.norm_pixels, name, "patches of several pixels where norm_pixels is set", n)


def pixel_names(config: ViTConfig) -> tuple[str, ...]:
    """A name for each pixel of a patch, in the order of `patches_of`."""
    axes = {"channel": config.channels, "frame": config.tubelet}
    axes |= dict(zip(("row", "column"), config.patch_sides, strict=True))
    return tuple(
        ", ".join(f"{axis} {i}" for axis, i in zip(axes, place, strict=True) if axes[axis] > 1) or "pixel"
        for place in np.ndindex(*axes.values())
    )
