"""Attention: which tokens each head of each layer reads from, for one image."""

from typing import Any

import torch
from torch import Tensor

from prisma.analysis.border import record
from prisma.view.browser import View, attention_rows
from prisma_app.library import Scene
from prisma_app.views.shared import code_head, default_token, nested

FULL = 2**21  # numbers of one layer up to which all layers are kept together


def view(scene: Scene, part: int | None = None) -> View:
    """The patterns [head, query, key] of one layer: of `part`, or of the state's layer at first.

    Raises:
        PrismaError: the model cannot take the image, has diverged, or has no such layer.
    """
    config = scene.config
    layer = scene.index("layer", scene.state.layer if part is None else part, config.n_layers)
    pattern = patterns(scene, layer)
    facts = {
        "layer": layer,
        "state": scene.resolved(layer=layer, token=default_token(scene)),
        "code": code(scene),
    }
    return View(facts, attention_rows("pattern", pattern, config.n_prefix))


def patterns(scene: Scene, layer: int) -> Tensor:
    """The pattern [head, query, key] of one layer."""
    site = f"blocks.{layer}.attn.pattern"
    with torch.no_grad():
        _, acts = record(scene.loaded.model, scene.picture.x[None], site, stop=True)
    return acts[site][0]


def values(scene: Scene) -> dict[str, Any]:
    """Attention [head, query, key] of the state's layer; [query, key] of a head, [key] of a token if they are given."""
    state, config = scene.state, scene.config
    pattern = patterns(scene, scene.index("layer", state.layer, config.n_layers))
    axes = ["head", "query", "key"]
    if "head" in state.model_fields_set:
        pattern, axes = pattern[scene.index("head", state.head, config.n_heads)], axes[1:]
    if state.token is not None:
        pattern, axes = pattern.select(-2, scene.index("token", state.token, config.n_tokens)), [*axes[:-2], "key"]
    return nested(scene, axes, pattern)


def code(scene: Scene) -> str:
    """The Python that computes the pattern of the state's layer, [head, query, key]."""
    site = f"blocks.{scene.state.layer}.attn.pattern"
    return f"{code_head(scene)}_, acts = prisma.record(loaded.model, x, {site!r})\nvalues = acts[{site!r}][0]\n"
