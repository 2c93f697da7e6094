"""Attention rollout: how much of each embedded token stands in each token at the end, if attention were all there is.

    R_0 = I,   R_l = (residual I + (1 - residual) A_l) R_{l-1}

where A_l is the pattern of layer l, its heads fused into one. Of divided attention, time and space are two layers; of
attention pooling, the pooling query is the readout's row. Values, MLPs and norms play no part.

Source: Abnar & Zuidema 2005.00928.

Shapes: B image, Q query, K key, H head.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from prisma.analysis.attention.token_grid import chunks
from prisma.analysis.attention.token_maps import READOUTS, TokenMaps, check_mixing, mixed, over_patches, readout_row
from prisma.inventory import site_names
from prisma.runs import record
from prisma.vit import ViT


@dataclass(frozen=True, kw_only=True, eq=False)
class Rollout(TokenMaps):
    """Shares of attention: every row of `map`, and `readout`, sums to 1 over keys."""


@torch.no_grad()
def rollout(
    model: ViT, images: Tensor, *, heads: str = "mean", residual: float = 0.5, batch: int | None = None
) -> Rollout:
    """Attention rollout of each image.

    Args:
        images: [image, channel, (frame,) height, width].
        heads: how the heads of a layer become one: `"mean"` (the paper), `"max"` or `"min"`, rows scaled to sum to 1.
        residual: the share of the stream that passes a layer's attention by.
        batch: at most so many images in one pass; by default as many as have patterns of about 256 MiB.

    Returns:
        `map` [image, query, key], `readout` [image, key], `patches` [image, (time,) row, column].

    Raises:
        PrismaError: the images do not fit, or an option is none.
    """
    check_mixing(heads, residual)
    parts = [_rolled(model, some, heads, residual) for some in chunks(model, images, batch)]
    map_BQK, readout_BK = (torch.cat(part) for part in zip(*parts, strict=True))
    said = {"analysis": "rollout", "heads": heads, "residual": residual, "readout": READOUTS[model.config.pool]}
    return Rollout(metadata=said, patches=over_patches(model.config, readout_BK), readout=readout_BK, map=map_BQK)


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
