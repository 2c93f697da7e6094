"""The branches of a block as nodes of the graph: what they read from a stream, what they send, and how it is added.

An attention head sends its z, an MLP sends its `mlp_out`. `write` is everything between a message and what the stream
receives: W_O and its bias, norms and layer scale. So heads are separate senders under any norm, also under one norm
over all heads (`norm_z`). Each step is the block's own (`prisma.blocks.Block`).

Shapes: R row (an image, or an image of one of many runs), T token, V receiver, M d_model, H head, D d_head, I side (q,
k, v).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from prisma.analysis.circuits.graph import Graph, Stage
from prisma.attention import Attention
from prisma.blocks import Block
from prisma.plain import expect_plain
from prisma.sites import Tap
from prisma.vit import ViT

MESSAGES = {"time": "time.z", "attn": "attn.z", "mlp": "mlp_out"}
"""Branch -> the site of its message."""


@dataclass(frozen=True)
class Branch:
    """One branch of a block: attention over time, attention, or the MLP.

    The receivers of an attention are q of every head, then k, then v; an MLP is one receiver.
    """

    block: Block
    kind: str  # "time", "attn" or "mlp"
    layer: int

    @property
    def site(self) -> str:
        """The site of the message, z [row, token, head, d_head] or mlp_out [row, token, d_model]."""
        return f"blocks.{self.layer}.{MESSAGES[self.kind]}"

    @property
    def is_mlp(self) -> bool:
        return self.kind == "mlp"

    @property
    def attention(self) -> Attention:
        return cast(Attention, self.block.get_submodule(self.kind))

    def read(self, x: Tensor) -> Tensor:
        """What the branch reads from the stream."""
        return self.block.read(self.kind, x)

    def send(self, x_RTVM: Tensor) -> Tensor:
        """The message, when each receiver reads a stream of its own."""
        if self.is_mlp:
            return self.block.mlp_branch(x_RTVM[:, :, 0])
        heads = self.attention
        return heads.mix(*heads.project_each(self.read(x_RTVM.unflatten(2, (3, -1)))))

    def project(self, x_RTM: Tensor) -> Tensor:
        """q, k and v of all heads, before QK-norm and rotation [row, token, side, head, d_head]."""
        return self.attention.qkv(self.read(x_RTM)).unflatten(-1, self.attention.split)

    def write(self, message: Tensor) -> Tensor:
        """What is added to the stream [row, token, d_model] for a message."""
        return message if self.is_mlp else self.block.scale(self.kind, self.attention.write(message))

    def add(self, x: Tensor, written_RTM: Tensor) -> Tensor:
        """The stream [..., row, token, d_model] after the addition."""
        return self.block.after(self.kind, x + written_RTM)


def branch_of(model: ViT, stage: Stage) -> Branch:
    """The branch that a stage of the model's graph stands for.

    Raises:
        PrismaError: the model, the block or its attention carries something, such as a hook, that happens only when it
            is called as a whole. The MLP, all norms and all linear layers may carry anything, because they are called.
    """
    whole = f"blocks.{stage.layer}"
    called = ["", whole, *[f"{whole}.{stage.kind}"] * (stage.kind != "mlp")]
    expect_plain(model, called, "runs by single branches", gradients=torch.is_grad_enabled())
    return Branch(cast(Block, model.blocks[stage.layer]), stage.kind, stage.layer)


@dataclass(frozen=True)
class Messages:
    """What every sender of a run sends."""

    embed: Tensor  # [image, token, d_model]
    stages: tuple[Tensor, ...]  # per stage: z [image, token, head, d_head] or mlp_out [image, token, d_model]

    def map(self, f: Callable[[Tensor], Tensor]) -> "Messages":
        return replace(self, embed=f(self.embed), stages=tuple(f(x) for x in self.stages))

    def __getitem__(self, images: slice | Tensor) -> "Messages":
        return self.map(lambda x: x[images])


def messages(model: ViT, images: Tensor) -> tuple[Tensor, Messages]:
    """Logits [image, class] of a plain run, and what its senders send."""
    sites = [branch_of(model, stage).site for stage in Graph(model.config).stages]
    x_BTM, tap = model.embed(images), Tap(sites)
    logits: Tensor = model.readout(model.encode(x_BTM, tap=tap))
    return logits, Messages(x_BTM, tuple(tap.tensors[site] for site in sites))


def concatenated(parts: list[Messages]) -> Messages:
    """The messages of several runs as those of one, image after image."""
    columns = zip(*(part.stages for part in parts), strict=True)
    return Messages(torch.cat([part.embed for part in parts]), tuple(torch.cat(column) for column in columns))
