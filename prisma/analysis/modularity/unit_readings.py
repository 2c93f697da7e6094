"""The activations of units on images, of any model.

Units are the features of a vision transformer at its tokens, and the outputs of a module of another network. Of a
convolution a unit is a channel, and its places are those of the picture.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from prisma.analysis.border import record
from prisma.errors import PrismaError, nearest, quoted
from prisma.inventory import site_names
from prisma.numbers import first_not_finite
from prisma.runs import kind_of
from prisma.sites import matching
from prisma.vit import ViT


@dataclass(frozen=True)
class Units:
    """Layers of a model whose units are read."""

    model: nn.Module
    names: tuple[str, ...]

    @classmethod
    def of(cls, model: nn.Module, layers: str | Iterable[str]) -> "Units":
        """The units of some layers: sites of a vision transformer, or globs of them; modules of another network.

        Raises:
            PrismaError: a name that there is not (with the nearest), or a network in training mode.
        """
        asked = [layers] if isinstance(layers, str) else list(layers)
        if isinstance(model, ViT):
            known = site_names(model.config)
            return cls(model, tuple(dict.fromkeys(site for pattern in asked for site in matching(pattern, known))))
        parts = dict(model.named_modules())
        for name in asked:
            if not name or name not in parts:
                close = nearest(name, parts)
                raise PrismaError(f"expected the name of a module; found {quoted(name)}; the nearest: {close}")
        if model.training:
            raise PrismaError("expected a network that is ready for inference; found one in training: use .eval()")
        return cls(model, tuple(dict.fromkeys(asked)))

    def read(self, images: Tensor) -> Mapping[str, Tensor]:
        """Name -> the activations as the model has them. Raises PrismaError if they are not finite."""
        if isinstance(self.model, ViT):
            return dict(record(self.model, images, self.names, stop=True)[1].items())
        found = _recorded(self.model, images, {name: self.model.get_submodule(name) for name in self.names})
        expect_units(found)
        return found

    def by_place(self, name: str, x: Tensor) -> Tensor:
        """[image, place, unit] of activations, or of anything of their shape."""
        if self._is_picture(name, x):
            return x.flatten(2).mT
        return x[:, None] if x.ndim == 2 else x.flatten(2)

    def of_images(self, name: str, x: Tensor) -> Tensor:
        """[image, token, unit]; of a convolution, the mean over the picture, as one token."""
        return self.by_place(name, x).mean(1, keepdim=True) if self._is_picture(name, x) else self.by_place(name, x)

    def _is_picture(self, name: str, x: Tensor) -> bool:
        return not isinstance(self.model, ViT) and (
            x.ndim >= 4 or (x.ndim == 3 and isinstance(self.model.get_submodule(name), nn.Conv1d | nn.BatchNorm1d))
        )


def expect_units(values: Mapping[str, Tensor]) -> None:
    """Raise PrismaError unless all activations are finite."""
    for name, x in values.items():
        if (found := first_not_finite(x.detach())) is not None:
            raise PrismaError(f"expected finite activations; found {found[1]} at {name}, in image {found[0]}")


def _recorded(model: nn.Module, images: Tensor, parts: Mapping[str, nn.Module]) -> Mapping[str, Tensor]:
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., Tensor]:
        def hook(module: nn.Module, args: Any, output: Any) -> Tensor:
            if not isinstance(output, Tensor):
                raise PrismaError(f"expected {name} to give a tensor; found {kind_of(output)}")
            found[name] = output
            return output.clone()  # the next part may change what it is given in place

        return hook

    handles = [part.register_forward_hook(keep(name)) for name, part in parts.items()]
    try:
        model(images)
    finally:
        for handle in handles:
            handle.remove()
    if missing := [name for name in parts if name not in found]:
        raise PrismaError(f"expected modules that a forward calls; found {missing[0]}, which it does not call")
    return {name: found[name] for name in parts}
