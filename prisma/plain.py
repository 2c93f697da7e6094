"""Whether a module computes what its class and its weights say, and nothing else.

Code that reads a module's weight, or calls the steps of a module instead of the module, gets what the class computes. A
hook, an adapter such as LoRA, a replaced part or a pruned weight would be left out without notice. So such code asks
here first, and calls the module as a whole, or refuses it.

A backward hook changes gradients alone, so it counts only where a gradient is taken. A container such as `blocks` is
never called, so what hangs on it never happens. What `torch.compile` made of a module computes what the module inside
computes: `uncompiled` takes the wrappers off.

A parametrization of torch (`torch.nn.utils.parametrize`) is plain: the weight that one reads is the one that computes.
"""

from collections.abc import Iterable, Iterator
from operator import attrgetter
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_modules
from torch.nn.utils import parametrize

from prisma.errors import PrismaError

M = TypeVar("M", bound=nn.Module)

CLASSES = (nn.Linear, nn.LayerNorm, nn.RMSNorm, nn.Identity, nn.Embedding)
"""Classes of torch of which a model of this package is made; the others are of the package."""
ORDINARY = (nn.Parameter, Tensor)
CONTAINERS = ("blocks",)
"""Parts of a model that are never called: a forward goes over what is in them."""
FORWARD = {"_forward_pre_hooks": "a forward pre-hook", "_forward_hooks": "a forward hook"}
BACKWARD = {"_backward_pre_hooks": "a backward pre-hook", "_backward_hooks": "a backward hook"}
COMPUTES_NOTHING = {"__init__", "__repr__", "extra_repr", "train", "reset_parameters"}
"""Methods that a subclass may replace: a forward calls none of them."""
USUAL = frozenset(vars(nn.Module()))
"""Attributes that torch gives to every module: none replaces a method."""
OBSERVERS = "torch.utils."
"""Modules of Python whose hooks count operations and change nothing."""


def is_plain(module: nn.Module, *, gradients: bool | None = None) -> bool:
    """Whether a module carries nothing that its class and weights do not show. Its children are not looked at.

    Args:
        gradients: whether backward hooks count; by default if gradients are recorded here.
    """
    counted = torch.is_grad_enabled() if gradients is None else gradients
    return next(_carried(module, counted), None) is None


def expect_plain(model: nn.Module, names: Iterable[str], why: str, *, gradients: bool = False) -> None:
    """Raise PrismaError unless the parts of a model with these names are plain: "" for itself; None's are skipped.

    Args:
        gradients: whether backward hooks count.
    """
    for name in names:
        place, part = _nearest(model, name)
        found = None if part is None else next(_carried(part, gradients), None)
        if found is None and place != name and part is not None:
            found = f"{_full_name(type(part))}, which has no {name[len(place) :].lstrip('.')}", "put it back"
        if found is not None:
            raise PrismaError(
                f"{why}: expected {place or 'the model'} to compute what its class and weights say; found {found[0]}; "
                f"{found[1]} first"
            )


def called_parts(model: nn.Module) -> list[str]:
    """The names of all modules that a forward calls: all but containers."""
    return [name for name, part in model.named_modules() if name not in CONTAINERS and type(part) is not nn.ModuleList]


def uncompiled(module: M) -> M:
    """The module without the wrappers that `torch.compile` put around it or around parts of it: the same computation.

    The weights and hooks are those of the module, and it itself is left as it is. Without a wrapper it is the module.
    """
    if is_compiled(module):
        original: Any = module._orig_mod
        inner = uncompiled(original)
        hooks = {name: x for name, x in vars(module).items() if name.startswith(("_forward_", "_backward_")) and x}
        merged = {name: {**x, **vars(inner)[name]} for name, x in hooks.items() if "_pre_" in name}
        merged |= {name: {**vars(inner)[name], **x} for name, x in hooks.items() if "_pre_" not in name}
        return copied_with(inner, merged) if merged else inner
    children = {name: None if part is None else uncompiled(part) for name, part in module._modules.items()}
    if all(children[name] is part for name, part in module._modules.items()):
        return module
    return copied_with(module, {"_modules": children})


def is_compiled(module: nn.Module) -> bool:
    """Whether a module is what `torch.compile` put around another."""
    return type(module).__name__ == "OptimizedModule"


def expect_unwrapped(model: nn.Module) -> None:
    """Raise PrismaError if a part was put into a wrapper, such as DataParallel: its own parts are not where they were.

    Wrappers of `torch.compile` are taken off by `uncompiled`.
    """
    for name, part in model.named_modules():
        if name and isinstance(getattr(part, "module", None), nn.Module) and not _is_ours(type(part)):
            raise PrismaError(
                f"expected {name} to be a part of a prisma model; found one inside {_full_name(type(part))}: put its "
                ".module in its place"
            )


def copied_with(module: M, changes: dict[str, Any]) -> M:
    """A module with the same weights and parts, but for some attributes; compiled in place, it is no longer so."""
    copy = type(module).__new__(type(module))
    object.__setattr__(copy, "__dict__", {**vars(module), **changes})
    vars(copy).pop("_compiled_call_impl", None)
    return copy


def _nearest(model: nn.Module, name: str) -> tuple[str, Any]:
    """The part with this name, or the part that should contain it where there is no such name."""
    while name:
        try:
            return name, attrgetter(name)(model)
        except AttributeError:
            name = name.rpartition(".")[0]
    return "", model


def _carried(module: Any, gradients: bool) -> Iterator[tuple[str, str]]:
    """What a module carries, and what to do about it, in words."""
    if type(module) is nn.ModuleList or _is_as_made(module, gradients):
        return
    for name, words in {**FORWARD, **(BACKWARD if gradients else {})}.items():
        everywhere = getattr(torch_modules, f"_global{name}")
        if any(map(_changes_something, everywhere.values())):
            yield f"{words} on all modules", "remove it"
        for hook in filter(_changes_something, getattr(module, name).values()):
            yield f"{words}, {getattr(hook, '__qualname__', type(hook).__name__)}", "remove it"
    if is_compiled(module):
        yield from _carried(module._orig_mod, gradients)
        return
    kind = type(module)
    if parametrize.is_parametrized(module):
        kind = kind.__bases__[0]  # torch made a subclass whose weights are computed when they are read
    if kind not in CLASSES and not _is_ours(kind):
        yield _foreign(kind)
    for name in vars(module):
        if callable(getattr(kind, name, None)):
            yield f"a {name} of its own", f"remove it (del module.{name})"
    for name, weight in module._parameters.items():
        if weight is not None and type(weight) not in ORDINARY:
            yield f"{name} of {_full_name(type(weight))}", "make it an ordinary nn.Parameter"


def _is_as_made(module: Any, gradients: bool) -> bool:
    """Whether a module clearly carries nothing: a fifth of the time of a full look, which decides where this is False.

    A forward asks about every part, and stacked checkpoints about every part of each checkpoint.
    """
    kind, own = type(module), vars(module)
    return (
        (kind in CLASSES or kind.__module__.startswith("prisma."))
        and not (module._forward_pre_hooks or module._forward_hooks)
        and not (torch_modules._global_forward_pre_hooks or torch_modules._global_forward_hooks)
        and not (gradients and (module._backward_pre_hooks or module._backward_hooks))
        and not (gradients and (torch_modules._global_backward_pre_hooks or torch_modules._global_backward_hooks))
        and all(weight is None or type(weight) in ORDINARY for weight in module._parameters.values())
        and not any(callable(getattr(kind, name, None)) for name in own if name not in USUAL)
    )


def _foreign(kind: type[Any]) -> tuple[str, str]:
    """What is found, and what to do, where the class of a module is another."""
    known = next((base for base in kind.__mro__ if base in CLASSES or base.__module__.startswith("prisma.")), None)
    if known is None:
        return _full_name(kind), "merge what it does into the weights of the part that was there, and put that back"
    name = _full_name(known).removeprefix("the class ")
    replaced = ", ".join(sorted(_replaced(kind, known))) or "class"
    return (
        f"{_full_name(kind)}, whose {replaced} may differ from that of {name}",
        f"put a {name} with the same weights (load_state_dict) in its place",
    )


def _full_name(kind: type[Any]) -> str:
    return f"the class {kind.__module__}.{kind.__qualname__}"


def _is_ours(kind: type[Any]) -> bool:
    """Whether a class is of this package, or replaces only steps that every path through the module calls."""
    ours = next(base for base in kind.__mro__ if base.__module__.startswith("prisma.") or base is object)
    return ours is not object and _replaced(kind, ours) <= set(getattr(ours, "ALWAYS_CALLED", ()))


def _replaced(kind: type[Any], base: type[Any]) -> set[str]:
    """The methods of a class that its subclass replaces, and that a forward may call."""
    own = {name for between in kind.__mro__[: kind.__mro__.index(base)] for name in vars(between)} - COMPUTES_NOTHING
    return {name for name in own if callable(getattr(base, name, None))}


def _changes_something(hook: Any) -> bool:
    return not str(getattr(hook, "__module__", "")).startswith(OBSERVERS)
