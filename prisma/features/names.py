"""What objectives are called in results, files and cards: names that tell different ones apart.

`blocks.3.mlp.post:17`, `logits:3 - 0.5*logits:5`, `Direction(blocks.3.resid_post, direction=[64] 1f0c96ab, power=2.0)`.
A tensor is named by its shape and its hash, so that equal names are equal objectives; a function, whose code cannot be
compared, by its own name.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any

from torch import Tensor, nn

from prisma.analysis.attribution.questions import Neuron
from prisma.analysis.readings import Product, Reading, Sum
from prisma.checkpoint import weights_hash
from prisma.errors import quoted
from prisma.features.objectives import Channel, OfLogits
from prisma.features.subjects import OUTPUT
from prisma.metrics import Logit

DIGITS = 8  # of a hash


def names_of(objectives: Sequence[Reading]) -> list[str]:
    """The name of each; where several have the same one, from the second on with a number."""
    seen: Counter[str] = Counter()
    found = []
    for name in map(name_of, objectives):
        seen[name] += 1
        found.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return found


def name_of(x: Reading) -> str:
    """The name of an objective, on one line."""
    if isinstance(x, Channel | Neuron):
        where = x.where if isinstance(x, Channel) else x.token
        token = (
            "" if where == "patches" or x.site == OUTPUT else f",token={'mean' if where in (None, 'all') else where}"
        )
        return f"{x.site}:{x.index}{'' if x.head is None else f',head={x.head}'}{token}"
    if isinstance(x, OfLogits):
        if isinstance(x.metric, Logit) and isinstance(x.metric.target, int):
            return f"{OUTPUT}:{x.metric.target}"
        return _named(x.metric)
    if isinstance(own := getattr(x, "name", None), str) and own:
        return own
    if isinstance(x, Sum):
        terms = [_term(part) for part in x.parts]
        return "".join(terms).removeprefix(" + ").strip()
    if isinstance(x, Product):
        return _term(x).removeprefix(" + ").strip()
    return _named(x)


def _term(x: Reading | float) -> str:
    """A part of a sum, with its sign: ` - 0.5*logits:3`."""
    parts = x.parts if isinstance(x, Product) else (x,)
    factor = math.prod(part for part in parts if isinstance(part, int | float))
    names = [
        f"({name_of(part)})" if isinstance(part, Sum) else name_of(part) for part in parts if isinstance(part, Reading)
    ]
    short = f"{abs(factor):g}"
    numbers = [] if names and abs(factor) == 1 else [short if float(short) == abs(factor) else repr(abs(factor))]
    return (" - " if factor < 0 else " + ") + "*".join([*numbers, *names])


def _named(x: Any) -> str:
    """A value: one with fields by its class and those that differ from their defaults, a tensor by shape and hash."""
    if isinstance(x, Tensor):
        return f"{list(x.shape)} {weights_hash({'': x})[:DIGITS]}"
    if isinstance(x, nn.Module):
        return f"{type(x).__name__} {weights_hash(x.state_dict())[:DIGITS]}"
    if isinstance(x, Channel | Neuron | OfLogits | Sum | Product):
        return name_of(x)
    if is_dataclass(x) and not isinstance(x, type):
        return f"{type(x).__name__}({', '.join(_stated(x))})"
    if isinstance(x, list | tuple):
        return f"({', '.join(map(_named, x))})"
    if callable(x):
        return str(getattr(x, "__qualname__", type(x).__name__))
    return x if isinstance(x, str) else quoted(x)


def _stated(x: Any) -> Iterable[str]:
    """The fields of a value: those that it must have without their names if they are text, others where they differ."""
    for entry in fields(x):
        value = getattr(x, entry.name)
        if not _is_default(entry, value):
            yield (
                _named(value)
                if isinstance(value, str) and entry.default is MISSING
                else f"{entry.name}={_named(value)}"
            )


def _is_default(entry: "Field[Any]", value: Any) -> bool:
    return entry.default is not MISSING and not isinstance(value, Tensor) and bool(value == entry.default)
