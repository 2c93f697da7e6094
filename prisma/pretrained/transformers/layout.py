"""Where a class of transformers has its parts, and the family of classes whose parts are read alike."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor, nn

from prisma.errors import UnsupportedModelError
from prisma.pretrained.family import Family
from prisma.pretrained.rules import Conversion


@dataclass(frozen=True)
class Layout:
    """Where a class has its parts. Everything else is read from the live module."""

    trunk: str = ""  # the submodule that is the encoder; "": the module itself
    layers: str = "layers"  # the list of layers, in the encoder
    pool: str = "class"  # of a module that has no pooling of its own, or does not use it
    head: str = ""  # the submodule that is a projection or classifier; "": there is none

    def trunk_of(self, module: nn.Module) -> Any:
        """The encoder."""
        return module.get_submodule(self.trunk)

    def layers_of(self, module: nn.Module) -> list[nn.Module]:
        """The layers of the encoder. Raises UnsupportedModelError if there are none."""
        layers = list(self.trunk_of(module).get_submodule(self.layers).children())
        if not layers:
            raise UnsupportedModelError("expected a model with at least one layer; found num_hidden_layers=0")
        return layers

    def head_of(self, module: nn.Module) -> Any:
        """The projection or classifier; None if there is none."""
        return module.get_submodule(self.head) if self.head else None


L = TypeVar("L", bound=Layout)


def family(
    name: str,
    file: str,
    layouts: Mapping[str, L],
    read: Callable[[L, Any], Conversion],
    answer: Callable[[L, Any, Tensor], Tensor],
    order: Callable[[nn.Module, Tensor], Tensor] = Family.order,
) -> Family:
    """The family of the classes in one file of transformers.

    Args:
        file: below `transformers.models`, such as "clip.modeling_clip".
        layouts: name of a class -> its layout, which `read` and `answer` get before the module.
    """

    def layout(module: nn.Module) -> L:
        return layouts[type(module).__name__]

    return Family(
        name=name,
        library="transformers",
        classes=tuple(f"transformers.models.{file}.{kind}" for kind in layouts),
        read=lambda module: read(layout(module), module),
        answer=lambda module, inputs: answer(layout(module), module, inputs),
        blocks=lambda module: layout(module).layers_of(module),
        order=order,
    )
