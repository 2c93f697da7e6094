"""A run whose gradients are wanted: at every message, at every stream, and at what each branch alone reads.

What a branch reads is a fork of the stream, so that its gradient is that of this branch and of nothing after it. The
gradient at each single q, k and v of each head follows from those at q, k and v, through the projections and the norm.

Shapes: B pair, T token, M d_model, H head, D d_head, V receiver.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from prisma.analysis.branches import Heads, branch_of
from prisma.analysis.graph import Graph
from prisma.errors import PrismaError
from prisma.metrics import Metric, measure
from prisma.vit import ViT


def measure_rows(metric: Metric, logits: Tensor, rows: slice, pairs: int) -> Tensor:
    """The metric of some pairs [row]. It is shown as many logits as there are pairs: a metric may hold a class of each.

    Raises:
        PrismaError: it is not one finite number per pair.
    """
    if len(logits) == pairs:
        return measure(metric, logits)
    repeated = (torch.arange(pairs, device=logits.device) - rows.start) % len(logits)  # the rows in their places
    return measure(metric, logits[repeated])[rows]


def slope(metric: Metric, logits: Tensor, rows: slice, pairs: int) -> tuple[Tensor, Tensor]:
    """The metric of some pairs [row], and its gradient in their logits [row, class].

    Raises:
        PrismaError: the metric has no gradient, or is not one finite number per pair.
    """
    with torch.enable_grad():
        leaf = logits.detach().requires_grad_()
        values = measure_rows(metric, leaf, rows, pairs)
        if not values.requires_grad:
            raise PrismaError(f"attribution needs a metric with a gradient; found none of {metric!r}")
        return values.detach(), torch.autograd.grad(values.sum(), leaf)[0]


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
