"""Checks that a module computes what its class says: no hooks, no replaced parts, no blocks that differ.

A reader converts what follows from a module's class and weights. These checks refuse the modules that were changed
after their class built them, in ways that no weight shows.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from torch import nn
from torch.nn.utils.parametrize import is_parametrized
from torch.nn.utils.prune import BasePruningMethod

from prisma.errors import UnsupportedModelError
from prisma.pretrained.family import Family, full_name
from prisma.pretrained.rules import Conversion

LIBRARIES = ("torch.nn.modules.", "timm.", "transformers.", "open_clip.")
"""Modules of Python that may define the class of a part."""
QUANTISERS = ("bitsandbytes", "torchao", "auto_gptq", "gptqmodel", "awq", "hqq", "optimum", "quanto", "aqlm", "eetq")
"""Packages whose parts compute with quantised weights."""
RECORDERS = ("transformers.utils.output_capturing",)
"""Modules of Python whose hooks record values and change nothing."""
PASSES_THROUGH = re.compile("Identity|Dropout|.*DropPath|PatchDropout.*")
"""Classes of parts that return their input unchanged in evaluation mode."""
DROPOUT_NAMES = re.compile(r"(.*\.)?[a-z_]*drop[a-z0-9_]*")
"""Names that the libraries give to such parts."""
MAY_DIFFER = re.compile(
    "training|layer_idx|layer_index|num_kv_heads|num_kv_groups|kv_dim|out_features"  # given by place or shapes
    "|.*drop.*|grad_checkpointing|gradient_checkpointing|init_values"  # of training only
    "|fused_attn|inplace|qkv_bias_separate|chunk_size_feed_forward|seq_len_dim"  # how the same is computed
)
"""Attributes that may differ between blocks, because they change no output in evaluation mode."""
SCALES, WIDTHS = ("scale", "scaling"), ("head_dim", "attention_head_size")
"""Attributes of the libraries' attention modules: the factor of the scores, and the width of a head."""
UNSUPPORTED = (
    (r".*(Window|Swin|Shifted).*", "attention within windows"),
    (r".*(PatchMerging|Downsample|Stage).*", "stages that change the number of tokens"),
    (r".*BatchNorm.*", "batch norm"),
    (r"Conv2d|Conv2dSame|StdConv2d.*", "convolutions"),
    (r"(LSTM|GRU)(Cell)?", "recurrence"),
)
"""Class of a part -> the property it shows, which a vision transformer with one residual stream does not have."""
PATCH_CONVOLUTIONS = 2  # that a patch embedding may have


def unsupported_properties(module: nn.Module) -> list[str]:
    """Known properties of a model that a vision transformer with one residual stream does not have; may be empty."""
    found = [type(part).__name__ for part in module.modules()]
    return [
        words
        for pattern, words in UNSUPPORTED
        if sum(bool(re.fullmatch(pattern, name)) for name in found)
        > (PATCH_CONVOLUTIONS if words == "convolutions" else 0)
    ]


def checked(family: Family) -> Family:
    """The same family, whose reader also refuses modules that were changed after their class built them."""

    def read(module: nn.Module) -> Conversion:
        try:
            conversion = family.read(module)
        except (AttributeError, IndexError, TypeError, StopIteration, UnsupportedModelError) as error:
            for name, part in module.named_modules():  # a change that has a name explains more
                if (why := known_change(part)) is not None:
                    raise UnsupportedModelError(f"{name or 'the model'} {why}") from error
            if isinstance(error, UnsupportedModelError):
                raise
            raise UnsupportedModelError(f"expected the parts of a {family.name}; found others: {error}") from error
        for name, part in module.named_modules():
            if not (name and conversion.ignores(f"{name}.")):
                _expect_unchanged(name or "the model", part)
        _expect_equal_blocks(family.blocks(module))
        return conversion

    return replace(family, read=read)


def _expect_unchanged(name: str, part: nn.Module) -> None:
    if DROPOUT_NAMES.fullmatch(name) and not PASSES_THROUGH.fullmatch(type(part).__name__):
        raise UnsupportedModelError(
            f"expected {name} to be a dropout, which changes nothing in evaluation mode; found a {type(part).__name__}"
        )
    if (known := known_change(part)) is not None:
        raise UnsupportedModelError(f"{name} {known}")
    for why in _changes(part):
        raise UnsupportedModelError(
            f"{name} {why}: it was modified after its class built it, so it cannot be converted exactly"
        )


def known_change(part: nn.Module) -> str | None:
    """A phrase for what a library has done to a part, so that its weights are not those that it computes with, and how
    to undo it; None if nothing of the kind is known.
    """
    home = type(part).__module__.partition(".")[0]
    hooks = [type(hook).__name__ for hook in part._forward_pre_hooks.values()]
    if any(isinstance(hook, BasePruningMethod) for hook in part._forward_pre_hooks.values()):
        return "is pruned: make that permanent first, with torch.nn.utils.prune.remove(part, 'weight')"
    if is_parametrized(part):
        return (
            f"has parametrizations ({', '.join(part.parametrizations)}): fold them into the weights first, with "  # type: ignore[arg-type]
            "torch.nn.utils.parametrize.remove_parametrizations"
        )
    if norms := [hook for hook in hooks if hook in ("WeightNorm", "SpectralNorm")]:
        remove = "remove_weight_norm" if norms[0] == "WeightNorm" else "remove_spectral_norm"
        return f"has a {norms[0]}: fold it into the weights first, with torch.nn.utils.{remove}"
    if home == "peft":
        return "belongs to a PEFT adapter: merge it into the weights first, with model.merge_and_unload()"
    if home in QUANTISERS or type(part).__module__.startswith("torch.ao."):
        return "is quantised: load the model without quantisation"
    if hasattr(part, "_hf_hook"):
        return "is moved between devices by accelerate: load the model without device_map"
    return None


def _changes(part: Any) -> Iterator[str]:
    """Phrases for what was changed about one part, or is unusual about it."""
    hooks = [*part._forward_hooks.values(), *part._forward_pre_hooks.values()]
    if any(getattr(hook, "__module__", None) not in RECORDERS for hook in hooks):
        yield "has a forward hook, which may change its output"
    if replaced := [name for name in vars(part) if callable(getattr(type(part), name, None))]:
        yield f"has its method {replaced[0]} replaced"
    if not full_name(part).startswith(LIBRARIES):
        yield f"is a {full_name(part)}, a class of no library that Prisma reads"
    if isinstance(part, nn.Conv2d | nn.Conv3d) and not _cuts_patches(part):
        yield "is a convolution with overlap, gaps, padding or groups"
    if getattr(part, "add_zero_attn", False):
        yield "attends to an added key of zeros (add_zero_attn)"
    width = next((found for name in WIDTHS if isinstance(found := getattr(part, name, None), int)), None)
    scale = next((found for name in SCALES if isinstance(found := getattr(part, name, None), float)), None)
    if width and scale is not None and abs(scale * width**0.5 - 1) > 1e-6:
        yield f"multiplies its scores by {scale:.4g} instead of {width**-0.5:.4g}"


def _cuts_patches(conv: nn.Conv2d | nn.Conv3d) -> bool:
    """Whether a convolution is a linear map of patches that neither overlap nor leave gaps."""
    plain = set(conv.dilation) == {1} and conv.groups == 1 and conv.padding in ("valid", (0,) * len(conv.kernel_size))
    return tuple(conv.stride) == tuple(conv.kernel_size) and plain


def _expect_equal_blocks(blocks: Sequence[nn.Module]) -> None:
    kinds = [_kind(block) for block in blocks]
    for layer, kind in enumerate(kinds):
        if kind != kinds[0]:
            what, found, first = _difference(kind, kinds[0])
            raise UnsupportedModelError(
                f"expected blocks that differ in nothing but their weights; found {what} = {found} in block {layer}, "
                f"{first} in block 0"
            )


def _kind(block: nn.Module) -> dict[str, Any]:
    """The classes of a block's parts and the values of their settings, without the weights."""
    found: dict[str, Any] = {}
    for name, part in block.named_modules():
        if PASSES_THROUGH.fullmatch(type(part).__name__):
            continue
        found[name or "the block"] = type(part).__name__
        settings = {key: x for key, x in vars(part).items() if not (key.startswith("_") or MAY_DIFFER.fullmatch(key))}
        plain = {key: x for key, x in settings.items() if isinstance(x, int | float | str | tuple)}
        found |= {f"{name}.{key}".lstrip("."): x for key, x in plain.items()}
    return found


def _difference(one: dict[str, Any], other: dict[str, Any]) -> tuple[str, Any, Any]:
    """(name, value, value in the other) of the first setting that differs."""
    what = next(name for name in {**one, **other} if one.get(name) != other.get(name))
    return what, one.get(what, "absent"), other.get(what, "absent")
