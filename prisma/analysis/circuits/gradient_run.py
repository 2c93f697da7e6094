"""A run that keeps its autograd graph, for gradients at every message, every stream and the input of every branch.

The input of a branch is a fork of the stream, so its gradient passes through this branch alone and not through what
reads the stream later. The gradients at the inputs of single heads follow from those at q, k and v, through the
projections and the norm.

A tap may change what is passed back, and no value: so relevance takes the place of the gradient.

Shapes: B pair, T token, M d_model, H head, D d_head, V receiver.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from prisma.analysis.circuits.branches import branch_of
from prisma.analysis.circuits.graph import Graph
from prisma.sites import AnyTap, no_tap
from prisma.vit import ViT


@dataclass(frozen=True)
class GradientRun:
    """A run with its autograd graph."""

    logits: Tensor  # [pair, class]
    messages: tuple[Tensor, ...]  # per stage: its message, z [pair, token, head, d_head] or mlp_out
    streams: tuple[Tensor, ...]  # [pair, token, d_model]: before each stage, and after the last
    written: tuple[Tensor, ...]  # per stage: what it adds to the stream
    outputs: tuple[Tensor, ...]  # per stage: the output of W_O, before norm and layer scale; for an MLP, its message
    forks: tuple[Tensor, ...]  # per stage: q, k and v before QK-norm, or the MLP's own input; last, the readout's input


def gradient_run(
    model: ViT, graph: Graph, embed_BTM: Tensor, *, grad: bool = True, tap: AnyTap = no_tap
) -> GradientRun:
    """A run from the embedding on; with `grad=False`, without an autograd graph."""
    with torch.set_grad_enabled(grad):
        x = embed_BTM.detach().requires_grad_(grad)
        streams, messages, written, outputs, forks = [x], *(list[Tensor]() for _ in range(4))
        for stage in graph.stages:
            branch, at = branch_of(model, stage), tap.within(f"blocks.{stage.layer}")
            read = streams[-2] if stage.reads < stage.senders.start else x
            if branch.is_mlp:
                forks.append(read.view_as(read))
                messages.append(branch.block.mlp_branch(forks[-1], at))
                outputs.append(messages[-1])
                written.append(messages[-1].view_as(messages[-1]))  # another tensor, so that its path can be cut
            else:
                forks.append(branch.project(read))
                heads = branch.attention
                messages.append(heads.mix(*heads.placed(*forks[-1].unbind(2)), at.within(branch.kind)))
                outputs.append(heads.write(messages[-1]))
                written.append(branch.block.scale(branch.kind, outputs[-1]))
            x = branch.add(x, written[-1])
            streams.append(x)
        forks.append(x.view_as(x))
        logits: Tensor = model.readout(forks[-1], tap)
    return GradientRun(logits, *(tuple(xs) for xs in (messages, streams, written, outputs, forks)))
