"""The architecture of a vision transformer, as data."""

from dataclasses import dataclass
from typing import Any, get_type_hints

from prisma.errors import PrismaError

LARGEST = 1_000_000  # no number of an architecture is larger, whatever a file says
MAY_BE_ZERO = ("d_mlp", "n_classes", "registers", "n_layers", "norm_eps")
CHOICES = {
    "norm": ("pre", "post", "none"),
    "pool": ("class", "mean", "class_mean", "attention"),
    "activation": ("gelu", "gelu_tanh", "quick_gelu", "relu", "silu"),
}


@dataclass(frozen=True, kw_only=True)
class ViTConfig:
    """Architecture and nothing else. Contradictions are refused with a sentence that names both fields."""

    image_size: int | tuple[int, int]  # pixels: a side, or (height, width)
    patch_size: int | tuple[int, int]  # pixels: a side, or (height, width)
    channels: int = 3
    frames: int = 1  # of the input; more than one makes it video, [batch, channel, frame, height, width]
    tubelet: int = 1  # frames per patch
    n_layers: int
    d_model: int
    n_heads: int
    d_mlp: int  # 0: attention-only
    n_classes: int  # 0: no head, logits are the pooled features
    activation: str = "gelu"
    gated_mlp: bool = False  # act(W_gate x) * (W_in x)
    norm: str = "pre"  # LayerNorm before each branch, after each addition, or nowhere
    norm_eps: float = 1e-6
    norm_embed: bool = False  # LayerNorm after the embedding (CLIP): site ln_pre
    norm_pooled: bool = False  # ln_final after pooling instead of before
    class_token: bool = True
    registers: int = 0
    pool: str = "class"
    positions: bool = True  # learned absolute positions
    rotary: bool = False  # axial rotary positions of patches, in every layer
    rotary_base: float = 100.0
    qkv_bias: bool = True
    qk_norm: bool = False  # LayerNorm of each head's q and k
    layer_scale: bool = False
    head_bias: bool = True

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(type(self)).items():
            self._check_type(name, kind)
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise PrismaError(f"{name} must be one of {', '.join(allowed)}; found {getattr(self, name)!r}")
        for name in ("image_size", "patch_size"):
            if isinstance(getattr(self, name), list):  # JSON knows no tuples
                object.__setattr__(self, name, tuple(getattr(self, name)))
        contradictions = (
            (any(i % p for i, p in zip(self.image_sides, self.patch_sides, strict=True)), "image_size", "patch_size"),
            (self.frames % self.tubelet, "frames", "tubelet"),
            (self.d_model % self.n_heads, "d_model", "n_heads"),
            (self.pool in ("class", "class_mean") and not self.class_token, "pool", "class_token"),
            (self.gated_mlp and not self.d_mlp, "gated_mlp", "d_mlp"),
            (self.norm_embed and self.norm == "none", "norm_embed", "norm"),
            (self.norm_pooled and self.norm != "pre", "norm_pooled", "norm"),
            (self.norm_pooled and self.pool == "class_mean", "norm_pooled", "pool"),
            (self.rotary and self.d_head % (2 * self.n_axes), "rotary", "d_model"),
        )
        for broken, one, other in contradictions:
            if broken:
                raise PrismaError(
                    f"{one}={getattr(self, one)!r} contradicts {other}={getattr(self, other)!r}: {CONFLICTS[one]}"
                )

    def _check_type(self, name: str, kind: Any) -> None:
        value, low = getattr(self, name), 0 if name in MAY_BE_ZERO else 1
        if kind in (bool, str):
            ok, wanted = type(value) is kind, "True or False" if kind is bool else "a name"
        else:
            two = kind is not int and kind is not float and isinstance(value, tuple | list) and len(value) == 2
            types = (int, float) if kind is float else (int,)
            ok = all(type(v) in types and low <= v <= LARGEST for v in (value if two else (value,)))
            wanted = f"a number from {low} to {LARGEST:,}"
        if not ok:
            raise PrismaError(f"{name} must be {wanted}; found {value!r}")

    @property
    def image_sides(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return (self.image_size, self.image_size) if isinstance(self.image_size, int) else self.image_size

    @property
    def patch_sides(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return (self.patch_size, self.patch_size) if isinstance(self.patch_size, int) else self.patch_size

    @property
    def d_head(self) -> int:
        return self.d_model // self.n_heads

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
    def input_shape(self) -> tuple[int, ...]:
        """Of one input: (channel, height, width), or (channel, frame, height, width) for video."""
        return (self.channels, *((self.frames,) if self.frames > 1 else ()), *self.image_sides)


CONFLICTS = {
    "image_size": "each side must be a whole number of patches",
    "frames": "the frames must be a whole number of tubelets",
    "d_model": "it must divide evenly among the heads",
    "pool": "this pooling reads the class token",
    "gated_mlp": "an attention-only model (d_mlp=0) has no MLP to gate",
    "norm_embed": "a model without norms cannot have one after the embedding",
    "norm_pooled": "it moves the final norm, which only norm='pre' with one pooled vector has",
    "rotary": "each head's d_model / n_heads must hold a whole number of pairs for each axis",
}
