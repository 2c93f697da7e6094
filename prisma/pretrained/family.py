"""What a source class is to us: how to read it, and how to ask it the questions that prove the reading."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from prisma.pretrained.rules import Source


@dataclass(frozen=True)
class Family:
    """Models that one reader understands. Readers look at modules and never import the module's library."""

    name: str  # as `prisma models` prints it
    library: str  # timm, transformers or open_clip
    classes: tuple[str, ...]  # full names, such as timm.models.eva.Eva
    read: Callable[[nn.Module], Source]  # raises UnsupportedModelError
    answer: Callable[[nn.Module, Tensor], Tensor]  # what our logits must equal [batch, class], given our images
    blocks: Callable[[nn.Module], Sequence[nn.Module]]  # whose output is the residual stream after each layer
    order: Callable[[nn.Module, Tensor], Tensor] = lambda _, x: x  # that stream, its tokens in the order of ours


def full_name(module: nn.Module) -> str:
    """Of the module's class."""
    return f"{type(module).__module__}.{type(module).__qualname__}"
