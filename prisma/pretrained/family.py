"""A family: source classes that one reader understands, and what the proof of its conversion needs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from prisma.pretrained.rules import Conversion


@dataclass(frozen=True)
class Family:
    """Source classes that one reader understands. A reader looks at a module and never imports the module's library."""

    name: str  # as `prisma models` prints it
    library: str  # timm, transformers or open_clip
    classes: tuple[str, ...]  # full names, such as timm.models.eva.Eva
    read: Callable[[nn.Module], Conversion]  # raises UnsupportedModelError
    answer: Callable[
        [nn.Module, Tensor], Tensor
    ]  # the source's output [batch, class] for our inputs; ours must equal it
    blocks: Callable[[nn.Module], Sequence[nn.Module]]  # modules that return the residual stream after each layer
    order: Callable[[nn.Module, Tensor], Tensor] = lambda _, x: x  # puts the tokens of that stream in our order


def full_name(module: nn.Module) -> str:
    """The full name of the module's class."""
    return f"{type(module).__module__}.{type(module).__qualname__}"
