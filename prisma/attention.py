"""Multi-head self-attention with every intermediate as a site, and the rotation of q and k by position.

Shapes: B batch, T token, M d_model, H head, D d_head, Q query, K key, P patch.

Sources: Vaswani et al. 1706.03762; Dehghani et al. 2302.05442 (QK-norm); Su et al. 2104.09864 and Heo et al. 2403.13298
(axial rotary positions); Shleifer et al. 2110.09456 (sub-norms).
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prisma.config import TransformerConfig, ViTConfig
from prisma.layers import make_norm
from prisma.plain import expect_plain, is_plain
from prisma.sites import AnyTap, no_tap

_SHORTENED = ("few", "placed", "mix", "attend")  # a method, and those that it is a short form of


def attend(q_BQHD: Tensor, k_BKHD: Tensor, v_BKHD: Tensor, tap: AnyTap, bias: Tensor | None = None) -> Tensor:
    """Softmax attention -> z [batch, query, head, d_head]; fused unless scores or pattern are read or edited.

    The materialised path computes scores and softmax in float32 at least; the two agree to rounding.

    Args:
        bias: added to the scores, broadcast to [batch, head, query, key]; -inf where attention is masked.
    """
    q_BHQD, k_BHKD, v_BHKD = (x.transpose(1, 2) for x in (q_BQHD, k_BKHD, v_BKHD))
    if not (tap.wants("scores") or tap.wants("pattern")):
        bias = None if bias is None else bias.to(q_BHQD.dtype)
        return F.scaled_dot_product_attention(q_BHQD, k_BHKD, v_BHKD, attn_mask=bias).transpose(1, 2)
    exact = torch.promote_types(q_BHQD.dtype, torch.float32)
    with torch.autocast(q_BHQD.device.type, enabled=False):
        scores_BHQK = (q_BHQD.to(exact) * q_BHQD.shape[-1] ** -0.5) @ k_BHKD.to(exact).transpose(-1, -2)
        scores_BHQK = scores_BHQK if bias is None else scores_BHQK + bias
        pattern_BHQK = tap("pattern", tap("scores", scores_BHQK).softmax(-1))
    return (pattern_BHQK.to(v_BHKD.dtype) @ v_BHKD).transpose(1, 2)


def real_device() -> torch.device:
    """The device on which constants are computed: the default one, or the CPU for a model on `meta`."""
    device = torch.get_default_device()
    return torch.device("cpu") if device.type == "meta" else device


def axial_rotation(config: ViTConfig) -> Tensor:
    """Cosines and sines [2, patch, 1, d_head] of axial rotary positions; each axis has a share of a head's pairs.

    Coordinates are patch centres scaled to [-1, 1] and angles are 2 pi coordinate / base^(2i / d_axis), as in DINOv3.
    """
    d_axis, device, exact = config.d_head // config.n_axes, real_device(), torch.float64
    inverse_period = config.rotary_base ** -(torch.arange(0, d_axis, 2, dtype=exact, device=device) / d_axis)
    counts = config.grid[-config.n_axes :]
    sides = [torch.linspace(-1 + 1 / n, 1 - 1 / n, n, dtype=exact, device=device) for n in counts]
    angles_PR = (2 * torch.pi * torch.cartesian_prod(*sides)[:, :, None] * inverse_period).flatten(1)
    angles_P1D = angles_PR.repeat(1, 2)[:, None]
    return torch.stack([angles_P1D.cos(), angles_P1D.sin()]).to(torch.get_default_dtype())


def rotate(x_BTHD: Tensor, rotation_2PHD: Tensor) -> Tensor:
    """x cos + (-b, a) sin, where a and b are the halves of a patch token's vector; prefix tokens stay.

    Where the halves' angles agree, pair (i, i + d_head / 2) turns by its angle.
    """
    n_prefix = x_BTHD.shape[1] - rotation_2PHD.shape[1]
    cos_PHD, sin_PHD = rotation_2PHD.to(x_BTHD.dtype)
    prefix, patches = x_BTHD[:, :n_prefix], x_BTHD[:, n_prefix:]
    a, b = patches.chunk(2, dim=-1)
    return torch.cat([prefix, patches * cos_PHD + torch.cat([-b, a], dim=-1) * sin_PHD], dim=1)


class Attention(nn.Module):
    """Multi-head self-attention. q, k and v are one matrix, of which `W_Q`, `W_K`, `W_V` are views by head."""

    ALWAYS_CALLED: ClassVar = ("attend", "few", "mix", "placed", "write")  # by every path: a subclass may replace them

    def __init__(self, config: TransformerConfig, bias: Tensor | None = None) -> None:
        """`bias` [query, key] is fixed and added to the scores: a causal mask."""
        super().__init__()
        self.split = (3, config.n_heads, config.d_head)
        width = config.n_heads * config.d_head
        self.qkv = nn.Linear(config.d_model, 3 * width, bias=config.qkv_bias)
        self.out = nn.Linear(width, config.d_model)
        self.q_norm = make_norm(config, config.d_head) if config.qk_norm else nn.Identity()
        self.k_norm = make_norm(config, config.d_head) if config.qk_norm else nn.Identity()
        self.ln = make_norm(config, width) if config.norm_z else None
        self.rotation: Tensor | None
        self._make_rotation(config)
        self.bias: Tensor | None
        if config.score_bias:
            self.bias = nn.Parameter(torch.zeros(config.n_heads, config.n_tokens, config.n_tokens))
        else:
            self.register_buffer("bias", bias, persistent=False)

    def _make_rotation(self, config: TransformerConfig) -> None:
        """Cosines and sines [2, patch, 1 or head, d_head]: computed if axial, else a table among the weights."""
        rotation, persistent = None, config.rotary in ("table", "head_table")
        if persistent:
            heads = config.n_heads if config.rotary == "head_table" else 1
            rotation = torch.ones(2, config.n_tokens - config.n_prefix, heads, config.d_head)
        elif config.rotary == "axial":
            assert isinstance(config, ViTConfig)
            rotation = axial_rotation(config)
        self.register_buffer("rotation", rotation, persistent=persistent)

    def forward(self, x_BTM: Tensor, tap: AnyTap, keep: int | None = None) -> Tensor:
        """The sum of what all heads write [batch, token, d_model]; with `keep`, for the first `keep` tokens only."""
        return self.write(self.heads(x_BTM, tap, keep), tap)

    def heads(self, x_BTM: Tensor, tap: AnyTap = no_tap, keep: int | None = None) -> Tensor:
        """z of every head [batch, token, head, d_head]; with `keep`, for the first `keep` tokens only."""
        if keep is not None and self.is_bilinear and not any(map(tap.wants, ("q", "k", "v", "scores", "pattern"))):
            return tap("z", self.few(x_BTM[:, :keep], x_BTM))
        return tap("z", self.mix(*self.project(x_BTM, keep), tap))

    def write(self, z_BTHD: Tensor, tap: AnyTap = no_tap) -> Tensor:
        """z of every head -> the sum of what they write [batch, token, d_model], the output bias included."""
        if self.ln is not None:
            z_BTHD = tap("ln.normalized", self.ln(z_BTHD.flatten(2)).unflatten(-1, self.split[1:]))
        if not tap.wants("result"):
            return self.out(z_BTHD.flatten(2))
        return tap("result", self.results(z_BTHD)).sum(2) + self.out.bias

    @property
    def is_bilinear(self) -> bool:
        """Whether scores are x W_Q W_K x, and biases that softmax ignores: nothing else comes between."""
        parts = (self.qkv, self.q_norm, self.k_norm)
        direct = isinstance(self.q_norm, nn.Identity) and isinstance(self.k_norm, nn.Identity)
        order = type(self).__mro__
        few, *others = (next(i for i, kind in enumerate(order) if name in vars(kind)) for name in _SHORTENED)
        direct &= few <= min(others)  # no subclass has another way to compute what `few` shortens
        return direct and self.rotation is None and self.bias is None and all(map(is_plain, parts))

    @property
    def W_Q(self) -> Tensor:
        """[head, d_model, d_head], a view."""
        return self._sides("W_Q")[0].mT

    @property
    def W_K(self) -> Tensor:
        """[head, d_model, d_head], a view."""
        return self._sides("W_K")[1].mT

    @property
    def W_V(self) -> Tensor:
        """[head, d_model, d_head], a view."""
        return self._sides("W_V")[2].mT

    @property
    def W_O(self) -> Tensor:
        """[head, d_head, d_model], a view."""
        expect_plain(self, ["out"], "W_O")
        return self.out.weight.unflatten(1, self.split[1:]).permute(1, 2, 0)

    def _sides(self, why: str) -> Tensor:
        expect_plain(self, ["qkv"], why)
        return self.qkv.weight.unflatten(0, self.split)

    def project(self, x_BTM: Tensor, keep: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """q, k and v [batch, token, head, d_head], as the dot product sees them; q of the first `keep` tokens only."""
        if keep is None:
            return self.placed(*self.qkv(x_BTM).unflatten(-1, self.split).unbind(2))
        if not is_plain(self.qkv):
            q, k, v = self.qkv(x_BTM).unflatten(-1, self.split).unbind(2)
            return self.placed(q[:, :keep], k, v)
        n = self.split[1] * self.split[2]
        sides = [(x_BTM[:, :keep], slice(n)), (x_BTM, slice(n, None))]
        bias = self.qkv.bias
        q, kv = (F.linear(x, self.qkv.weight[rows], None if bias is None else bias[rows]) for x, rows in sides)
        k, v = kv.unflatten(-1, (2, *self.split[1:])).unbind(2)
        return self.placed(q.unflatten(-1, self.split[1:]), k, v)

    def project_each(self, x_BTCHM: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q, k and v when each of them, in each head, has its own input [batch, token, 3, head, d_model]."""
        return self.placed(*self.linear_each(x_BTCHM).unbind(2))

    def linear_each(self, x_BTCHM: Tensor) -> Tensor:
        """As `project_each`, before QK-norm and rotation [batch, token, 3, head, d_head]."""
        if not is_plain(self.qkv):
            each = [self.qkv(x_BTCHM[:, :, c, h]).unflatten(-1, self.split)[:, :, c, h] for c, h in self._receivers()]
            return torch.stack(each, dim=2).unflatten(2, self.split[:2])
        qkv_BTCHD = torch.einsum("btchm,chdm->btchd", x_BTCHM, self.qkv.weight.unflatten(0, self.split))
        return qkv_BTCHD if self.qkv.bias is None else qkv_BTCHD + self.qkv.bias.unflatten(0, self.split)

    def _receivers(self) -> list[tuple[int, int]]:
        return [(side, head) for side in range(3) for head in range(self.split[1])]

    def few(self, x_BQM: Tensor, x_BTM: Tensor) -> Tensor:
        """z of a few queries, without computing k and v: scores are (q W_K) x, and z is W_V (pattern x).

        Only where `is_bilinear`. A bias of k adds the same number to the scores of all keys, which softmax ignores.
        """
        w_q, w_k, w_v = self.qkv.weight.unflatten(0, self.split)
        b_q, _, b_v = (0, 0, 0) if self.qkv.bias is None else self.qkv.bias.unflatten(0, self.split)
        q_BQHD = torch.einsum("bqm,hdm->bqhd", x_BQM, w_q) + b_q
        scored_BRM = torch.einsum("bqhd,hdm->bqhm", q_BQHD * self.split[2] ** -0.5, w_k).flatten(1, 2)
        mixed_BRM = (scored_BRM @ x_BTM.mT).softmax(-1) @ x_BTM
        return torch.einsum("bqhm,hdm->bqhd", mixed_BRM.unflatten(1, (-1, self.split[1])), w_v) + b_v

    def mix(self, q_BTHD: Tensor, k_BTHD: Tensor, v_BTHD: Tensor, tap: AnyTap = no_tap) -> Tensor:
        """z: for each query of each head, the mean of the values weighted by its attention pattern."""
        return self.attend(tap("q", q_BTHD), tap("k", k_BTHD), tap("v", v_BTHD), tap)

    def attend(self, q_BTHD: Tensor, k_BTHD: Tensor, v_BTHD: Tensor, tap: AnyTap) -> Tensor:
        return attend(q_BTHD, k_BTHD, v_BTHD, tap, None if self.bias is None else self.bias[..., : q_BTHD.shape[1], :])

    def results(self, z_BTHD: Tensor) -> Tensor:
        """What each head writes [batch, token, head, d_model]; attention writes their sum plus `out.bias`.

        Raises:
            PrismaError: `out` carries something that its weights do not show.
        """
        expect_plain(self, ["out"], "what single heads write (attn.result)")
        return torch.einsum("bthd,mhd->bthm", z_BTHD, self.out.weight.unflatten(1, self.split[1:]))

    def placed(self, q_BTHD: Tensor, k_BTHD: Tensor, v_BTHD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q, k and v after QK-norm and rotation. q may hold the first tokens only; prefix tokens are not rotated."""
        q_BTHD, k_BTHD = self.q_norm(q_BTHD), self.k_norm(k_BTHD)
        if self.rotation is not None:
            n_skipped = k_BTHD.shape[1] - q_BTHD.shape[1]
            q_BTHD = rotate(q_BTHD, self.rotation[:, : max(self.rotation.shape[1] - n_skipped, 0)])
            k_BTHD = rotate(k_BTHD, self.rotation)
        return q_BTHD, k_BTHD, v_BTHD
