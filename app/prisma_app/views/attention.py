"""Attention: which tokens each head of each layer reads from, for one image.

The parts of the view are the layers, from 0; then the scores of all heads; then attention rollout; then, for a model
whose layers are read when they are looked at, what one token gives and gets in every head of every layer.
"""

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from prisma.analysis.attention.rollout import rollout
from prisma.analysis.border import record
from prisma.config import ViTConfig
from prisma.errors import PrismaError
from prisma.view.browser import Array, View, attention_rows, fractions, numbers
from prisma.vit import ViT
from prisma_app.library import Scene
from prisma_app.views.heads import described, scores_of
from prisma_app.views.shared import code_head, default_token, nested

MOST_AT_ONCE = 2**20  # weights of all layers up to which the page reads them at once
MOST_ALL = 300  # tokens up to which it reads every layer
MOST_LAYER = 600  # tokens up to which it reads the patterns of a layer; above, those from and to one token
MOST_MEMORY = 2**29  # bytes of the patterns of all layers, for scores and rollout

Packed = dict[str, Array]
_LAYERS: "WeakKeyDictionary[ViT, tuple[str, dict[int, Packed]]]" = WeakKeyDictionary()
"""The layers of each model's last image, so that a page that asks for one after the other costs two passes."""


def mode_of(config: ViTConfig) -> str:
    """How the page reads attention.

    "all": every layer at once. "looked": what one token gives and gets in every layer, and the layers when they are
    looked at. "layer" and "token": the patterns of one layer, or of one token in it, at a time.
    """
    tokens = config.n_tokens
    if tokens > MOST_ALL:
        return "layer" if tokens <= MOST_LAYER else "token"
    return "all" if config.n_layers * config.n_heads * tokens**2 <= MOST_AT_ONCE else "looked"


def view(scene: Scene, part: int | None = None) -> View:
    """The patterns [head, query, key] of the layer `part` (by default the state's), or another part.

    Raises:
        PrismaError: the model cannot take the image, has diverged, has no such layer or token, or is too large for it.
    """
    layers = scene.config.n_layers
    if part == layers:
        return _scores(scene)
    if part == layers + 1:
        return _rollout(scene)
    if part == layers + 2 and mode_of(scene.config) == "looked":
        return _of_token(scene)
    layer = scene.index("layer", scene.state.layer if part is None else part, layers)
    mode, token = mode_of(scene.config), default_token(scene)
    facts = {
        "layer": layer,
        "mode": mode,
        "parts": {"scores": layers, "rollout": layers + 1, "token": layers + 2},
        "state": scene.resolved(layer=layer, token=token),
        "code": _code(scene, layer),
    }
    if mode in ("all", "looked"):
        return View(facts, _packed_layer(scene, layer))
    pattern = patterns(scene, [layer])[0]
    if mode == "layer":
        return View(facts, attention_rows("pattern", pattern, scene.config.n_prefix))
    return View({**facts, "token": token}, _packed_token(scene, pattern, token))


def parts(scene: Scene) -> range:
    """The parts of the view of a scene."""
    return range(scene.config.n_layers + (3 if mode_of(scene.config) == "looked" else 2))


def patterns(scene: Scene, layers: Sequence[int]) -> list[Tensor]:
    """The pattern [head, query, key] of each of these layers."""
    sites = [f"blocks.{layer}.attn.pattern" for layer in layers]
    with torch.no_grad():
        _, acts = record(scene.loaded.model, scene.picture.x[None], sites, stop=True)
    return [acts[site][0] for site in sites]


def _packed_layer(scene: Scene, layer: int) -> Packed:
    """The first layer that is asked for is computed alone, so that it is drawn soon; the second time, all are."""
    img, held = _LAYERS.get(scene.loaded.model, ("", {}))
    if img != scene.picture.img:
        held = {}
    if layer not in held:
        missing = [i for i in range(scene.config.n_layers) if i not in held] if held else [layer]
        found = [attention_rows("pattern", x, scene.config.n_prefix) for x in patterns(scene, missing)]
        held = {**held, **dict(zip(missing, found, strict=True))}
        _LAYERS[scene.loaded.model] = (scene.picture.img, held)
    return held[layer]


def _of_token(scene: Scene) -> View:
    """What the state's token gives and gets in all heads of all layers, one after the other."""
    token = default_token(scene)
    found = torch.cat(patterns(scene, range(scene.config.n_layers)))
    return View({"token": token}, _packed_token(scene, found, token))


def _packed_token(scene: Scene, pattern: Tensor, token: int) -> Packed:
    """Of patterns [head, query, key], the rows of one query, and the column of the same token as a key."""
    rows = attention_rows("pattern", pattern[:, token : token + 1], scene.config.n_prefix)
    return {**rows, "from": fractions(pattern[:, :, token])}


def _scores(scene: Scene) -> View:
    """The scores [score, layer, head] of all heads for the image."""
    _expect_memory(scene.config, "scores of heads")
    result = scores_of(scene.loaded.model, scene.picture.x[None])
    return View({"scores": described(result)}, {"scores": numbers(result.mean)})


def _rollout(scene: Scene) -> View:
    """Rollout [1, query, key], written as the pattern of one head."""
    _expect_memory(scene.config, "attention rollout")
    found = rollout(scene.loaded.model, scene.picture.x[None]).map
    assert found is not None
    code = f"{code_head(scene)}values = prisma.rollout(loaded.model, x).map[0]\n"
    return View({"code": code}, attention_rows("pattern", found, scene.config.n_prefix))


def _expect_memory(config: ViTConfig, what: str) -> None:
    needed = 4 * config.n_layers * config.n_heads * config.n_tokens**2
    if needed > MOST_MEMORY:
        raise PrismaError(
            f"expected a model whose patterns take at most {MOST_MEMORY >> 20} MB for {what} here; found "
            f"{needed >> 20} MB: use prisma in Python"
        )


def values(scene: Scene) -> dict[str, Any]:
    """Attention [head, query, key] of the state's layer; [query, key] of a head, [key] of a token if they are given."""
    layer, where, axes = _asked(scene)
    return nested(scene, axes, patterns(scene, [layer])[0][where], layer=layer)


def code(scene: Scene) -> str:
    """The Python that computes the same."""
    layer, where, axes = _asked(scene)
    return _code(scene, layer, where if len(axes) < 3 else ())


def _code(scene: Scene, layer: int, where: Sequence[int | slice] = ()) -> str:
    site = f"blocks.{layer}.attn.pattern"
    index = ", ".join(":" if isinstance(at, slice) else str(at) for at in (0, *where))
    return f"{code_head(scene)}_, acts = prisma.record(loaded.model, x, {site!r})\nvalues = acts[{site!r}][{index}]\n"


def _asked(scene: Scene) -> tuple[int, tuple[int | slice, ...], list[str]]:
    """The layer, which part of its pattern [head, query, key], and the names of the axes that are left."""
    state, config = scene.state, scene.config
    head, token = "head" in state.model_fields_set, state.token is not None
    where = (
        scene.index("head", state.head, config.n_heads) if head else slice(None),
        scene.index("token", state.token, config.n_tokens) if token else slice(None),
    )
    axes = ["head"] * (not head) + ["query"] * (not token) + ["key"]
    return scene.index("layer", state.layer, config.n_layers), where, axes
