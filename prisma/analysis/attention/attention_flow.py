"""Attention flow: the largest flow from each embedded token to the readout, with attention weights as capacities.

A graph with a node for each token before and after each layer. The edge from token k before layer l to token q after it
has the capacity residual [q = k] + (1 - residual) A_l[q, k], the layer of attention rollout; the final tokens are
connected to the readout by the weights of the pooling. The flow of token k is the maximum flow from it to the readout.

Rollout multiplies the weights along a path; here a path carries as much as its smallest edge.

Source: Abnar & Zuidema 2005.00928.

Shapes: B image, L layer, Q query, K key, T token, H head.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from prisma.analysis.attention.token_grid import image_passes
from prisma.analysis.attention.token_maps import (
    READOUTS,
    TokenMaps,
    check_mixing,
    head_mean,
    mixed,
    over_patches,
    readout_weights,
)  # fmt: skip
from prisma.analysis.border import guarded, record
from prisma.errors import PrismaError
from prisma.inventory import site_names
from prisma.vit import ViT

Capacities = np.ndarray[Any, np.dtype[np.float64]]
UNIT = 2**30  # capacities are whole numbers of 32 bits


@dataclass(frozen=True, kw_only=True, eq=False)
class AttentionFlow(TokenMaps):
    """How much attention can flow from each embedded token to the readout.

    Flows from 0 to 1. They do not sum to 1, because the maximum flow of each token is computed by itself, with the
    whole capacity free.
    """


@guarded
@torch.no_grad()
def attention_flow(
    model: ViT, images: Tensor, *, heads: str = "mean", residual: float = 0.5, batch: int | None = None
) -> AttentionFlow:
    """Which parts of the image can reach the readout through attention, when attention weights are capacities?

    0 is a token that no path connects to the readout; a large number is one whose information could arrive over wide
    paths. Flows differ less between tokens than `rollout` does, because a path is as wide as its smallest edge.

    There is one maximum flow per image and token, with capacities rounded to multiples of 2^-30: a ViT-B/16 image takes
    seconds. Needs scipy.

    Args:
        images: [image, channel, (frame,) height, width].
        heads, residual, batch: as in `rollout`.

    Returns:
        `readout` [image, key], `patches` [image, (time,) row, column].

    Raises:
        PrismaError: the images do not fit the model, an option has another value than those above, or scipy is missing.

    Source: Abnar & Zuidema 2005.00928.
    """
    check_mixing(heads, residual)
    readout_BK = torch.cat([_flows(model, some, heads, residual) for some in image_passes(model, images, batch)])
    metadata = {"analysis": "attention_flow", "heads": heads, "residual": residual}
    metadata["readout"] = READOUTS[model.config.pool]
    return AttentionFlow(metadata=metadata, patches=over_patches(model.config, readout_BK), readout=readout_BK)


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
    """The maximum flow to the readout from each token before the first layer.

    Args:
        top_T: capacity from each final token to the readout.
        layers: capacities [query, key] of each layer, from first to last.

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
