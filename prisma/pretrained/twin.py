"""A second module tree over the same tensors, so that the caller's module stays as it is."""

import copy
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


def twin(module: Module, make: Callable[[Tensor], Tensor] = lambda x: x) -> Module:
    """A module of the same class with parts, hooks and settings of its own, in evaluation mode.

    Its parameters and buffers are the caller's, or what `make` makes of them. Unlike `copy.deepcopy`, this copies no
    tensor that a module keeps (an activation, the weight of a pruned layer), which torch cannot copy.
    """
    return _Twins(make).of(module).eval()


class _Twins:
    def __init__(self, make: Callable[[Tensor], Tensor]) -> None:
        self.make = make
        self.parts: dict[int, Any] = {}  # by the id of the original: parts and tensors may be shared
        self.configs: dict[int, Any] = {}  # the memo of deepcopy

    def of(self, module: Any) -> Any:
        """The twin of a module."""
        if id(module) in self.parts:
            return self.parts[id(module)]
        new = self.parts[id(module)] = object.__new__(type(module))
        new.__dict__.update({name: self._kept(name, value) for name, value in vars(module).items()})
        vars(new)["_parameters"] = {name: self._tensor(x) for name, x in module._parameters.items()}
        vars(new)["_buffers"] = {name: self._tensor(x) for name, x in module._buffers.items()}
        vars(new)["_modules"] = {name: None if x is None else self.of(x) for name, x in module._modules.items()}
        vars(new)["_compiled_call_impl"] = None  # it would run the original
        return new

    def _kept(self, name: str, value: Any) -> Any:
        """A setting: hooks and sets of names in a container of its own, a configuration copied, all else itself."""
        if name == "config" or name.endswith("_config"):
            return copy.deepcopy(value, self.configs)
        return copy.copy(value) if name.startswith("_") and isinstance(value, dict | set) else value

    def _tensor(self, x: Tensor | None) -> Tensor | None:
        if x is None:
            return None
        if id(x) not in self.parts:
            made = self.make(x)
            is_new = isinstance(x, nn.Parameter) and not isinstance(made, nn.Parameter)
            self.parts[id(x)] = nn.Parameter(made, requires_grad=x.requires_grad) if is_new else made
        found: Tensor = self.parts[id(x)]
        return found


def in_float32(x: Tensor) -> Tensor:
    """A floating tensor as float32, in memory of its own; any other itself."""
    return x.detach().to(torch.float32, copy=True) if x.is_floating_point() else x
