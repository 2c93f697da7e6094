"""Kinds of tokens: the class token, registers, patches, and of patches those that show the object or only its context.

From masks, a patch is *object* where they cover at least half of it, *context* where they cover nothing of it, and
neither in between. An image may have no token of a kind; its numbers of that kind are NaN. A distillation token is the
first register, although the readout reads it (`pool="distilled"`).

Shapes: B image, T token, P patch.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from prisma.analysis.attention.token_grid import TokenGrid
from prisma.analysis.lens.segmentation import OBJECT
from prisma.analysis.result import Result
from prisma.config import ViTConfig
from prisma.data.task import coverage
from prisma.errors import PrismaError

KINDS = ("class", "registers", "patches", "object", "context")


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenResult(Result):
    """Base of results with numbers of every token, which can be averaged over the tokens of each kind.

    `metadata["prefix"]` is the number of tokens before the patches, `metadata["class_token"]` says whether the first of
    them is a class token.
    """

    coverage: Tensor | None = None  # [image, patch] in [0, 1]: the share of each patch that the object's mask covers

    def kinds(self, tokens: int) -> dict[str, Tensor]:
        """Kind -> which of the tokens are of it [1 or image, token], for the kinds that this model and data have.

        Args:
            tokens: how many tokens there are.
        """
        prefix = self.metadata["prefix"]
        return token_kinds(tokens, prefix, self.metadata.get("class_token", prefix > 0), self.coverage)

    def by_kind(self, values: Tensor, *, of_any: bool = False) -> dict[str, Tensor]:
        """Kind -> [image, ...]: means over the tokens of each kind; NaN where an image has none.

        Args:
            values: [image, ..., token], NaN where a token has no value.
            of_any: instead of the mean, whether one token or more has it, of values that are 1 or 0.
        """
        wide, found = values.detach().cpu().double(), {}
        for kind, mask in self.kinds(values.shape[-1]).items():
            mask_BT = mask.cpu().expand(len(values), -1)
            chosen = mask_BT.view(len(values), *[1] * (values.ndim - 2), -1)
            own = wide.masked_fill(~chosen, torch.nan)
            found[kind] = own.nanmean(-1)
            if of_any:
                found[kind] = (1 - (1 - own).nan_to_num(1).prod(-1)).masked_fill(found[kind].isnan(), torch.nan)
        return found


def token_kinds(tokens: int, prefix: int, class_token: bool, share_BP: Tensor | None) -> dict[str, Tensor]:
    """Kind -> which tokens are of it [1 or image, token]; kinds that no image can have are left out."""
    place = torch.arange(tokens)[None]
    first = int(class_token)
    found = {"class": place < first, "registers": (place >= first) & (place < prefix), "patches": place >= prefix}
    if share_BP is not None:
        none = torch.zeros(len(share_BP), prefix, dtype=torch.bool)
        for kind, patches in {"object": share_BP.cpu() >= OBJECT, "context": share_BP.cpu() == 0}.items():
            found[kind] = torch.cat([none, patches], dim=1)
    return {kind: mask for kind, mask in found.items() if kind in ("object", "context") or mask.any()}


def kinds_metadata(config: ViTConfig) -> dict[str, Any]:
    """What `TokenResult` needs to know of the model."""
    return {"prefix": config.n_prefix, "class_token": TokenGrid.of(config).class_token}


def coverage_of(config: ViTConfig, images: Tensor, masks: Tensor) -> Tensor:
    """The share of each patch that the object covers [image, patch], from masks of pixels or of patches.

    Args:
        masks: [image, height, width] of the images' own size and crop, true (or 1) on the object; or the share of each
            patch [image, row, column], from 0 to 1.

    Raises:
        PrismaError: masks of another number or size, or numbers outside [0, 1]; a model of video.
    """
    share, (pixels, patches) = masks.float(), _sizes(config, images)
    if masks.shape not in ((len(images), *pixels), (len(images), *patches)):
        raise PrismaError(
            f"expected masks [image, height, width] = {[len(images), *pixels]}, of the size and crop of the images, or "
            f"the share of each patch {[len(images), *patches]}; found {list(masks.shape)}"
        )
    if not ((share >= 0) & (share <= 1)).all():
        raise PrismaError("expected masks from 0 to 1; found other numbers")
    if masks.shape[1:] == pixels and pixels != patches:
        p, q = config.patch_sides
        share = coverage(share[:, : patches[0] * p, : patches[1] * q], config.patch_size)
    return share.flatten(1)


def nearest_coverage(config: ViTConfig, images: Tensor, masks: Tensor) -> Tensor:
    """1 or 0 [image, patch]: the mask resized to the grid of patches by the nearest pixel, as Vilas et al. do.

    It is the pixel at the upper left corner of each patch.

    Raises:
        PrismaError: as `coverage_of`; or the masks are not of pixels.
    """
    coverage_of(config, images, masks)
    pixels, patches = _sizes(config, images)
    if masks.shape[1:] != pixels:
        raise PrismaError(f"expected masks of pixels {list(pixels)}; found {list(masks.shape[1:])}")
    return F.interpolate(masks[:, None].float(), patches, mode="nearest").flatten(1)


def _sizes(config: ViTConfig, images: Tensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(height, width) of the images in pixels, and in patches."""
    if config.frames > 1:
        raise PrismaError("expected a model of images, for masks of objects; found a model of video")
    return tuple(images.shape[-2:]), tuple(config.grid[1:])
