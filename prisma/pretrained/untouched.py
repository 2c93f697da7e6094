"""What a class builds, and what was done to a module of it since: hooks, replaced parts, blocks that came to differ.

Readers tell what follows from a class; these checks find what does not, and what no weight would tell.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from prisma.pretrained.family import Family, full_name
from prisma.pretrained.rules import Source, UnsupportedModelError

HOMES = ("torch.nn.modules.", "timm.", "transformers.", "open_clip.")
"""Where the classes of parts are of."""
RECORDERS = ("transformers.utils.output_capturing",)
"""Where those hooks are of that keep what passes and change nothing."""
IDLE = re.compile("Identity|Dropout|.*DropPath|PatchDropout.*")
"""Classes of parts that pass on what they get, in evaluation mode."""
IDLE_NAMES = re.compile(r"(.*\.)?[a-z_]*drop[a-z0-9_]*")
"""Names of parts that are such, as a class builds them."""
OWN = ("training", "layer_idx", "layer_index", "num_kv_heads", "num_kv_groups", "kv_dim", "out_features")
"""Attributes that may differ between blocks: grouped k and v, whose number the shapes of weights tell."""
SCALES, WIDTHS = ("scale", "scaling"), ("head_dim", "attention_head_size")
"""Attributes of an attention: what scores are multiplied by, and the width of a head."""


def guarded(family: Family) -> Family:
    """A family that reads modules as their class builds them, and refuses those that were changed."""

    def read(module: nn.Module) -> Source:
        try:
            source = family.read(module)
        except (AttributeError, IndexError, TypeError) as error:
            raise UnsupportedModelError(
                f"expected the parts that a {family.name} is built of, found others: {error}"
            ) from error
        passed = re.compile("|".join(source.unused) or r"(?!)")
        for name, part in module.named_modules():
            if not (name and passed.fullmatch(f"{name}.")):
                _expect_unchanged(name or "the model", part)
        _expect_alike(family.blocks(module))
        return source

    return replace(family, read=read)


def _expect_unchanged(name: str, part: nn.Module) -> None:
    if IDLE_NAMES.fullmatch(name) and not IDLE.fullmatch(type(part).__name__):
        raise UnsupportedModelError(f"{name} is a {type(part).__name__}, expected a dropout, which does nothing here")
    for why in _changes(part):
        raise UnsupportedModelError(f"{name} {why}: what it computes does not follow from its class and weights")


def _changes(part: Any) -> Iterator[str]:
    """What has been changed about one part, in words."""
    hooks = [*part._forward_hooks.values(), *part._forward_pre_hooks.values()]
    if any(getattr(hook, "__module__", None) not in RECORDERS for hook in hooks):
        yield "has a forward hook, which may change what passes"
    if replaced := [name for name in vars(part) if callable(getattr(type(part), name, None))]:
        yield f"has a {replaced[0]} of its own"
    if not full_name(part).startswith(HOMES):
        yield f"is a {full_name(part)}, of no library that Prisma reads"
    if isinstance(part, nn.Conv2d | nn.Conv3d) and not _cuts_patches(part):
        yield "is a convolution that overlaps, skips, pads or groups"
    if getattr(part, "add_zero_attn", False):
        yield "adds a key of zeros (add_zero_attn)"
    width = next((found for name in WIDTHS if isinstance(found := getattr(part, name, None), int)), None)
    scale = next((found for name in SCALES if isinstance(found := getattr(part, name, None), float)), None)
    if width and scale is not None and abs(scale * width**0.5 - 1) > 1e-6:
        yield f"scales its scores by {scale:.4g} instead of {width**-0.5:.4g}"


def _cuts_patches(conv: nn.Conv2d | nn.Conv3d) -> bool:
    """Whether a convolution is a linear map of patches that lie side by side."""
    plain = set(conv.dilation) == {1} and conv.groups == 1 and conv.padding in ("valid", (0,) * len(conv.kernel_size))
    return tuple(conv.stride) == tuple(conv.kernel_size) and plain


def _expect_alike(blocks: Sequence[nn.Module]) -> None:
    kinds = [_kind(block) for block in blocks]
    for layer, kind in enumerate(kinds):
        if kind != kinds[0]:
            what, found, first = _difference(kind, kinds[0])
            raise UnsupportedModelError(
                f"blocks that differ from one another are not supported: {what} is {found} in block {layer}, "
                f"{first} in block 0"
            )


def _kind(block: nn.Module) -> dict[str, Any]:
    """A block's parts and their settings -> classes and values; not its weights."""
    found: dict[str, Any] = {}
    for name, part in block.named_modules():
        if IDLE.fullmatch(type(part).__name__):
            continue
        found[name or "the block"] = type(part).__name__
        settings = {key: x for key, x in vars(part).items() if key not in OWN and not key.startswith("_")}
        plain = {key: x for key, x in settings.items() if isinstance(x, int | float | str | tuple)}
        found |= {f"{name}.{key}".lstrip("."): x for key, x in plain.items()}
    return found


def _difference(one: dict[str, Any], other: dict[str, Any]) -> tuple[str, Any, Any]:
    """(what, its value, its value in the other) of the first that differs."""
    what = next(name for name in {**one, **other} if one.get(name) != other.get(name))
    return what, one.get(what, "absent"), other.get(what, "absent")
