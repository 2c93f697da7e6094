"""Attention flow: how much can flow from each embedded token to the readout, if attention weights are widths of pipes.

A graph with a node for each token before and after each layer. The edge from token k before layer l to token q after it
holds residual [q = k] + (1 - residual) A_l[q, k], the layer of attention rollout; the last tokens are joined to the
readout by what the pooling reads of each. The flow of token k is the largest flow from it to the readout.

Unlike rollout, which multiplies weights along a path, a path here is as wide as its narrowest edge.

Source: Abnar & Zuidema 2005.00928.

Shapes: B image, L layer, Q query, K key, T token, H head.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from prisma.analysis.attention.token_grid import chunks
from prisma.analysis.attention.token_maps import (
    READOUTS,
    TokenMaps,
    check_mixing,
    head_mean,
    mixed,
    over_patches,
    readout_weights,
)  # fmt: skip
from prisma.errors import PrismaError
from prisma.inventory import site_names
from prisma.runs import record
from prisma.vit import ViT

Capacities = np.ndarray[Any, np.dtype[np.float64]]
UNIT = 2**30  # capacities are whole numbers of 32 bits


@dataclass(frozen=True, kw_only=True, eq=False)
class AttentionFlow(TokenMaps):
    """Flows from 0 to 1. They do not sum to 1: each token has the pipes to itself."""


@torch.no_grad()
def attention_flow(
    model: ViT, images: Tensor, *, heads: str = "mean", residual: float = 0.5, batch: int | None = None
) -> AttentionFlow:
    """The largest flow from every embedded token to the readout, for each image: one maximum flow per token.

    Capacities are rounded to multiples of 2^-30. A ViT-B/16 image takes seconds, and needs scipy.

    Args:
        images: [image, channel, (frame,) height, width].
        heads, residual, batch: as in `rollout`.

    Returns:
        `readout` [image, key], `patches` [image, (time,) row, column].

    Raises:
        PrismaError: the images do not fit, or an option is none.
    """
    check_mixing(heads, residual)
    readout_BK = torch.cat([_flows(model, some, heads, residual) for some in chunks(model, images, batch)])
    said = {"analysis": "attention_flow", "heads": heads, "residual": residual}
    said["readout"] = READOUTS[model.config.pool]
    return AttentionFlow(metadata=said, patches=over_patches(model.config, readout_BK), readout=readout_BK)


def _flows(model: ViT, images: Tensor, heads: str, residual: float) -> Tensor:
    """[image, key]."""
    config = model.config
    sites = [site for site in site_names(config) if site.endswith(".pattern")]
    x, acts = record(model, images, sites, stop=True)
    layers = [mixed(acts[site], heads, residual, config.n_tokens) for site in sites if site != "pool.pattern"]
    if config.pool == "attention":
        row_BK = head_mean(acts["pool.pattern"])[:, 0]
        top_BT = F.pad(row_BK, (config.n_tokens - row_BK.shape[1], 0))
    else:
        top_BT = readout_weights(config).expand(len(images), -1)
    weights = zip(top_BT, *layers, strict=True)
    flows = [readout_flows(*(x.double().cpu().numpy() for x in of_image)) for of_image in weights]
    return torch.tensor(flows, dtype=torch.promote_types(x.dtype, torch.float32), device=x.device)


def readout_flows(top_T: Capacities, *layers: Capacities) -> list[float]:
    """The largest flow to the readout from each token before the first layer.

    Args:
        top_T: capacity from each last token to the readout.
        layers: capacities [query, key] of each layer, the first one first.

    Raises:
        PrismaError: scipy is not installed.
    """
    try:
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import maximum_flow
    except ImportError:
        raise PrismaError("attention flow needs scipy; found none: pip install scipy") from None
    tokens = len(top_T)
    token_T = np.arange(tokens)
    # node 0 is the readout; then come the tokens after the last layer, and so on down to those before the first
    edges = [(np.zeros(tokens, int), 1 + token_T, top_T)]
    for depth, layer_QK in enumerate(reversed(layers)):
        query_QK, key_QK = np.meshgrid(token_T, token_T, indexing="ij")
        above = 1 + depth * tokens
        edges.append(((above + query_QK).ravel(), (above + tokens + key_QK).ravel(), layer_QK.ravel()))
    start, end, capacity = (np.concatenate(part) for part in zip(*edges, strict=True))
    nodes, bottom = 1 + (len(layers) + 1) * tokens, 1 + len(layers) * tokens
    graph = coo_array((np.rint(capacity * UNIT).astype(np.int32), (start, end)), shape=(nodes, nodes)).tocsr()
    return [maximum_flow(graph, 0, bottom + key).flow_value / UNIT for key in range(tokens)]
