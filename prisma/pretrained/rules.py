"""From the tensors of another library's model to ours: a table of rules for each source class, applied strictly.

A reader looks at a live module of a source class and returns a `Conversion`: the architecture, and the rules that make
our parameters from the source's tensors. No rule and no reader looks at a model's name.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from prisma.config import TextConfig, ViTConfig
from prisma.errors import PrismaError, UnsupportedModelError
from prisma.outline import expect_finite, filled, outline
from prisma.pretrained.values import expect_usable
from prisma.text import TextTower
from prisma.vit import ViT


@dataclass(frozen=True)
class Context:
    """What a rule may use besides the source's tensors."""

    config: Any  # ViTConfig or TextConfig
    layer: int  # of a rule with {l}; else -1
    facts: Mapping[str, Any]  # what the reader found, such as resampled positions


Make = Callable[..., Tensor]
"""(Context, *tensors of the source) -> one of our parameters."""
Row = tuple[str, str] | tuple[str, str, Make]
"""Our parameter; the source's tensors, separated by blanks; how to make the one from the others (default: the same)."""


def same(_: Context, x: Tensor) -> Tensor:
    """The source's tensor itself."""
    return x


@dataclass(frozen=True)
class Rule:
    """How to make one of our parameters. Where several rules make it, the first whose tensors all exist is used."""

    ours: str  # `{l}` stands for the layer
    theirs: tuple[str, ...]  # `{l}` too
    make: Make = same


def rules(*rows: Row) -> tuple[Rule, ...]:
    """A table of rules."""
    return tuple(Rule(ours, tuple(theirs.split()), *make) for ours, theirs, *make in rows)


def both(ours: str, *theirs: str, make: Make = same) -> list[Row]:
    """Rows for a weight and a bias. With several names of the source, the first that exists is used.

    A name of the source may be several, separated by blanks: `make` gets the weights of all, or the biases of all.
    """
    return [
        (f"{ours}.{part}", " ".join(f"{name}.{part}" for name in names.split()), make)
        for names in theirs
        for part in ("weight", "bias")
    ]


def inside(path: str, rows: Iterable[Row]) -> list[Row]:
    """The same rows for a module that is the submodule `path` of another ("": the module itself)."""
    start = f"{path}." if path else ""
    return [
        (ours, " ".join(start + name for name in theirs.split()), make[0] if make else same)
        for ours, theirs, *make in rows
    ]


@dataclass(frozen=True)
class Conversion:
    """How to convert one module: what a reader returns."""

    config: ViTConfig | TextConfig
    rules: tuple[Rule, ...]
    unused: tuple[str, ...] = ()  # regular expressions: names of the source's tensors that do not affect the output
    facts: Mapping[str, Any] = field(default_factory=dict)  # for rules that need more than tensors

    def inside(self, path: str) -> "Conversion":
        """The same conversion for a module that is the submodule `path` of another."""
        moved = tuple(
            Rule(rule.ours, tuple(f"{path}.{name}" for name in rule.theirs), rule.make) for rule in self.rules
        )
        unused = tuple(f"{re.escape(path)}\\.(?:{pattern})" for pattern in self.unused)
        return replace(self, rules=moved, unused=unused)

    def ignores(self, tensor: str) -> bool:
        """Whether the source's tensor of this name is declared not to affect the output."""
        return any(re.fullmatch(pattern, tensor) for pattern in self.unused)


def convert(conversion: Conversion, tensors: Mapping[str, Tensor], name: str) -> ViT | TextTower:
    """Our model with the source's weights, in evaluation mode and frozen.

    A bias that the source does not have is zero. Every other parameter of ours must be made by a rule, and every tensor
    of the source must be used or declared unused. The model shares memory with `tensors` where a rule allows it.

    Args:
        name: what error messages call the model.

    Raises:
        PrismaError: tensors are missing, unused or wrongly shaped (the message lists all of them), have no values, are
            on different devices, or are NaN or infinite.
        UnsupportedModelError: tensors are quantised or not in one precision.
    """
    model = outline(conversion.config)
    used: set[str] = set()
    made: dict[str, Tensor] = {}
    wrong: list[str] = []
    precision = next((x.dtype for x in tensors.values() if x.is_floating_point()), torch.get_default_dtype())
    for target, wanted in model.state_dict().items():
        try:
            found = _apply(conversion, target, tensors, used)
        except UnsupportedModelError:
            raise
        except PrismaError as error:
            wrong.append(str(error))
            continue
        if found is None and target.endswith(".bias") and not target.endswith("attn.bias"):
            found = torch.zeros(wanted.shape, dtype=precision)
        if found is None:
            wrong.append(f"{target} is missing (from {_wanted(conversion, target)})")
        elif found.shape != wanted.shape:
            wrong.append(f"{target} is {list(found.shape)} instead of {list(wanted.shape)}")
        else:
            made[target] = found.detach()
    wrong += [f"{extra} is not used" for extra in tensors if extra not in used and not conversion.ignores(extra)]
    if wrong:
        raise PrismaError(f"the weights of {name} do not fit its architecture: {'; '.join(wrong)}")
    expect_usable({name: tensors[name] for name in tensors if name in used}, name)
    expect_finite(made, name)
    return filled(model, made)


def _apply(conversion: Conversion, target: str, tensors: Mapping[str, Tensor], used: set[str]) -> Tensor | None:
    """Our parameter by the first rule that applies; None if none does. Raises PrismaError if its tensors do not fit."""
    general, layer = _general(target)
    for rule in conversion.rules:
        names = [name.replace("{l}", str(layer)) for name in rule.theirs]
        if rule.ours == general and all(name in tensors for name in names):
            used.update(names)
            parts = [tensors[name] for name in names]
            try:
                return rule.make(Context(conversion.config, layer, conversion.facts), *parts)
            except (RuntimeError, IndexError) as error:  # torch: shapes that do not go together
                shapes = " + ".join(str(list(part.shape)) for part in parts)
                reason = str(error).strip().split("\n")[0]
                raise PrismaError(
                    f"{target} cannot be made from {' + '.join(names)} with shapes {shapes} ({reason})"
                ) from None
    return None


def _wanted(conversion: Conversion, target: str) -> str:
    """The names of the source's tensors from which a rule would make this parameter."""
    general, layer = _general(target)
    names = [" + ".join(rule.theirs) for rule in conversion.rules if rule.ours == general]
    return " or ".join(names).replace("{l}", str(layer)) or "no rule"


def _general(target: str) -> tuple[str, int]:
    """`blocks.3.attn.out.bias` -> (`blocks.{l}.attn.out.bias`, 3)."""
    found = re.match(r"blocks\.(\d+)\.", target)
    return (target, -1) if found is None else (f"blocks.{{l}}.{target[found.end() :]}", int(found[1]))
