"""The canonical vision transformer: three functions, `embed` -> `encode` -> `readout`, that offer every intermediate.

Images and video alike: patches are tubelets, an image has one frame. Prefix tokens (class, registers) carry their own
position and positions belong to patches, so a model without a class token needs no branch.

Shapes: B batch, T token (prefix first, then patches in raster order), P patch, M d_model, N d_mlp, H head, D d_head,
Q query, K key, R rotated pair.

Sources: Dosovitskiy et al. 2010.11929 (ViT); Darcet et al. 2309.16588 (registers); Touvron et al. 2103.17239 (layer
scale); Dehghani et al. 2302.05442 (QK-norm); Su et al. 2104.09864 and Heo et al. 2403.13298 (axial rotary positions);
Shazeer 2002.05202 (gated MLP); Zhai et al. 2106.04560 (attention pooling).
"""

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from prisma.config import ViTConfig
from prisma.errors import PrismaError
from prisma.sites import AnyTap, no_tap

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "relu": F.relu,
    "silu": F.silu,
}


def attend(q_BQHD: Tensor, k_BKHD: Tensor, v_BKHD: Tensor, tap: AnyTap) -> Tensor:
    """Softmax attention -> z [batch, query, head, d_head]; fused unless this layer's scores or pattern is wanted.

    The materialised path computes scores and softmax in float32 at least; the two agree to rounding.
    """
    q_BHQD, k_BHKD, v_BHKD = (x.transpose(1, 2) for x in (q_BQHD, k_BKHD, v_BKHD))
    if not (tap.wants("scores") or tap.wants("pattern")):
        return F.scaled_dot_product_attention(q_BHQD, k_BHKD, v_BHKD).transpose(1, 2)
    exact = torch.promote_types(q_BHQD.dtype, torch.float32)
    with torch.autocast(q_BHQD.device.type, enabled=False):
        scores_BHQK = (q_BHQD.to(exact) * q_BHQD.shape[-1] ** -0.5) @ k_BHKD.to(exact).transpose(-1, -2)
        pattern_BHQK = tap("pattern", tap("scores", scores_BHQK).softmax(-1))
    return (pattern_BHQK.to(v_BHKD.dtype) @ v_BHKD).transpose(1, 2)


def rotary_table(config: ViTConfig) -> Tensor:
    """Cosines and sines [2, patch, pair] of axial rotary positions; each axis owns an equal share of a head's pairs.

    Coordinates are patch centres scaled to [-1, 1] and angles are 2 pi coordinate / base^(2i / d_axis), as in DINOv3.
    """
    d_axis = config.d_head // config.n_axes
    inverse_period = config.rotary_base ** -(torch.arange(0, d_axis, 2, dtype=torch.float64) / d_axis)
    sides = [torch.linspace(-1 + 1 / n, 1 - 1 / n, n, dtype=torch.float64) for n in config.grid[-config.n_axes :]]
    angles_PR = (2 * torch.pi * torch.cartesian_prod(*sides)[:, :, None] * inverse_period).flatten(1)
    return torch.stack([angles_PR.cos(), angles_PR.sin()]).to(torch.get_default_dtype())


def rotate(x_BTHD: Tensor, table_2PR: Tensor) -> Tensor:
    """Rotate pair (i, i + d_head / 2) of every patch token's vector by its angle; prefix tokens stay."""
    n_prefix = x_BTHD.shape[1] - table_2PR.shape[1]
    cos_P1R, sin_P1R = table_2PR[:, :, None].to(x_BTHD.dtype)
    prefix, patches = x_BTHD[:, :n_prefix], x_BTHD[:, n_prefix:]
    a, b = patches.chunk(2, dim=-1)
    return torch.cat([prefix, torch.cat([a * cos_P1R - b * sin_P1R, b * cos_P1R + a * sin_P1R], dim=-1)], dim=1)


class LayerScale(nn.Module):
    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((d_model,), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


class Embed(nn.Module):
    """Pixels -> tokens."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.config = config
        p, q = config.patch_sides
        self.patch = nn.Linear(config.channels * config.tubelet * p * q, config.d_model)
        self.prefix = nn.Parameter(torch.empty(config.n_prefix, config.d_model))
        self.positions = nn.Parameter(torch.empty(config.n_patches, config.d_model)) if config.positions else None
        self.ln_pre = nn.LayerNorm(config.d_model, config.norm_eps) if config.norm_embed else None

    def forward(self, pixels: Tensor, tap: AnyTap = no_tap) -> Tensor:
        c = self.config
        if pixels.ndim != len(c.input_shape) + 1 or pixels.shape[1:] != c.input_shape:
            axes = "batch, channel, frame, height, width" if c.frames > 1 else "batch, channel, height, width"
            shape = ", ".join(str(n) for n in ("batch", *c.input_shape))
            raise PrismaError(f"this model takes [{axes}] = [{shape}]; found {list(pixels.shape)}")
        if not pixels.is_floating_point():
            raise PrismaError(f"this model takes floating-point pixels; found {pixels.dtype}")
        (t, h, w), (p, q) = c.grid, c.patch_sides
        tubes = pixels.view(len(pixels), c.channels, c.frames, *c.image_sides)
        patches = rearrange(tubes, "b c (t f) (h p) (w q) -> b (t h w) (c f p q)", t=t, h=h, w=w, p=p, q=q)
        prefix_BTM = self.prefix.expand(len(pixels), -1, -1)
        x_BTM = tap("embed", torch.cat([prefix_BTM, self.patch(patches)], dim=1))
        if self.positions is not None:
            positions_TM = F.pad(self.positions, (0, 0, c.n_prefix, 0))
            x_BTM = x_BTM + tap("pos_embed", positions_TM.expand_as(x_BTM))
        if self.ln_pre is not None:
            x_BTM = tap("ln_pre", self.ln_pre(x_BTM))
        return x_BTM


class Attention(nn.Module):
    """Multi-head self-attention. q, k and v are one matrix; `prisma.circuits` has the per-head views."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.split = (3, config.n_heads, config.d_head)
        self.qkv = nn.Linear(config.d_model, 3 * config.d_model, bias=config.qkv_bias)
        self.out = nn.Linear(config.d_model, config.d_model)
        self.q_norm = nn.LayerNorm(config.d_head, config.norm_eps) if config.qk_norm else nn.Identity()
        self.k_norm = nn.LayerNorm(config.d_head, config.norm_eps) if config.qk_norm else nn.Identity()
        self.rotation: Tensor | None
        self.register_buffer("rotation", rotary_table(config) if config.rotary else None, persistent=False)

    def forward(self, x_BTM: Tensor, tap: AnyTap) -> Tensor:
        q_BTHD, k_BTHD, v_BTHD = self.qkv(x_BTM).unflatten(-1, self.split).unbind(2)
        q_BTHD, k_BTHD = self.q_norm(q_BTHD), self.k_norm(k_BTHD)
        if self.rotation is not None:
            q_BTHD, k_BTHD = rotate(q_BTHD, self.rotation), rotate(k_BTHD, self.rotation)
        z_BTHD = tap("z", attend(tap("q", q_BTHD), tap("k", k_BTHD), tap("v", v_BTHD), tap))
        if not tap.wants("result"):
            return self.out(z_BTHD.flatten(2))
        out_MHD = self.out.weight.unflatten(1, self.split[1:])
        result_BTHM = torch.einsum("bthd,mhd->bthm", z_BTHD, out_MHD)
        return tap("result", result_BTHM).sum(2) + self.out.bias


class MLP(nn.Module):
    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.pre = nn.Linear(config.d_model, config.d_mlp)
        self.pre_linear = nn.Linear(config.d_model, config.d_mlp) if config.gated_mlp else None
        self.activation = config.activation
        self.out = nn.Linear(config.d_mlp, config.d_model)

    def forward(self, x_BTM: Tensor, tap: AnyTap) -> Tensor:
        post_BTN = ACTIVATIONS[self.activation](tap("pre", self.pre(x_BTM)))
        if self.pre_linear is not None:
            post_BTN = post_BTN * tap("pre_linear", self.pre_linear(x_BTM))
        return self.out(tap("post", post_BTN))


class Block(nn.Module):
    """Two branches that read the residual stream and add to it; `attn_out` and `mlp_out` are what they add."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.norm = config.norm
        self.attn = Attention(config)
        self.mlp = MLP(config) if config.d_mlp else None
        has = {"ln1": config.norm != "none", "ln2": config.norm != "none" and config.d_mlp > 0}
        for name, there in has.items():
            self.add_module(name, nn.LayerNorm(config.d_model, config.norm_eps) if there else nn.Identity())
        self.scale1 = LayerScale(config.d_model) if config.layer_scale else nn.Identity()
        self.scale2 = LayerScale(config.d_model) if config.layer_scale and config.d_mlp else nn.Identity()

    def forward(self, x_BTM: Tensor, tap: AnyTap) -> Tensor:
        x = tap("resid_pre", x_BTM)
        attn_out = self.attn(self._norm("ln1", "pre", x, tap), tap.within("attn"))
        x = self._norm("ln1", "post", x + tap("attn_out", self.scale1(attn_out)), tap)
        x = tap("resid_mid", x)
        if self.mlp is not None:
            mlp_out = self.mlp(self._norm("ln2", "pre", x, tap), tap.within("mlp"))
            x = self._norm("ln2", "post", x + tap("mlp_out", self.scale2(mlp_out)), tap)
        return tap("resid_post", x)

    def _norm(self, name: str, place: str, x: Tensor, tap: AnyTap) -> Tensor:
        """The norm, if this is where the model has it."""
        return tap(f"{name}.normalized", self.get_submodule(name)(x)) if self.norm == place else x


class AttentionPool(nn.Module):
    """A learned query attends over the tokens, then an MLP branch: the multi-head attention pooling of SigLIP."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.split = (config.n_heads, config.d_head)
        self.query = nn.Parameter(torch.empty(1, config.d_model))
        self.q, self.k, self.v, self.out = (nn.Linear(config.d_model, config.d_model) for _ in range(4))
        self.mlp = MLP(config) if config.d_mlp else None
        normed = config.d_mlp and config.norm != "none"
        self.ln = nn.LayerNorm(config.d_model, config.norm_eps) if normed else nn.Identity()

    def forward(self, x_BTM: Tensor, tap: AnyTap) -> Tensor:
        q_BQHD = self.q(self.query).unflatten(-1, self.split).expand(len(x_BTM), -1, -1, -1)
        k_BTHD, v_BTHD = (f(x_BTM).unflatten(-1, self.split) for f in (self.k, self.v))
        z_BQHD = tap("z", attend(tap("q", q_BQHD), tap("k", k_BTHD), tap("v", v_BTHD), tap))
        pooled_BQM = self.out(z_BQHD.flatten(2))
        return pooled_BQM if self.mlp is None else pooled_BQM + self.mlp(self.ln(pooled_BQM), tap.within("mlp"))


class Readout(nn.Module):
    """Tokens -> logits: final norm, pooling, linear head."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.pool, self.class_token, self.n_prefix = config.pool, config.class_token, config.n_prefix
        self.norm_pooled = config.norm_pooled
        self.ln_final = nn.LayerNorm(config.d_model, config.norm_eps) if config.norm == "pre" else None
        self.attention_pool = AttentionPool(config) if config.pool == "attention" else None
        d_pooled = config.d_model * (2 if config.pool == "class_mean" else 1)
        self.head = nn.Linear(d_pooled, config.n_classes, bias=config.head_bias) if config.n_classes else nn.Identity()

    def forward(self, x_BTM: Tensor, tap: AnyTap = no_tap) -> Tensor:
        """Residual stream [batch, token, d_model] -> logits [batch, class]."""
        if self.norm_pooled:
            pooled_BM = self._norm(self._pool(x_BTM, tap)[:, None], tap)[:, 0]
        else:
            pooled_BM = self._pool(self._norm(x_BTM, tap), tap)
        return tap("logits", self.head(tap("pooled", pooled_BM)))

    def _norm(self, x: Tensor, tap: AnyTap) -> Tensor:
        return x if self.ln_final is None else tap("ln_final", self.ln_final(x))

    def _pool(self, x_BTM: Tensor, tap: AnyTap) -> Tensor:
        if self.attention_pool is not None:
            return self.attention_pool(x_BTM, tap.within("pool"))[:, 0]
        if self.pool == "class":
            return x_BTM[:, 0]
        mean_BM = x_BTM[:, self.n_prefix :].mean(1)
        return mean_BM if self.pool == "mean" else torch.cat([x_BTM[:, 0], mean_BM], dim=-1)


class ViT(nn.Module):
    """A vision transformer: `model(images)` is `readout(encode(embed(images)))`, and each can be called."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = Embed(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.readout = Readout(config)
        self.reset_parameters()

    def forward(self, images: Tensor, tap: AnyTap = no_tap) -> Tensor:
        """Images [batch, channel, (frame,) height, width] -> logits [batch, class]."""
        return self.readout(self.encode(self.embed(images, tap), tap=tap), tap)

    def encode(self, x_BTM: Tensor, start: int = 0, stop: int | None = None, tap: AnyTap = no_tap) -> Tensor:
        """Residual stream [batch, token, d_model] before block `start` -> before block `stop` (default: the end)."""
        for layer in range(self.config.n_layers)[start:stop]:
            x_BTM = self.blocks[layer](x_BTM, tap.within(f"blocks.{layer}"))
        return x_BTM

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the weights from torch's global generator: matrices N(0, 1 / fan_in), tokens N(0, 0.02^2), biases 0."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=module.in_features**-0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        tokens = [self.embed.prefix, self.embed.positions]
        if self.readout.attention_pool is not None:
            tokens.append(self.readout.attention_pool.query)
        for token in tokens:
            if token is not None:
                nn.init.trunc_normal_(token, std=0.02)


def build(config: ViTConfig) -> ViT:
    """A model with weights drawn anew. Raises PrismaError if this machine cannot hold it."""
    try:
        return ViT(config)
    except (RuntimeError, MemoryError) as error:  # of torch's allocator
        reason = str(error).strip().split("\n")[0]
        raise PrismaError(f"expected a model that this machine can hold, found one that it cannot: {reason}") from None
