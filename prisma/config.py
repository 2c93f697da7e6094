"""The architecture of a vision transformer, as data."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import UnionType
from typing import Any, ClassVar, get_args, get_type_hints

from prisma.errors import PrismaError

LARGEST = 1_000_000  # no number of an architecture is larger, whatever a file says
MAY_BE_ZERO = (
    "d_head",
    "d_mlp",
    "n_classes",
    "registers",
    "n_layers",
    "norm_eps",
    "norm_final_eps",
    "pool_d_mlp",
    "end",
)


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """What the towers of images, video and text share: the blocks."""

    CHOICES: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "norm": ("pre", "post", "res_post", "none"),
        "norm_kind": ("layer", "rms"),
        "activation": ("gelu", "gelu_tanh", "quick_gelu", "relu", "silu"),
        "rotary": ("none", "axial", "table", "head_table"),
    }

    n_layers: int
    d_model: int
    n_heads: int
    d_head: int = 0  # 0: d_model / n_heads, which it then holds
    d_mlp: int  # 0: attention-only
    activation: str = "gelu"
    gated_mlp: bool = False  # act(W_gate x) * (W_in x)
    norm: str = "pre"  # before each branch, after each addition, of what a branch adds, or nowhere
    norm_kind: str = "layer"  # LayerNorm or RMSNorm, everywhere
    norm_eps: float = 1e-6
    norm_z: bool = False  # a norm of the heads' outputs z, all heads together (NormFormer's sub-norm)
    norm_post: bool = False  # a norm of the MLP's activations (sub-norm)
    parallel: bool = False  # the MLP reads what attention reads: resid_pre
    qkv_bias: bool = True
    qk_norm: bool = False  # a norm of each head's q and k
    layer_scale: bool = False
    rotary: str = "none"  # positions of patches: axial angles, or any angles as weights, for all heads or for each
    rotary_base: float = 100.0  # of axial angles
    score_bias: bool = False  # learned [head, query, key], added to the scores (relative positions)

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for name in (field.name for field in fields(self)):
            self._check_type(name, hints[name])
            value, choices = getattr(self, name), self.CHOICES.get(name)
            if choices and value not in choices:
                raise PrismaError(f"{name} must be one of {', '.join(choices)}; found {value!r}")
            if isinstance(value, list):  # JSON knows no tuples
                object.__setattr__(self, name, tuple(value))
        if not self.d_head and self.d_model % self.n_heads == 0:
            object.__setattr__(self, "d_head", self.d_model // self.n_heads)
        for broken, one, other in self._contradictions():
            if broken:
                raise PrismaError(
                    f"{one}={getattr(self, one)!r} contradicts {other}={getattr(self, other)!r}: {CONFLICTS[one]}"
                )

    def _check_type(self, name: str, kind: Any) -> None:
        value, low = getattr(self, name), 0 if name in MAY_BE_ZERO else 1
        kinds = get_args(kind) if isinstance(kind, UnionType) else (kind,)
        if kind in (bool, str):
            ok, wanted = type(value) is kind, "True or False" if kind is bool else "a name"
        else:
            two = any(get_args(k) for k in kinds) and isinstance(value, tuple | list) and len(value) == 2
            types = (int, float) if float in kinds else (int,)
            ok = all(type(v) in types and low <= v <= LARGEST for v in (value if two else (value,)))
            ok = ok or (value is None and type(None) in kinds)
            wanted = f"a number from {low} to {LARGEST:,}"
        if not ok:
            raise PrismaError(f"{name} must be {wanted}; found {value!r}")

    def _contradictions(self) -> list[tuple[bool, str, str]]:
        """(whether they contradict each other, a field, another field)."""
        return [
            (not self.d_head, "d_model", "n_heads"),
            (self.gated_mlp and not self.d_mlp, "gated_mlp", "d_mlp"),
            (self.norm_post and not self.d_mlp, "norm_post", "d_mlp"),
            (self.norm_post and self.norm == "none", "norm_post", "norm"),
            (self.norm_z and self.norm == "none", "norm_z", "norm"),
            (self.parallel and not self.d_mlp, "parallel", "d_mlp"),
            (self.parallel and self.norm == "post", "parallel", "norm"),
        ]

    @property
    def n_prefix(self) -> int:
        """Tokens before the patches."""
        raise NotImplementedError

    @property
    def n_tokens(self) -> int:
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class ViTConfig(TransformerConfig):
    """Architecture and nothing else. Contradictions are refused with a sentence that names both fields."""

    CHOICES: ClassVar[Mapping[str, tuple[str, ...]]] = {
        **TransformerConfig.CHOICES,
        "pool": ("class", "mean", "class_mean", "distilled", "attention"),
        "attention": ("joint", "divided"),
    }

    image_size: int | tuple[int, int]  # pixels: a side, or (height, width)
    patch_size: int | tuple[int, int]  # pixels: a side, or (height, width)
    cut_edge: bool = False  # pixels beyond the last whole patch are not seen; otherwise there may be none
    channels: int = 3
    frames: int = 1  # of the input; more than one makes it video, [batch, channel, frame, height, width]
    tubelet: int = 1  # frames per patch
    attention: str = "joint"  # over all tokens, or divided: over time, then over space (TimeSformer)
    n_classes: int  # 0: no head, logits are the pooled features
    norm_patches: bool = False  # a norm of the patch embeddings, before positions (AIMv2)
    norm_embed: bool = False  # a norm after the embedding (CLIP): site ln_pre
    norm_final: bool = True  # ln_final, of norm="pre" and "res_post"
    norm_final_eps: float | None = None  # of ln_final; None: norm_eps
    norm_pooled: bool = False  # ln_final after pooling instead of before
    class_token: bool = True
    registers: int = 0
    pool: str = "class"  # distilled: the class token and the first register, which is the distillation token (DeiT)
    pool_prefix: bool = False  # pool="mean" and "attention" read prefix tokens too
    pool_heads: int | None = None  # of pool="attention"; None: n_heads
    pool_d_mlp: int | None = None  # of pool="attention"; None: d_mlp, 0: no MLP
    positions: bool = True  # learned absolute positions
    head_bias: bool = True

    def _contradictions(self) -> list[tuple[bool, str, str]]:
        ends = self.norm in ("pre", "res_post")
        tokens = 2 if self.pool in ("class_mean", "distilled") else 1
        divided = self.attention == "divided"
        ragged = any(i % p for i, p in zip(self.image_sides, self.patch_sides, strict=True))
        return [
            *super()._contradictions(),
            (0 in self.grid[1:], "image_size", "patch_size"),
            (ragged and not self.cut_edge, "image_size", "patch_size"),
            (bool(self.frames % self.tubelet), "frames", "tubelet"),
            (self.pool in ("class", "class_mean", "distilled") and not self.class_token, "pool", "class_token"),
            (self.pool == "distilled" and not self.registers, "pool", "registers"),
            (self.pool_prefix and self.pool not in ("mean", "attention"), "pool_prefix", "pool"),
            (self.pool_heads is not None and self.pool != "attention", "pool_heads", "pool"),
            (self.pool_d_mlp is not None and self.pool != "attention", "pool_d_mlp", "pool"),
            (self.pool == "attention" and bool(self.d_model % self.pooling_heads), "pool_heads", "d_model"),
            (self.norm_patches and self.norm == "none", "norm_patches", "norm"),
            (self.norm_embed and self.norm == "none", "norm_embed", "norm"),
            (self.norm_final_eps is not None and not (ends and self.norm_final), "norm_final_eps", "norm_final"),
            (self.norm_pooled and not ends, "norm_pooled", "norm"),
            (self.norm_pooled and not self.norm_final, "norm_pooled", "norm_final"),
            (self.norm_pooled and tokens == 2, "norm_pooled", "pool"),
            (self.rotary == "axial" and bool(self.d_head % (2 * self.n_axes)), "rotary", "d_model"),
            (divided and self.frames == 1, "attention", "frames"),
            (divided and not self.class_token, "attention", "class_token"),
            (divided and self.registers > 0, "attention", "registers"),
            (divided and self.norm != "pre", "attention", "norm"),
            (divided and self.parallel, "attention", "parallel"),
            (divided and self.rotary != "none", "attention", "rotary"),
            (divided and self.score_bias, "attention", "score_bias"),
            (divided and self.norm_z, "attention", "norm_z"),
            (self.rotary != "none" and bool(self.d_head % 2), "rotary", "d_model"),
        ]

    @property
    def image_sides(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return (self.image_size, self.image_size) if isinstance(self.image_size, int) else self.image_size

    @property
    def patch_sides(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return (self.patch_size, self.patch_size) if isinstance(self.patch_size, int) else self.patch_size

    @property
    def grid(self) -> tuple[int, int, int]:
        """Patches along (time, height, width)."""
        (h, w), (p, q) = self.image_sides, self.patch_sides
        return self.frames // self.tubelet, h // p, w // q

    @property
    def n_axes(self) -> int:
        """2 for images, 3 for video."""
        return 3 if self.frames > 1 else 2

    @property
    def n_patches(self) -> int:
        t, h, w = self.grid
        return t * h * w

    @property
    def n_prefix(self) -> int:
        """Tokens before the patches: class token, then registers."""
        return int(self.class_token) + self.registers

    @property
    def n_tokens(self) -> int:
        return self.n_prefix + self.n_patches

    @property
    def pooling_heads(self) -> int:
        """Of attention pooling."""
        return self.pool_heads or self.n_heads

    @property
    def pooling_d_mlp(self) -> int:
        """Of attention pooling."""
        return self.d_mlp if self.pool_d_mlp is None else self.pool_d_mlp

    @property
    def d_pooled(self) -> int:
        """Width of what the head reads, which are the logits of a model without classes."""
        return self.d_model * (2 if self.pool in ("class_mean", "distilled") else 1)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one input: (channel, height, width), or (channel, frame, height, width) for video."""
        return (self.channels, *((self.frames,) if self.frames > 1 else ()), *self.image_sides)


@dataclass(frozen=True, kw_only=True)
class TextConfig(TransformerConfig):
    """The text tower of a CLIP: tokens [batch, context] -> embedding [batch, class]."""

    CHOICES: ClassVar[Mapping[str, tuple[str, ...]]] = {**TransformerConfig.CHOICES, "pool": ("end", "first", "last")}

    vocabulary: int
    context: int  # tokens of a prompt, padding included
    n_classes: int  # of the projection, shared with the image tower; 0: none
    causal: bool = True  # a token sees those before it
    pool: str = "end"  # at the first `end` token, the first token, or the last
    end: int | None = None  # id of the end-of-text token; None: the largest id of a prompt
    head_bias: bool = False

    def _contradictions(self) -> list[tuple[bool, str, str]]:
        return [
            *super()._contradictions(),
            (self.end is not None and self.pool != "end", "end", "pool"),
            (self.rotary == "axial", "rotary", "context"),
            (self.causal and self.score_bias, "causal", "score_bias"),
        ]

    @property
    def n_prefix(self) -> int:
        return 0

    @property
    def n_tokens(self) -> int:
        return self.context


CONFLICTS = {
    "image_size": "each side must be a whole number of patches, unless cut_edge says that the rest is not seen",
    "frames": "the frames must be a whole number of tubelets",
    "d_model": "it must divide evenly among the heads, unless d_head says otherwise",
    "pool": "this pooling needs tokens that the model does not have",
    "pool_prefix": "it is about pool='mean' and 'attention'",
    "pool_heads": "it is about pool='attention', and must divide d_model",
    "pool_d_mlp": "it is about pool='attention'",
    "gated_mlp": "an attention-only model (d_mlp=0) has no MLP to gate",
    "norm_post": "a model without MLP or without norms cannot have one there",
    "norm_z": "a model without norms cannot have one there",
    "norm_patches": "a model without norms cannot have one after the patch embedding",
    "norm_embed": "a model without norms cannot have one after the embedding",
    "norm_final_eps": "it is about the final norm, which a model with norm='pre' or 'res_post' may have",
    "norm_pooled": "it moves the final norm, which a model with one pooled vector and norm='pre' or 'res_post' has",
    "parallel": "it is about a model with an MLP whose branches read the stream",
    "rotary": "the pairs of a head must fit: of patches, a whole number for each axis",
    "attention": "divided attention is of video with a class token and no registers, with norm='pre', and plain",
    "end": "it is about pool='end'",
    "causal": "the scores have one bias or the other",
}
