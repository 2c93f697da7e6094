"""The vision transformer: three functions, `embed` -> `encode` -> `readout`, with every intermediate as a site.

Images and video alike: patches are tubelets, an image has one frame. Prefix tokens (class, registers) carry their own
position and positions belong to patches, so a model without a class token needs no branch.

Shapes: B batch, T token (prefix first, then patches in raster order), P patch, M d_model, H head, D d_head, Q query.

Sources: Dosovitskiy et al. 2010.11929 (ViT); Darcet et al. 2309.16588 (registers); Touvron et al. 2012.12877
(distillation token); Zhai et al. 2106.04560 (attention pooling); Bertasius et al. 2102.05095 (divided attention).
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from prisma.attention import attend
from prisma.blocks import Block
from prisma.bounds import expect_memory
from prisma.config import ViTConfig
from prisma.divided import DividedBlock
from prisma.errors import PrismaError
from prisma.layers import MLP, make_norm
from prisma.pixels import PixelRange, warn_of_range
from prisma.sites import AnyTap, no_tap
from prisma.tower import Tower


def expect_pixels(config: ViTConfig, ours: torch.dtype, pixels: Tensor) -> None:
    """Raise PrismaError unless images have the shape of the model's input and the type of its weights, `ours`."""
    if pixels.ndim != len(config.input_shape) + 1 or pixels.shape[1:] != config.input_shape:
        axes = "batch, channel, frame, height, width" if config.frames > 1 else "batch, channel, height, width"
        shape = ", ".join(str(n) for n in ("batch", *config.input_shape))
        raise PrismaError(f"expected images [{axes}] = [{shape}]; found {list(pixels.shape)}")
    if not pixels.is_floating_point():
        raise PrismaError(f"expected floating-point pixels; found {pixels.dtype}")
    if pixels.dtype != ours and not torch.is_autocast_enabled(pixels.device.type):
        raise PrismaError(f"expected pixels of {ours}, like the weights; found {pixels.dtype}: use images.to({ours})")


def patches_of(config: ViTConfig, pixels: Tensor) -> Tensor:
    """Images [batch, channel, (frame,) height, width] -> the pixels of every patch [batch, patch, pixel].

    Patches are in raster order; the pixels of one are in the order channel, frame, row, column.
    """
    (t, h, w), (p, q) = config.grid, config.patch_sides
    tubes = pixels.view(len(pixels), config.channels, config.frames, *config.image_sides)[..., : h * p, : w * q]
    return rearrange(tubes, "b c (t f) (h p) (w q) -> b (t h w) (c f p q)", t=t, h=h, w=w, p=p, q=q)


class Embed(nn.Module):
    """Pixels -> tokens."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.config = config
        p, q = config.patch_sides
        self.patch = nn.Linear(config.channels * config.tubelet * p * q, config.d_model)
        self.prefix = nn.Parameter(torch.empty(config.n_prefix, config.d_model))
        self.positions = nn.Parameter(torch.empty(config.n_patches, config.d_model)) if config.positions else None
        self.ln_patch = make_norm(config, config.d_model) if config.norm_patches else nn.Identity()
        self.ln_pre = make_norm(config, config.d_model) if config.norm_embed else None

    def forward(self, pixels: Tensor, tap: AnyTap = no_tap) -> Tensor:
        c = self.config
        expect_pixels(c, self.prefix.dtype, pixels)
        patches = patches_of(c, pixels)
        prefix_BTM = self.prefix.expand(len(pixels), -1, -1)
        x_BTM = tap("embed", torch.cat([prefix_BTM, self.ln_patch(self.patch(patches))], dim=1))
        if self.positions is not None:
            positions_TM = F.pad(self.positions, (0, 0, c.n_prefix, 0))
            x_BTM = x_BTM + tap("pos_embed", positions_TM.expand_as(x_BTM))
        if self.ln_pre is not None:
            x_BTM = tap("ln_pre", self.ln_pre(x_BTM))
        return x_BTM


class AttentionPool(nn.Module):
    """A learned query attends over the tokens, then an MLP branch: the multi-head attention pooling of SigLIP."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.split = (config.pooling_heads, config.d_model // config.pooling_heads)
        self.query = nn.Parameter(torch.empty(1, config.d_model))
        self.q, self.k, self.v, self.out = (nn.Linear(config.d_model, config.d_model) for _ in range(4))
        d_mlp = config.pooling_d_mlp
        self.mlp = MLP(config, d_mlp) if d_mlp else None
        self.ln = make_norm(config, config.d_model) if d_mlp and config.norm != "none" else nn.Identity()

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
        self.pool, self.norm_pooled = config.pool, config.norm_pooled
        self.pooled = slice(0 if config.pool_prefix else config.n_prefix, None)
        has_norm = config.norm_final and config.norm in ("pre", "res_post")
        self.ln_final = make_norm(config, config.d_model, config.norm_final_eps) if has_norm else None
        self.attention_pool = AttentionPool(config) if config.pool == "attention" else None
        self.head = (
            nn.Linear(config.d_pooled, config.n_classes, bias=config.head_bias) if config.n_classes else nn.Identity()
        )

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
            return self.attention_pool(x_BTM[:, self.pooled], tap.within("pool"))[:, 0]
        if self.pool == "class":
            return x_BTM[:, 0]
        if self.pool == "distilled":
            return x_BTM[:, :2].flatten(1)
        mean_BM = x_BTM[:, self.pooled].mean(1)
        return mean_BM if self.pool == "mean" else torch.cat([x_BTM[:, 0], mean_BM], dim=-1)


class ViT(Tower):
    """A vision transformer: `model(images)` is `readout(encode(embed(images)))`, and each can be called alone.

    `embed` turns images into the residual stream, `encode` runs blocks of the residual stream, `readout` turns it into
    logits. `W_Q`, `W_K`, `W_V`, `W_O` [layer, head, ...] and `W_in`, `W_out` [layer, ...] copy all weights.
    """

    pixel_range: PixelRange | None = None  # what the transform gives, where it is known: a run on other pixels warns

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.config: ViTConfig = config
        self.embed = Embed(config)
        block = DividedBlock if config.attention == "divided" else Block
        self.blocks = nn.ModuleList(block(config) for _ in range(config.n_layers))
        self.readout = Readout(config)
        self.reset_parameters()

    def forward(self, images: Tensor, tap: AnyTap = no_tap) -> Tensor:
        """Images [batch, channel, (frame,) height, width] -> logits [batch, class]."""
        expect_pixels(self.config, self.embed.prefix.dtype, images)
        warn_of_range(images, self.pixel_range)
        return self.readout(self.encode(self.embed(images, tap), tap=tap), tap)

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the weights from torch's global generator: matrices N(0, 1 / fan_in), tokens N(0, 0.02^2), biases 0."""
        draw_matrices(self)
        tokens = [self.embed.prefix, self.embed.positions]
        if self.readout.attention_pool is not None:
            tokens.append(self.readout.attention_pool.query)
        for token in tokens:
            if token is not None:
                nn.init.trunc_normal_(token, std=0.02)


def draw_matrices(module: nn.Module) -> None:
    """Draw the weights of all linear maps of a module from torch's global generator: N(0, 1 / fan_in), biases 0."""
    for part in module.modules():
        if isinstance(part, nn.Linear) and not part.weight.is_meta:  # which has no values, and takes as long to draw
            nn.init.trunc_normal_(part.weight, std=part.in_features**-0.5)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def build(config: ViTConfig) -> ViT:
    """A model with newly drawn weights. Raises PrismaError if it does not fit into memory."""
    expect_memory(4 * config.n_weights, "the weights of this model")
    try:
        return ViT(config)
    except (RuntimeError, MemoryError) as error:  # of torch's allocator
        reason = str(error).strip().split("\n")[0]
        raise PrismaError(
            f"expected a model that fits into this machine's memory; found a larger one: {reason}"
        ) from None
