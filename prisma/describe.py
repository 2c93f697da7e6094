"""The architecture of a vision transformer in words, for cards and tables: every option of its config is in a row."""

from collections.abc import Mapping
from dataclasses import dataclass

from prisma.config import ViTConfig

NORM_KINDS: Mapping[str, str] = {"layer": "LayerNorm", "rms": "RMSNorm"}
NORMS: Mapping[str, str] = {
    "pre": "before each branch",
    "post": "after each addition",
    "res_post": "on the output of each branch",
    "none": "none",
}
ACTIVATIONS: Mapping[str, str] = {
    "gelu": "GELU",
    "gelu_tanh": "GELU (tanh form)",
    "quick_gelu": "quick GELU",
    "relu": "ReLU",
    "silu": "SiLU",
}
POOLS: Mapping[str, str] = {
    "class": "the class token",
    "mean": "the mean over {tokens}",
    "class_mean": "the class token and the mean over {tokens}",
    "distilled": "the class token and the distillation token",
    "attention": "attention pooling over {tokens}",
}
ROTARY: Mapping[str, str] = {
    "axial": "rotary along each axis, base {base:g}",
    "table": "rotary, a table of angles",
    "head_table": "rotary, a table of angles for each head",
}
ATTENTIONS: Mapping[str, str] = {"joint": "over all tokens", "divided": "over time, then over space"}


@dataclass(frozen=True)
class Row:
    """One line of the description."""

    name: str
    words: str


def describe(config: ViTConfig) -> tuple[Row, ...]:
    """What a model is, from its input to its output, as rows (name, words). Words are plain text on one line.

    Architectures that compute differently have different rows.
    """
    c = config
    rows = {
        "Input": _input(c),
        "Tokens": _tokens(c),
        "Positions": _positions(c),
        "Residual stream": f"{_n(c.d_model, 'dimension')}{', each branch scaled per dimension' * c.layer_scale}",
        "Layers": _layers(c),
        "Attention": _attention(c),
        "MLP": _mlp(c.d_mlp, c) if c.d_mlp else "none: attention only",
        "Norms": _norms(c),
        "Read out from": _pool(c),
        "Output": _output(c),
    }
    return tuple(Row(name, words) for name, words in rows.items())


def sides(size: int | tuple[int, int]) -> str:
    """A side or (height, width) in pixels: "8 x 8"."""
    height, width = (size, size) if isinstance(size, int) else size
    return f"{height} x {width}"


def what_goes_in(c: ViTConfig) -> str:
    """The input of a model: "1-channel images of 8 x 8 pixels"."""
    what = f"videos of {c.frames} frames" if c.frames > 1 else "images"
    return f"{c.channels}-channel {what} of {sides(c.image_size)} pixels"


def _input(c: ViTConfig) -> str:
    return f"{what_goes_in(c)}{', of which any edge beyond the last whole patch is ignored' * c.cut_edge}"


def _tokens(c: ViTConfig) -> str:
    depth = f"{_n(c.tubelet, 'frame')} of " if c.frames > 1 else ""
    distilled = c.pool == "distilled"
    parts = [
        f"{_n(c.n_patches, 'patch', 'patches')} of {depth}{sides(c.patch_size)} pixels",
        *(["1 class token"] if c.class_token else []),
        *(["1 distillation token"] if distilled else []),
        *([_n(c.registers - distilled, "register")] if c.registers - distilled else []),
    ]
    return ", ".join(parts)


def _positions(c: ViTConfig) -> str:
    found = [
        *(["learned, one for each patch"] if c.positions else []),
        *([ROTARY[c.rotary].format(base=c.rotary_base)] if c.rotary != "none" else []),
        *(["a learned bias of the scores for each pair of tokens, in each head"] if c.score_bias else []),
    ]
    return "; ".join(found) or "none"


def _layers(c: ViTConfig) -> str:
    if not c.n_layers:
        return "none: the embedding is read out"
    order = "" if not c.d_mlp else ", attention and MLP in parallel" if c.parallel else ", attention, then MLP"
    return f"{c.n_layers:,}{order}"


def _attention(c: ViTConfig) -> str:
    return (
        f"{_n(c.n_heads, 'head')} of {_n(c.d_head, 'dimension')} in each layer, {ATTENTIONS[c.attention]}"
        f"{', with a norm on q and k' * c.qk_norm}{', without biases of q, k and v' * (not c.qkv_bias)}"
        f"{', with a norm on the outputs of all heads together' * c.norm_z}"
    )


def _mlp(width: int, c: ViTConfig) -> str:
    return (
        f"{_n(width, 'neuron')}, {ACTIVATIONS[c.activation]}{', gated' * c.gated_mlp}"
        f"{', with a norm on the activations' * c.norm_post}"
    )


def _norms(c: ViTConfig) -> str:
    """Which norm, and where; the norms inside a branch are with the branch."""
    places = [NORMS[c.norm]]
    if c.norm_patches:
        places.append("on the patch embeddings")
    if c.norm_embed:
        places.append("on the embedding")
    if c.norm in ("pre", "res_post") and c.norm_final:
        own = "" if c.norm_final_eps is None else f" (epsilon {c.norm_final_eps:g})"
        places.append(f"{'on the pooled features' if c.norm_pooled else 'after the last layer'}{own}")
    if c.norm == "none" and not c.qk_norm:
        return "none"
    if c.norm == "none":
        places = ["on q and k alone"]
    return f"{NORM_KINDS[c.norm_kind]} {', '.join(places)}; epsilon {c.norm_eps:g}"


def _pool(c: ViTConfig) -> str:
    words = POOLS[c.pool].format(tokens="all tokens" if c.pool_prefix else "the patches")
    if c.pool != "attention":
        return words
    inside = _mlp(c.pooling_d_mlp, c) if c.pooling_d_mlp else "none"
    return f"{words} with {_n(c.pooling_heads, 'head')}; its MLP: {inside}"


def _output(c: ViTConfig) -> str:
    if not c.n_classes:
        return f"the {c.d_pooled:,} features themselves"
    return f"{_n(c.n_classes, 'logit')}{', without biases' * (not c.head_bias)}"


def _n(n: int, one: str, many: str = "") -> str:
    return f"{n:,} {one if n == 1 else many or f'{one}s'}"
