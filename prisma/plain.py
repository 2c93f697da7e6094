"""Whether a module computes what its class and its weights say, and nothing else.

Code that reads a module's weight, or calls the steps of a module instead of the module, gets what the class computes. A
hook, an adapter such as LoRA, a replaced part or a pruned weight would be left out without notice. So such code asks
here first, and calls the module as a whole, or refuses it.

A parametrization of torch (`torch.nn.utils.parametrize`) is plain: the weight that one reads is the one that computes.
"""

from collections.abc import Iterable, Iterator
from operator import attrgetter
from typing import Any

from torch import Tensor, nn
from torch.nn.modules import module as torch_modules
from torch.nn.utils import parametrize

from prisma.errors import PrismaError

CLASSES = (nn.Linear, nn.LayerNorm, nn.RMSNorm, nn.Identity, nn.Embedding, nn.ModuleList)
"""Classes of torch of which a model of this package is made; the others are of the package."""
HOOKS = {
    "_forward_pre_hooks": "a forward pre-hook",
    "_forward_hooks": "a forward hook",
    "_backward_pre_hooks": "a backward pre-hook",
    "_backward_hooks": "a backward hook",
}
COMPUTES_NOTHING = {"__init__", "__repr__", "extra_repr", "train", "reset_parameters"}
"""Methods that a subclass may replace: a forward calls none of them."""
OBSERVERS = "torch.utils."
"""Modules of Python whose hooks count operations and change nothing."""


def is_plain(module: nn.Module) -> bool:
    """Whether a module carries nothing that its class and weights do not show. Its children are not looked at."""
    return next(_carried(module), None) is None


def expect_plain(model: nn.Module, names: Iterable[str], why: str) -> None:
    """Raise PrismaError unless the parts of a model with these names are plain: "" for itself; None's are skipped."""
    for name in names:
        part = attrgetter(name)(model) if name else model
        what = None if part is None else next(_carried(part), None)
        if what is not None:
            raise PrismaError(
                f"{why}: expected {name or 'the model'} to compute what its class and weights say; found {what}; "
                "remove it, or merge it into the weights, first"
            )


def _carried(module: Any) -> Iterator[str]:
    """What a module carries, in words."""
    for name, words in HOOKS.items():
        everywhere = getattr(torch_modules, f"_global{name}")
        if any(map(_changes_something, everywhere.values())):
            yield f"{words} on all modules"
        for hook in filter(_changes_something, getattr(module, name).values()):
            yield f"{words}, {getattr(hook, '__qualname__', type(hook).__name__)}"
    kind = type(module)
    if kind.__name__ == "OptimizedModule":  # torch.compile: it computes what the module inside computes
        yield from _carried(module._orig_mod)
        return
    if parametrize.is_parametrized(module):
        kind = kind.__bases__[0]  # torch made a subclass whose weights are computed when they are read
    if kind not in CLASSES and not _is_ours(kind):
        yield f"the class {kind.__module__}.{kind.__qualname__}"
    for name in module.__dict__:
        if callable(getattr(kind, name, None)):
            yield f"a {name} of its own"
    for name, weight in module._parameters.items():
        if weight is not None and type(weight) not in (nn.Parameter, Tensor):
            yield f"{name} of the class {type(weight).__module__}.{type(weight).__qualname__}"


def _is_ours(kind: type[Any]) -> bool:
    """Whether a class is of this package, or replaces only steps that every path through the module calls."""
    ours = next(base for base in kind.__mro__ if base.__module__.startswith("prisma.") or base is object)
    own = {name for base in kind.__mro__[: kind.__mro__.index(ours)] for name in vars(base)} - COMPUTES_NOTHING
    replaced = {name for name in own if callable(getattr(ours, name, None))}
    return ours is not object and replaced <= set(getattr(ours, "ALWAYS_CALLED", ()))


def _changes_something(hook: Any) -> bool:
    return not str(getattr(hook, "__module__", "")).startswith(OBSERVERS)
