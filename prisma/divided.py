"""Divided attention for video: over time at one position, then over space within one frame.

The class token is left out of attention over time. In attention over space it is part of every frame, and its z is the
mean of its z in all frames. Source: Bertasius et al. 2102.05095 (TimeSformer).

Shapes: B batch, T token (the class token, then the patches frame by frame), P patch, F frame, S place of a frame,
M d_model, H head, D d_head, Q query, K key.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from prisma.attention import Attention, attend
from prisma.blocks import Block
from prisma.config import TransformerConfig, ViTConfig
from prisma.layers import LayerScale, make_norm
from prisma.sites import AnyTap, no_tap


class FrameAttention(Attention):
    """Attention over patches that come frame by frame."""

    def __init__(self, config: TransformerConfig, bias: Tensor | None = None) -> None:
        super().__init__(config, bias)
        assert isinstance(config, ViTConfig)
        self.frames = config.grid[0]
        self.places = config.n_patches // self.frames


class TimeAttention(FrameAttention):
    """A patch attends to the patches at its position in all frames. The tokens are the patches alone."""

    def attend(self, q_BPHD: Tensor, k_BPHD: Tensor, v_BPHD: Tensor, tap: AnyTap) -> Tensor:
        if tap.wants("scores") or tap.wants("pattern"):
            place_P = torch.arange(self.frames * self.places, device=q_BPHD.device) % self.places
            return attend(q_BPHD, k_BPHD, v_BPHD, tap, _unseen(place_P[:, None] == place_P))
        split = (self.frames, self.places)
        q, k, v = (x.unflatten(1, split).transpose(1, 2).flatten(0, 1) for x in (q_BPHD, k_BPHD, v_BPHD))
        z_BSFHD = attend(q, k, v, no_tap).unflatten(0, (len(q_BPHD), self.places))
        return z_BSFHD.transpose(1, 2).flatten(1, 2)


class SpaceAttention(FrameAttention):
    """A patch attends to the class token and the patches of its frame; the class token attends within every frame."""

    def attend(self, q_BTHD: Tensor, k_BTHD: Tensor, v_BTHD: Tensor, tap: AnyTap) -> Tensor:
        if tap.wants("scores") or tap.wants("pattern"):
            return self._materialised(q_BTHD, k_BTHD, v_BTHD, tap)
        q, k, v = (self._in_frames(x) for x in (q_BTHD, k_BTHD, v_BTHD))
        z_BFTHD = attend(q, k, v, no_tap).unflatten(0, (len(q_BTHD), self.frames))
        return torch.cat([z_BFTHD[:, :, 0].mean(1, keepdim=True), z_BFTHD[:, :, 1:].flatten(1, 2)], dim=1)

    def _seen(self, device: torch.device) -> Tensor:
        """Boolean [query, key]: whether a query may attend to a key."""
        frame_T = F.pad(torch.arange(self.frames, device=device).repeat_interleave(self.places), (1, 0), value=-1)
        seen_QK = frame_T[:, None] == frame_T
        seen_QK[0] = seen_QK[:, 0] = True
        return seen_QK

    def _in_frames(self, x_BTHD: Tensor) -> Tensor:
        """[batch frame, 1 + place, head, d_head]: each frame with a class token of its own."""
        patches_BFSHD = x_BTHD[:, 1:].unflatten(1, (self.frames, self.places))
        class_BFSHD = x_BTHD[:, None, :1].expand(-1, self.frames, -1, -1, -1)
        return torch.cat([class_BFSHD, patches_BFSHD], dim=2).flatten(0, 1)

    def _materialised(self, q_BTHD: Tensor, k_BTHD: Tensor, v_BTHD: Tensor, tap: AnyTap) -> Tensor:
        """With the pattern: the class token's row is the mean of its rows in the frames, so z is pattern times v."""
        q_BHTD, k_BHTD, v_BHTD = (x.transpose(1, 2) for x in (q_BTHD, k_BTHD, v_BTHD))
        exact = torch.promote_types(q_BHTD.dtype, torch.float32)
        with torch.autocast(q_BHTD.device.type, enabled=False):
            scores_BHQK = (q_BHTD.to(exact) * q_BHTD.shape[-1] ** -0.5) @ k_BHTD.to(exact).mT
            scores_BHQK = tap("scores", scores_BHQK + _unseen(self._seen(q_BTHD.device)))
            rows = [self._class_row(scores_BHQK), scores_BHQK[:, :, 1:].softmax(-1)]
            pattern_BHQK = tap("pattern", torch.cat(rows, dim=2))
        return (pattern_BHQK.to(v_BHTD.dtype) @ v_BHTD).transpose(1, 2)

    def _class_row(self, scores_BHQK: Tensor) -> Tensor:
        """[batch, head, 1, key]: the class token's mean pattern over frames, each of which has its own softmax."""
        patches_BHFS = scores_BHQK[:, :, 0, 1:].unflatten(-1, (self.frames, self.places))
        itself_BHFS = scores_BHQK[:, :, :1, :1].expand(-1, -1, self.frames, -1)
        rows_BHFS = torch.cat([itself_BHFS, patches_BHFS], dim=-1).softmax(-1) / self.frames
        return torch.cat([rows_BHFS[..., 0].sum(-1, keepdim=True), rows_BHFS[..., 1:].flatten(2)], dim=-1)[:, :, None]


class DividedBlock(Block):
    """Attention over time, then the two branches of every block; `time_out` is zero for the class token."""

    attention = SpaceAttention

    def __init__(self, config: ViTConfig) -> None:
        super().__init__(config)
        self.ln_time = make_norm(config, config.d_model)
        self.time = TimeAttention(config)
        self.scale_time = LayerScale(config.d_model) if config.layer_scale else nn.Identity()

    def forward(self, x_BTM: Tensor, tap: AnyTap = no_tap, keep: int | None = None) -> Tensor:
        x = tap("resid_pre", x_BTM)
        return self.space_half(self.after("time", x + self.time_branch(x, tap), tap), tap)[:, :keep]

    def space_half(self, resid_time: Tensor, tap: AnyTap = no_tap) -> Tensor:
        """The residual stream after the block, from the stream after attention over time."""
        resid_mid = self.after("attn", resid_time + self.attn_branch(resid_time, tap), tap)
        return self.mlp_half(resid_mid, resid_time, tap)

    def time_branch(self, x_BTM: Tensor, tap: AnyTap = no_tap) -> Tensor:
        """What attention over time adds to the stream: time(ln_time(x)); zero for the class token."""
        return self._added("time", self.time(self.read("time", x_BTM, tap), tap.within("time")), tap)

    def until(self, site: str, x_BTM: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """As in every block; the stream that attention reads is that after attention over time."""
        if site not in ("resid_pre", "resid_post"):
            x_BTM = self.after("time", x_BTM + self.time_branch(x_BTM))
        return super().until(site, x_BTM)

    def resume(
        self,
        site: str,
        value: Tensor,
        x_BTM: Tensor,
        resid_mid: Tensor | None = None,
        tap: AnyTap = no_tap,
        keep: int | None = None,
    ) -> Tensor:
        """As in every block, and from `resid_time`."""
        if site == "resid_time":
            return self.space_half(tap(site, value), tap)[:, :keep]
        return super().resume(site, value, x_BTM, resid_mid, tap, keep)

    def read(self, branch: str, x_BTM: Tensor, tap: AnyTap = no_tap) -> Tensor:
        """As in every block; attention over time reads the patches alone."""
        return super().read(branch, x_BTM[:, 1:] if branch == "time" else x_BTM, tap)

    def scale(self, branch: str, out_BTM: Tensor, tap: AnyTap = no_tap) -> Tensor:
        """As in every block; attention over time adds nothing to the class token."""
        scaled_BTM = super().scale(branch, out_BTM, tap)
        return F.pad(scaled_BTM, (0, 0, 1, 0)) if branch == "time" else scaled_BTM


def _unseen(seen_QK: Tensor) -> Tensor:
    """What is added to the scores: 0 where a query may attend to a key, else -inf."""
    return torch.zeros(seen_QK.shape, device=seen_QK.device).masked_fill(~seen_QK, -torch.inf)
