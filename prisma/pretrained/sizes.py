"""The sizes that a configuration of another library states, checked before that library builds anything.

A configuration is a stranger's file, and libraries build whatever it states: a million layers, or a table for an image
of 200,000 pixels. So every number in it that decides how much is built is held against Prisma's own bounds, by one
table from the library's word to the name in `prisma.bounds`; and then the module is built without values, which tells
how much memory it needs.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from prisma.bounds import NUMBERS, expect_memory, expect_within
from prisma.errors import PrismaError, quoted
from prisma.pretrained.library_calls import library_errors
from prisma.pretrained.source import ImageSize

ENDINGS = (
    "size|dim|width|height|length|len|plane|feature|channel|chan|ch|kernel|window|stride|dilation|padding|ratio|factor|"
    "rate|rank|resolution|merge|vocab|token|position|embedding|label|class(es)?|pixel|patch(es)?|bin|bucket|point|unit|"
    "state|multiplier|reduction|scale|expansion"
)
"""How numbers that are sizes are called, whatever stands before."""
WORDS: Mapping[str, str] = {
    "n_layers": r"num_(\w+_)?(layers|blocks|stages|convs)|layers|n_layers?|depths?",
    "d_model": r"hidden_sizes?|hidden_dim|embed_dims?|d_model|n_embd|width|dim|num_features|pooler_output_size",
    "n_heads": r"num_(\w+_)?heads|n_heads?|heads",
    "d_head": r"head_dim|head_width|dim_head",
    "d_mlp": r"intermediate_size|ffn_dim|mlp_dim|dim_feedforward|d_ff",
    "mlp_ratio": r"mlp_ratios?",
    "norm_eps": r"layer_?norm_eps|rms_norm_eps|norm_eps",
    "rotary_base": r"rope_theta|rope_temperature",
    "image_size": r"image_size|img_size|crop_size|input_size|ref_feat_shape",
    "patch_size": r"patch_sizes?",
    "channels": r"num_channels|in_chans|in_channels|input_channels|channels",
    "frames": r"num_frames|frames_per_clip",
    "tubelet": r"tubelet_size",
    "n_classes": r"num_labels|num_classes|projection_(dim|size)",
    "registers": r"num_register_tokens|num_reg_tokens|reg_tokens|num_registers|n_queries|queries",
    "vocabulary": r"vocab_size|max_position_embeddings",
    "context": r"context_length",
    "tokens": r"num_patches|num_mask_tokens",
    "size": rf"\w*({ENDINGS})s?(_(per_\w+|q|kv|qkv|list))?|d_\w+",
    "parts": r"(\w+_)?num_\w+|nb?_\w+|\w+_(layers|blocks|stages|heads|experts|groups|queries|latents|levels|depths?)|"
    r"\w+_per_(block|stage|layer)|\w*(repeats|top_?k)",
}
"""Name in `prisma.bounds` -> the words for it in configurations, in front of which the name of a part may stand.

The last two are for what no library's table can list: any other count, and any other number that is named as a size.
"""
LOOSE = ("parts", "size")
"""Names of which a value may be something else than a number, such as a switch or a text, which is not looked at."""
PARTS = r"(\w*coder|vision|text|image|video|pred|attn_pool(er)?|pooler?|resampler|backbone|cross|query_dec|auxiliary)_"
FRACTIONS = {"mlp_ratio", "norm_eps", "rotary_base", *LOOSE}
"""Names of which a value may be no whole number."""
MOST_STAGES = 1_000  # values in a list, one for each stage of a model


def expect_sizes(values: Mapping[str, Any], source: Path | str) -> None:
    """Check every size that a configuration states, and the number of tokens that follows from them.

    Args:
        values: as JSON has them; configurations of parts, such as `vision_config`, may be in it.

    Raises:
        PrismaError: a size is no whole number (or list of such), or outside Prisma's bounds; the message names the
            configuration's own word, what was expected, and what was found.
    """
    sizes: dict[str, list[float]] = {}
    for key, value in values.items():
        if (name := bound_of(str(key))) is not None:
            sizes.setdefault(name, numbers := list(_numbers(key, value, name, source)))
            if name == "n_layers" and sum(numbers) > NUMBERS[name][1]:  # of all stages together
                raise _unexpected(key, value, name, source)
        if name is None or name in LOOSE:
            for part in _parts(value):
                expect_sizes(part, source)
    if "image_size" in sizes and "patch_size" in sizes:
        _expect_tokens(sizes, source)


def _parts(value: Any) -> Iterator[Mapping[str, Any]]:
    """A configuration in another one, or those in a list."""
    if isinstance(value, Mapping):
        yield value
    elif isinstance(value, list | tuple):
        for element in value:
            yield from _parts(element)


@cache
def bound_of(key: str) -> str | None:
    """The name in `prisma.bounds` of a number that a configuration calls `key`; None if it is no size."""
    return next((name for name, words in WORDS.items() if re.fullmatch(rf"({PARTS})?({words})", key)), None)


def _numbers(key: str, value: Any, name: str, source: Path | str) -> Iterator[float]:
    """The numbers of a value: itself, or those in a list, or in an object such as {"height": 224, "width": 224}."""
    if value is None or (name in LOOSE and type(value) not in (int, float, list, tuple)):  # the library's default
        return
    if isinstance(value, list | tuple | Mapping):
        if len(value) > MOST_STAGES:
            raise PrismaError(
                f"expected at most {MOST_STAGES:,} numbers as {key} in {source}; found {len(value):,} of them"
            )
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _numbers(key, part, name, source)
        return
    if type(value) is not int and not (name in FRACTIONS and type(value) is float):
        raise _unexpected(key, value, name, source)
    expect_within(name, value, f"{key} in {source}")
    yield value


def _unexpected(key: str, value: Any, name: str, source: Path | str) -> PrismaError:
    low, high = NUMBERS[name]
    what = "a number" if name in FRACTIONS else "a whole number"
    return PrismaError(f"expected {key} in {source} to be {what} from {low:,} to {high:,}; found {quoted(value)}")


def _expect_tokens(sizes: Mapping[str, list[float]], source: Path | str) -> None:
    """Check the number of tokens, and the memory of a table with a vector for each, which some libraries compute."""
    image, patch = (_sides(sizes[name]) for name in ("image_size", "patch_size"))
    times = max(sizes.get("frames") or [1]) // min((sizes.get("tubelet") or [1])[:1])
    tokens = math.prod(side // cut for side, cut in zip(image, patch, strict=True)) * max(times, 1)
    expect_within("tokens", int(tokens), f"the number of tokens that {source} states, by image_size and patch_size,")
    width = max(sizes.get("d_model") or [1])
    expect_memory(8 * int(tokens * width), f"a table of {int(tokens):,} positions of {int(width):,} numbers")


def _sides(numbers: list[float]) -> tuple[float, float]:
    """(height, width) of a side, of two, or of an image's channels, height and width."""
    return (numbers[-2], numbers[-1]) if len(numbers) > 1 else (numbers[0], numbers[0]) if numbers else (1, 1)


def expect_image_size(config: Any, image_size: ImageSize) -> None:
    """Raise PrismaError if at this image size, a tower that is there already would have too many tokens."""
    sides = (image_size, image_size) if isinstance(image_size, int) else image_size
    if sides is not None:
        tokens = math.prod(side // cut for side, cut in zip(sides, config.patch_sides, strict=True))
        expect_within("tokens", tokens, f"the number of tokens at image_size={image_size}")


def without_values(build: Callable[[], nn.Module], what: str) -> nn.Module:
    """The module that a library builds, with weights that have shapes and no values, so that building is cheap.

    Raises:
        PrismaError: the library cannot build it, or with values it would not fit into this machine's memory.
    """
    with library_errors(what), torch.device("meta"):
        module = build()
    tensors = {id(x): x.nbytes for x in (*module.parameters(), *module.buffers())}
    expect_memory(sum(tensors.values()), f"the weights that the configuration of {what} states")
    return module
