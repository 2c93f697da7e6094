"""From the tensors of a foreign model to ours: one table of rules per source class, applied strictly.

A reader looks at a live module of a source class and returns a `Source`: the architecture, and the rules by which our
parameters follow from theirs. Nothing here or there knows the name of a model.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from prisma.config import TextConfig, ViTConfig
from prisma.errors import PrismaError
from prisma.outline import filled, outline
from prisma.text import TextTower
from prisma.vit import ViT


class UnsupportedModelError(PrismaError):
    """This model cannot be had exactly; the sentence names the property and why."""


@dataclass(frozen=True)
class Context:
    """What a rule may look at besides tensors."""

    config: Any  # ViTConfig or TextConfig
    layer: int  # of a rule with {l}; else -1
    facts: Mapping[str, Any]  # what the reader noted


Make = Callable[..., Tensor]
"""(Context, *tensors of the source) -> one of our parameters."""


def same(_: Context, x: Tensor) -> Tensor:
    return x


def joined(_: Context, *parts: Tensor) -> Tensor:
    """One below the other: q, k and v."""
    return torch.cat(parts)


def flat(_: Context, kernel: Tensor) -> Tensor:
    """A convolution with stride = kernel is a linear map of the flattened patch."""
    return kernel.flatten(1)


@dataclass(frozen=True)
class Rule:
    """One of our parameters from theirs. Of several rules for one parameter, the first whose sources are all there."""

    ours: str  # `{l}` stands for the layer
    theirs: tuple[str, ...]  # `{l}` too
    make: Make = same


def rules(*rows: tuple[str, str] | tuple[str, str, Make]) -> tuple[Rule, ...]:
    """A table: ours, theirs (names separated by blanks), and how, unless it is the same tensor."""
    return tuple(Rule(ours, tuple(theirs.split()), *make) for ours, theirs, *make in rows)


@dataclass(frozen=True)
class Source:
    """What a reader found out about a module."""

    config: ViTConfig | TextConfig
    rules: tuple[Rule, ...]
    unused: tuple[str, ...] = ()  # patterns (regular expressions) of their tensors that have no part in the output
    facts: Mapping[str, Any] = field(default_factory=dict)  # for rules that need more than tensors


def convert(source: Source, tensors: Mapping[str, Tensor], name: str) -> ViT | TextTower:
    """Our model with their weights, in evaluation mode and frozen. It shares memory with `tensors` where it can.

    A bias that the source does not have is zero; every other parameter of ours must follow from a rule, and every
    tensor of theirs must be used or declared unused.

    Args:
        name: what the sentences call the model.

    Raises:
        PrismaError: missing, extra or wrongly shaped tensors; all of them are listed.
    """
    model = outline(source.config)
    used: set[str] = set()
    made: dict[str, Tensor] = {}
    wrong: list[str] = []
    precision = next((x.dtype for x in tensors.values() if x.is_floating_point()), torch.get_default_dtype())
    for target, wanted in model.state_dict().items():
        try:
            found = _apply(source, target, tensors, used)
        except UnsupportedModelError:
            raise
        except PrismaError as error:
            wrong.append(str(error))
            continue
        if found is None and target.endswith(".bias") and not target.endswith("attn.bias"):
            found = torch.zeros(wanted.shape, dtype=precision)
        if found is None:
            wrong.append(f"{target} is missing (from {_wanted(source, target)})")
        elif found.shape != wanted.shape:
            wrong.append(f"{target} is {list(found.shape)} instead of {list(wanted.shape)}")
        else:
            made[target] = found.detach()
    ignored = re.compile("|".join(source.unused) or r"(?!)")
    wrong += [f"{extra} is not used" for extra in tensors if extra not in used and not ignored.fullmatch(extra)]
    if wrong:
        raise PrismaError(f"the weights of {name} do not fit its architecture: {'; '.join(wrong)}")
    return filled(model, made)


def _apply(source: Source, target: str, tensors: Mapping[str, Tensor], used: set[str]) -> Tensor | None:
    """Our parameter by the first rule that applies; None if none does. Raises PrismaError if its tensors do not fit."""
    general, layer = _general(target)
    for rule in source.rules:
        names = [name.replace("{l}", str(layer)) for name in rule.theirs]
        if rule.ours == general and all(name in tensors for name in names):
            used.update(names)
            parts = [tensors[name] for name in names]
            try:
                return rule.make(Context(source.config, layer, source.facts), *parts)
            except (RuntimeError, IndexError) as error:  # torch: shapes that do not go together
                shapes = " + ".join(str(list(part.shape)) for part in parts)
                reason = str(error).strip().split("\n")[0]
                raise PrismaError(f"{target} cannot be made from {' + '.join(names)} of {shapes} ({reason})") from None
    return None


def _wanted(source: Source, target: str) -> str:
    """The names that would have served."""
    general, layer = _general(target)
    names = [" + ".join(rule.theirs) for rule in source.rules if rule.ours == general]
    return " or ".join(names).replace("{l}", str(layer)) or "no rule"


def _general(target: str) -> tuple[str, int]:
    """`blocks.3.attn.out.bias` -> (`blocks.{l}.attn.out.bias`, 3)."""
    found = re.match(r"blocks\.(\d+)\.", target)
    return (target, -1) if found is None else (f"blocks.{{l}}.{target[found.end() :]}", int(found[1]))
