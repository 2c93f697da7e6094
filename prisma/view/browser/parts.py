"""The parts of a logit as a viewer gets them: a bar for each head and each other component, in the model's order."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

WORDS = {
    "embed.patch": "patch embedding",
    "embed.patch.bias": "bias of the patch embedding",
    "embed.positions": "positions",
    "embed.prefix": "class token and registers",
    "mlp": "MLP",
    "attn.out.bias": "bias of attention",
    "mlp.out.bias": "bias of the MLP",
    "readout.ln_final.bias": "bias of the final norm",
    "readout.head.bias": "bias of the class",
}
_IN_BLOCK = re.compile(r"blocks\.(\d+)\.(.*)")


@dataclass(frozen=True)
class Part:
    """One bar."""

    name: str
    group: str  # "embedding", "layer 0", ..., "readout"
    component: int  # of `DirectLogitAttribution.components`, which has one number for all heads of a layer
    layer: int | None = None
    head: int | None = None


def parts_of(components: Sequence[str], heads: int) -> list[Part]:
    """The parts of components with these names; `blocks.L.attn` is one part for each of its `heads`."""
    parts: list[Part] = []
    for i, name in enumerate(components):
        inside = _IN_BLOCK.fullmatch(name)
        if not inside:
            parts.append(Part(WORDS.get(name, name), "embedding" if name.startswith("embed.") else "readout", i))
            continue
        layer, module = int(inside[1]), inside[2]
        group = f"layer {layer}"
        if module == "attn" and heads:
            parts += [Part(f"{group}, head {head}", group, i, layer, head) for head in range(heads)]
        else:
            parts.append(Part(f"{group}, {WORDS.get(module, module)}", group, i, layer))
    return parts


def written(parts: Sequence[Part], components: Tensor, heads: Tensor | None) -> Tensor:
    """What each part writes [part], from the components [component] and the heads [layer, head] of one image."""
    whole = heads is None
    return torch.stack(
        [components[p.component] if whole or p.head is None else heads[p.layer, p.head] for p in parts]  # type: ignore[index]
    )


def parts_facts(parts: Sequence[Part], value: float, total: float) -> dict[str, Any]:
    """What a viewer says of the bars: their names and groups, the model's number, and the sum of the bars."""
    return {"names": [p.name for p in parts], "groups": [p.group for p in parts], "value": value, "sum": total}
