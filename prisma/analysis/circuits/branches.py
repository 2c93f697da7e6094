"""The branches of a model as the graph sees them: what they read of a stream, what they send, how it is added.

What a head sends is its z, what an MLP sends is its `mlp_out`; `add` is everything between that and the stream: W_O and
its bias, norms, layer scale. So heads are separate senders under any norm, also one over all heads (`norm_z`).

Shapes: R row (an image, or an image of one of many runs), T token, V receiver, M d_model, H head, D d_head, I side (q,
k, v).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from prisma.analysis.circuits.graph import Graph, Stage
from prisma.blocks import Attention, Block
from prisma.divided import DividedBlock
from prisma.sites import Tap, no_tap
from prisma.vit import ViT


@dataclass(frozen=True)
class Heads:
    """Attention. Its receivers are q of every head, then k, then v; its message is z [row, token, head, d_head]."""

    block: Block
    site: str
    attention: Attention

    def read(self, x: Tensor) -> Tensor:
        return self.block.read_attn(x)

    def project(self, x_RTVM: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q, k and v, when each is made from a stream of its own."""
        return self.attention.project_each(self.read(x_RTVM.unflatten(2, (3, -1))))

    def apart(self, x_RTM: Tensor) -> Tensor:
        """Projections of one stream that all read, before QK-norm and rotation: [row, token, side, head, d_head]."""
        return self.attention.qkv(self.read(x_RTM)).unflatten(-1, self.attention.split)

    def placed(self, qkv_RTIHD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q, k and v, after QK-norm and rotation."""
        return self.attention.placed(*qkv_RTIHD.unbind(2))

    def mix(self, q_RTHD: Tensor, k_RTHD: Tensor, v_RTHD: Tensor) -> Tensor:
        return self.attention.mix(q_RTHD, k_RTHD, v_RTHD, no_tap)

    def send(self, x_each: Tensor) -> Tensor:
        return self.mix(*self.project(x_each))

    def write(self, z_RTHD: Tensor) -> Tensor:
        """z of all heads -> what attention writes [row, token, d_model], its bias included."""
        return self.attention(z_RTHD, Tap(frozenset(), {}, {"z": z_RTHD}))

    def scale(self, out_RTM: Tensor) -> Tensor:
        """What is added to the stream, of what attention wrote."""
        return self.block.scale_attn(out_RTM)

    def share(self, message: Tensor) -> Tensor:
        """What is added to the stream [row, token, d_model], of a message."""
        return self.scale(self.write(message))

    def join(self, x: Tensor, added_RTM: Tensor) -> Tensor:
        """The stream [..., row, token, d_model] after the addition."""
        return self.block.add_attn(x, added_RTM)

    def add(self, x: Tensor, message: Tensor) -> Tensor:
        return self.join(x, self.share(message))


class TimeHeads(Heads):
    """Attention over time, of divided attention: its tokens are the patches."""

    def read(self, x: Tensor) -> Tensor:
        return cast(DividedBlock, self.block).read_time(x)

    def scale(self, out_RTM: Tensor) -> Tensor:
        return cast(DividedBlock, self.block).scale_out_time(out_RTM)

    def join(self, x: Tensor, added_RTM: Tensor) -> Tensor:
        return x + added_RTM


@dataclass(frozen=True)
class Neurons:
    """An MLP: one receiver, whose message is `mlp_out` [row, token, d_model]."""

    block: Block
    site: str

    def send(self, x_each: Tensor) -> Tensor:
        assert self.block.mlp is not None
        return self.block.scale_mlp(self.block.mlp(self.block.read_mlp(x_each[:, :, 0]), no_tap))

    def share(self, message: Tensor) -> Tensor:
        return message

    def join(self, x: Tensor, added_RTM: Tensor) -> Tensor:
        return self.block.add_mlp(x, added_RTM)

    def add(self, x: Tensor, message: Tensor) -> Tensor:
        return self.join(x, message)


def branch_of(model: ViT, stage: Stage) -> Heads | Neurons:
    """The branch of a stage of the model's graph."""
    block, prefix = cast(Block, model.blocks[stage.layer]), f"blocks.{stage.layer}."
    if stage.kind == "mlp":
        return Neurons(block, prefix + "mlp_out")
    if stage.kind == "attn":
        return Heads(block, prefix + "attn.z", block.attn)
    return TimeHeads(block, prefix + "time.z", cast(DividedBlock, block).time)


@dataclass(frozen=True)
class Messages:
    """What every sender of a run sends."""

    embed: Tensor  # [image, token, d_model]
    sent: tuple[Tensor, ...]  # of each stage: z [image, token, head, d_head] or mlp_out [image, token, d_model]

    def map(self, f: Callable[[Tensor], Tensor]) -> "Messages":
        return replace(self, embed=f(self.embed), sent=tuple(f(x) for x in self.sent))

    def __getitem__(self, images: slice | Tensor) -> "Messages":
        return self.map(lambda x: x[images])


def messages(model: ViT, images: Tensor) -> tuple[Tensor, Messages]:
    """Logits [image, class] of a plain run, and what its senders send."""
    sites = [branch_of(model, stage).site for stage in Graph(model.config).stages]
    x_BTM = model.embed(images)
    tap = Tap(frozenset(sites), {})
    logits: Tensor = model.readout(model.encode(x_BTM, tap=tap))
    return logits, Messages(x_BTM, tuple(tap.tensors[site] for site in sites))


def joined(parts: list[Messages]) -> Messages:
    """Of several runs, image after image."""
    columns = zip(*(part.sent for part in parts), strict=True)
    return Messages(torch.cat([part.embed for part in parts]), tuple(torch.cat(column) for column in columns))
