"""Attention rollout: how much of each embedded token is in each final token, if attention were all that mixes tokens.

    R_0 = I,   R_l = (residual I + (1 - residual) A_l) R_{l-1}

where A_l is the pattern of layer l with its heads combined into one. In divided attention, time and space are two
layers; in attention pooling, the pattern of the pooling query gives the readout's row. Values, MLPs and norms are
ignored.

Source: Abnar & Zuidema 2005.00928.

Shapes: B image, Q query, K key, H head.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from prisma.analysis.attention.token_grid import image_passes
from prisma.analysis.attention.token_maps import READOUTS, TokenMaps, check_mixing, mixed, over_patches, readout_row
from prisma.analysis.border import guarded, record
from prisma.inventory import site_names
from prisma.vit import ViT


@dataclass(frozen=True, kw_only=True, eq=False)
class Rollout(TokenMaps):
    """How much of each embedded token is in each final token, and in what the model reads out.

    Shares of attention: every row of `map`, and `readout`, sums to 1 over keys. 1 / tokens is a token that is attended
    to no more than any other.
    """


@guarded
@torch.no_grad()
def rollout(
    model: ViT, images: Tensor, *, heads: str = "mean", residual: float = 0.5, batch: int | None = None
) -> Rollout:
    """Which parts of the image does the readout draw on, judged by attention alone?

    `patches` is a map over the image: a large number is a patch from which much attention flows to the readout, over
    all layers. It sums to 1 with the prefix tokens; it has no sign and does not depend on the answer, so use
    `relevance` to ask about a class.

    Args:
        images: [image, channel, (frame,) height, width].
        heads: how the heads of a layer are combined: `"mean"` (the paper), `"max"` or `"min"`; rows then sum to 1.
        residual: the share of a token that the residual connection carries past attention, from 0 to below 1.
        batch: images in one pass; by default as many as have patterns of about 256 MiB.

    Returns:
        `map` [image, query, key], `readout` [image, key], `patches` [image, (time,) row, column].

    Raises:
        PrismaError: the images do not fit the model, or an option has another value than those above.

    Source: Abnar & Zuidema 2005.00928.
    """
    check_mixing(heads, residual)
    parts = [_rolled(model, some, heads, residual) for some in image_passes(model, images, batch)]
    map_BQK, readout_BK = (torch.cat(part) for part in zip(*parts, strict=True))
    metadata = {"analysis": "rollout", "heads": heads, "residual": residual, "readout": READOUTS[model.config.pool]}
    return Rollout(metadata=metadata, patches=over_patches(model.config, readout_BK), readout=readout_BK, map=map_BQK)


def _rolled(model: ViT, images: Tensor, heads: str, residual: float) -> tuple[Tensor, Tensor]:
    config = model.config
    sites = [site for site in site_names(config) if site.endswith(".pattern")]
    x, acts = record(model, images, sites, stop=True)
    exact = torch.promote_types(x.dtype, torch.float32)  # as patterns are
    map_BQK = torch.eye(config.n_tokens, dtype=exact, device=x.device).expand(len(images), -1, -1)
    for site in sites:
        if site != "pool.pattern":
            map_BQK = mixed(acts[site], heads, residual, config.n_tokens) @ map_BQK
    return map_BQK, readout_row(config, acts.get("pool.pattern"), map_BQK)
