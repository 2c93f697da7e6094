"""The architecture of a vision transformer, as data."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import ClassVar

from prisma.bounds import NUMBERS, expect_within
from prisma.errors import PrismaError, quoted
from prisma.fields import check_types, expect_choices


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """The architecture of the blocks, which the image, video and text towers share."""

    CHOICES: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "norm": ("pre", "post", "res_post", "none"),
        "norm_kind": ("layer", "rms"),
        "activation": ("gelu", "gelu_tanh", "quick_gelu", "relu", "silu"),
        "rotary": ("none", "axial", "table", "head_table"),
    }

    n_layers: int
    d_model: int
    n_heads: int
    d_head: int = 0  # 0: replaced by d_model / n_heads
    d_mlp: int  # 0: attention-only
    activation: str = "gelu"
    gated_mlp: bool = False  # the hidden layer is act(W_gate x) * (W_in x)
    norm: str = (
        "pre"  # before each branch (pre), after each addition (post), on each branch's output (res_post), or none
    )
    norm_kind: str = "layer"  # every norm is a LayerNorm or an RMSNorm
    norm_eps: float = 1e-6
    norm_z: bool = False  # a norm over the outputs z of all heads together (NormFormer's sub-norm)
    norm_post: bool = False  # a norm on the MLP's activations (sub-norm)
    parallel: bool = False  # the MLP and the attention both read resid_pre
    qkv_bias: bool = True
    qk_norm: bool = False  # a norm on each head's q and k
    layer_scale: bool = False
    rotary: str = "none"  # rotary positions: axial angles; or a table of angles, shared or one per head
    rotary_base: float = 100.0  # base of the axial angles' frequencies
    score_bias: bool = False  # a learned bias [head, query, key] is added to the scores (relative positions)

    def __post_init__(self) -> None:
        expect_choices(self, self.CHOICES)
        check_types(self)
        for field in fields(self):
            if field.name in NUMBERS:
                expect_within(field.name, getattr(self, field.name))
        if not self.d_head and self.d_model % self.n_heads == 0:
            object.__setattr__(self, "d_head", self.d_model // self.n_heads)
        for broken, one, other in self._contradictions():
            if broken:
                raise PrismaError(
                    f"{one}={quoted(getattr(self, one))} contradicts {other}={quoted(getattr(self, other))}: "
                    f"{CONFLICTS[one]}"
                )
        expect_within("tokens", self.n_tokens, "the number of tokens")
        expect_within("weights", self.n_weights, "the number of weights")

    def _contradictions(self) -> list[tuple[bool, str, str]]:
        """Triples (whether two fields contradict each other, the one, the other)."""
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
        """The number of tokens before the patches."""
        raise NotImplementedError

    @property
    def n_tokens(self) -> int:
        raise NotImplementedError

    @property
    def n_constants(self) -> int:
        """How many numbers the tables have that are computed and not learned."""
        return 2 * (self.n_tokens - self.n_prefix) * self.d_head * self.n_layers if self.rotary == "axial" else 0

    @property
    def n_weights(self) -> int:
        """How many numbers the matrices and tables of all blocks have; biases and norms add little."""
        width = self.n_heads * self.d_head
        bias = self.n_heads * self.n_tokens**2 if self.score_bias else 0
        angles = 0 if self.rotary == "none" else 2 * (self.n_tokens - self.n_prefix) * self.d_head
        tables = bias + angles * (self.n_heads if self.rotary == "head_table" else 1)
        return self.n_layers * ((4 * width + (2 + self.gated_mlp) * self.d_mlp) * self.d_model + tables)


@dataclass(frozen=True, kw_only=True)
class ViTConfig(TransformerConfig):
    """The architecture of a vision transformer, and nothing else.

    Raises:
        PrismaError: a field has a wrong type or value, or two fields contradict each other; the sentence names them.
    """

    CHOICES: ClassVar[Mapping[str, tuple[str, ...]]] = {
        **TransformerConfig.CHOICES,
        "pool": ("class", "mean", "class_mean", "distilled", "attention"),
        "attention": ("joint", "divided"),
    }

    image_size: int | tuple[int, int]  # pixels: a side, or (height, width)
    patch_size: int | tuple[int, int]  # pixels: a side, or (height, width)
    cut_edge: bool = False  # ignore the pixels beyond the last whole patch; otherwise sides must be whole patches
    channels: int = 3
    frames: int = 1  # frames per input; more than one means video, [batch, channel, frame, height, width]
    tubelet: int = 1  # frames per patch
    attention: str = "joint"  # joint: over all tokens; divided: over time, then over space (TimeSformer)
    n_classes: int  # 0: no head, the logits are the pooled features
    norm_patches: bool = False  # a norm on the patch embeddings, before positions are added (AIMv2)
    norm_embed: bool = False  # a norm on the embedding, before the first block (CLIP); site ln_pre
    norm_final: bool = True  # a norm after the last block (ln_final), if norm is "pre" or "res_post"
    norm_final_eps: float | None = None  # epsilon of ln_final; None: norm_eps
    norm_pooled: bool = False  # ln_final after pooling instead of before
    class_token: bool = True
    registers: int = 0
    pool: str = "class"  # distilled: class token and distillation token, which is the first register (DeiT)
    pool_prefix: bool = False  # pool="mean" and "attention" include the prefix tokens
    pool_heads: int | None = None  # heads of attention pooling; None: n_heads
    pool_d_mlp: int | None = None  # MLP width of attention pooling; None: d_mlp, 0: no MLP
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
        """The number of axes that patches lie along: 2 for images, 3 for video."""
        return 3 if self.frames > 1 else 2

    @property
    def n_patches(self) -> int:
        t, h, w = self.grid
        return t * h * w

    @property
    def n_prefix(self) -> int:
        """The number of tokens before the patches: the class token, then the registers."""
        return int(self.class_token) + self.registers

    @property
    def n_tokens(self) -> int:
        return self.n_prefix + self.n_patches

    @property
    def n_weights(self) -> int:
        """How many numbers the matrices and tables have; biases and norms add little."""
        p, q = self.patch_sides
        width = self.n_heads * self.d_head
        tokens = self.n_prefix + self.n_patches * self.positions + self.channels * self.tubelet * p * q
        over_time = 4 * width * self.n_layers if self.attention == "divided" else 0
        pool = 4 * self.d_model + 1 + (2 + self.gated_mlp) * self.pooling_d_mlp if self.pool == "attention" else 0
        return super().n_weights + (tokens + over_time + pool) * self.d_model + self.d_pooled * self.n_classes

    @property
    def pooling_heads(self) -> int:
        """The number of heads of attention pooling."""
        return self.pool_heads or self.n_heads

    @property
    def pooling_d_mlp(self) -> int:
        """The width of the MLP of attention pooling."""
        return self.d_mlp if self.pool_d_mlp is None else self.pool_d_mlp

    @property
    def d_pooled(self) -> int:
        """The width of the pooled features, which the head reads; without classes they are the logits."""
        return self.d_model * (2 if self.pool in ("class_mean", "distilled") else 1)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one input: (channel, height, width), or (channel, frame, height, width) for video."""
        return (self.channels, *((self.frames,) if self.frames > 1 else ()), *self.image_sides)


@dataclass(frozen=True, kw_only=True)
class TextConfig(TransformerConfig):
    """The architecture of the text tower of a CLIP: tokens [batch, context] -> embedding [batch, class]."""

    CHOICES: ClassVar[Mapping[str, tuple[str, ...]]] = {**TransformerConfig.CHOICES, "pool": ("end", "first", "last")}

    vocabulary: int
    context: int  # tokens per prompt, padding included
    n_classes: int  # width of the embedding that images and texts share; 0: no projection
    causal: bool = True  # a token attends to itself and the tokens before it
    pool: str = "end"  # which token is read: the first `end` token, the first token, or the last token
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

    @property
    def n_constants(self) -> int:
        return self.context**2 if self.causal else 0  # the mask

    @property
    def n_weights(self) -> int:
        """How many numbers the matrices and tables have; biases and norms add little."""
        return super().n_weights + (self.vocabulary + self.context + self.n_classes) * self.d_model


CONFLICTS = {
    "image_size": "each side must be a whole number of patches, unless cut_edge ignores the rest",
    "frames": "the frames must be a whole number of tubelets",
    "d_model": "the width must divide evenly among the heads, unless d_head is given",
    "pool": "this pooling needs tokens that the model does not have",
    "pool_prefix": "only pool='mean' and 'attention' may include the prefix tokens",
    "pool_heads": "only pool='attention' has heads, and their number must divide d_model",
    "pool_d_mlp": "only pool='attention' has an MLP",
    "gated_mlp": "an attention-only model (d_mlp=0) has no MLP to gate",
    "norm_post": "a model without an MLP or without norms has no norm in its MLP",
    "norm_z": "a model without norms has no norm on z",
    "norm_patches": "a model without norms has no norm on its patch embeddings",
    "norm_embed": "a model without norms has no norm on its embedding",
    "norm_final_eps": "only a model with a final norm, and norm='pre' or 'res_post', has an epsilon for it",
    "norm_pooled": "only a final norm, with one pooled vector and norm='pre' or 'res_post', can be moved after pooling",
    "parallel": "parallel branches need an MLP, and a norm that is not after the addition",
    "rotary": "the pairs of a head's dimensions must be a whole number for each axis, and text has no axial positions",
    "attention": "divided attention needs video, a class token, no registers and norm='pre', and does not combine with "
    "parallel, rotary, score_bias and norm_z",
    "end": "only pool='end' reads the end-of-text token",
    "causal": "the scores have either the causal mask or a learned bias",
}
