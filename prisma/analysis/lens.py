"""Logit lens: what the model would answer if it stopped after each layer.

Source: nostalgebraist, Interpreting GPT: the logit lens (2020); for vision transformers Vilas et al. 2310.18969.

Shapes: S stage (0 is the embedding, s is after block s - 1), B batch, T token, M d_model, C class.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from prisma.errors import PrismaError
from prisma.vit import ViT


@dataclass(frozen=True)
class LogitLens:
    """Logits of the model's own readout, applied early. Stage 0 is the embedding, stage s is after block s - 1."""

    readout: Tensor  # [stage, batch, class]: of the residual stream as it is; the last stage equals the logits
    tokens: Tensor  # [stage, batch, token, class]: of a stream in which every token is a copy of this one


def logit_lens(model: ViT, images: Tensor, *, batch: int = 256) -> LogitLens:
    """Read the residual stream out after the embedding and after each block.

    `tokens` asks each token alone: a stream in which every token is a copy of it goes through the model's own readout,
    which is one question for every kind of pooling. With `pool="class"` the class token's row equals `readout`.

    Args:
        images: [batch, channel, (frame,) height, width].
        batch: at most so many tokens are read out in one pass, which bounds the memory.

    Raises:
        PrismaError: the model has no classes, or the images do not fit.
    """
    config = model.config
    if not config.n_classes:
        raise PrismaError("a logit lens needs a model with classes; found n_classes=0")
    stream = [model.embed(images)]
    for layer in range(config.n_layers):
        stream.append(model.encode(stream[-1], start=layer, stop=layer + 1))
    stream_SBTM = torch.stack(stream)
    readout_SBC = torch.stack([model.readout(x_BTM) for x_BTM in stream_SBTM])
    copies = config.n_prefix + 1  # the fewest tokens that hold every prefix token and a patch
    alone = [model.readout(x_M[:, None].expand(-1, copies, -1)) for x_M in stream_SBTM.flatten(0, 2).split(batch)]
    return LogitLens(readout_SBC, torch.cat(alone).view(*stream_SBTM.shape[:3], -1))
