"""Which weights of a model are trained: all, the head alone, or the last blocks."""

import re

from prisma.errors import PrismaError, quoted
from prisma.vit import ViT

ALL, HEAD = "all", "head"
_LAST = re.compile(r"last:([1-9]\d{0,3})")


def expect_trained(text: str) -> None:
    """Raise PrismaError unless a text says which weights are trained: all, head, last:2 (the last two blocks)."""
    if text not in (ALL, HEAD) and not _LAST.fullmatch(text):
        raise PrismaError(f"expected trained to be all, head, or the last blocks such as last:2; found {quoted(text)}")


def train_only(model: ViT, trained: str) -> None:
    """Let gradients go to the weights that are trained alone.

    Args:
        trained: "all"; "head", the linear map to the classes; or "last:N", the last N blocks and all that follows them.

    Raises:
        PrismaError: the model has fewer blocks.
    """
    match = _LAST.fullmatch(trained)
    if match and int(match[1]) > len(model.blocks):
        raise PrismaError(f"expected trained=last:N of at most {len(model.blocks)} blocks; found {trained}")
    model.requires_grad_(trained == ALL)
    if trained == HEAD:
        model.readout.head.requires_grad_(True)
    if match:
        model.readout.requires_grad_(True)
        for block in list(model.blocks)[-int(match[1]) :]:
            block.requires_grad_(True)
