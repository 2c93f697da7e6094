"""A run whose gradients are wanted: at every message, at every stream, and at what each branch alone reads.

What a branch reads is a fork of the stream, so that its gradient is that of this branch and of nothing after it. The
gradient at each single q, k and v of each head follows from those at q, k and v, through the projections and the norm.

Shapes: B pair, T token, M d_model, H head, D d_head, V receiver.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from prisma.analysis.circuits.branches import Heads, branch_of
from prisma.analysis.circuits.graph import Graph
from prisma.vit import ViT


@dataclass(frozen=True)
class GradientRun:
    """A run with its graph of autograd. `streams` has the stream before each stage, and after the last."""

    logits: Tensor  # [pair, class]
    sent: tuple[Tensor, ...]  # of each stage: its message, z [pair, token, head, d_head] or mlp_out
    streams: tuple[Tensor, ...]  # [pair, token, d_model]
    shares: tuple[Tensor, ...]  # of each stage: what it adds to the stream
    written: tuple[Tensor, ...]  # of each stage: what W_O wrote; of an MLP, its message
    forks: tuple[Tensor, ...]  # of each stage: q, k and v before QK-norm, or what the MLP alone reads; of the readout


def gradient_run(model: ViT, graph: Graph, embed_BTM: Tensor, *, grad: bool = True) -> GradientRun:
    """A run from the embedding on; without `grad`, one whose gradients are not wanted."""
    with torch.set_grad_enabled(grad):
        x = embed_BTM.detach().requires_grad_(grad)
        streams, sent, shares, written, forks = [x], *(list[Tensor]() for _ in range(4))
        for stage in graph.stages:
            branch = branch_of(model, stage)
            read = streams[-2] if stage.reads < stage.senders.start else x
            if isinstance(branch, Heads):
                forks.append(branch.apart(read))
                sent.append(branch.mix(*branch.placed(forks[-1])))
                written.append(branch.write(sent[-1]))
                shares.append(branch.scale(written[-1]))
            else:
                forks.append(read.view_as(read))
                sent.append(branch.send(forks[-1][:, :, None]))
                written.append(sent[-1])
                shares.append(sent[-1])
            x = branch.join(x, shares[-1])
            streams.append(x)
        forks.append(x.view_as(x))
        logits: Tensor = model.readout(forks[-1])
    return GradientRun(logits, *(tuple(xs) for xs in (sent, streams, shares, written, forks)))
