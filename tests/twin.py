"""The slow twin: a vision transformer written from the papers with loops over images, tokens and heads.

It shares nothing with `prisma.vit` but the names of the parameters and the configuration, and never calls it.
"""

import math
from collections.abc import Mapping
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

ACTIVATIONS = {
    "gelu": lambda x: x * 0.5 * (1 + torch.erf(x / math.sqrt(2))),
    "gelu_tanh": lambda x: 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "quick_gelu": lambda x: x / (1 + torch.exp(-1.702 * x)),
    "relu": lambda x: torch.where(x > 0, x, torch.zeros_like(x)),
    "silu": lambda x: x / (1 + torch.exp(-x)),
}


class Twin:
    """`Twin(config, state_dict)(images)`: logits [batch, class]."""

    causal = False

    def __init__(self, config: Any, weights: Mapping[str, Tensor]) -> None:
        self.c, self.w = config, weights

    def __call__(self, images: Tensor) -> Tensor:
        return torch.stack([self.logits(image) for image in images])

    def logits(self, image: Tensor) -> Tensor:
        x = self.embed(image)
        for layer in range(self.c.n_layers):
            x = self.block(x, f"blocks.{layer}")
        return self.readout(x)

    def embed(self, image: Tensor) -> Tensor:
        """[token, d_model], by a 3-d convolution over the video (an image is a video of one frame)."""
        c = self.c
        video = image if c.frames > 1 else image[:, None]
        kernel = self.w["embed.patch.weight"].view(c.d_model, c.channels, c.tubelet, *c.patch_sides)
        out = F.conv3d(video[None], kernel, self.w["embed.patch.bias"], stride=(c.tubelet, *c.patch_sides))[0]
        patches = [out[:, t, i, j] for t, i, j in product(*map(range, out.shape[1:]))]
        if c.norm_patches:
            patches = [self.norm(p, "embed.ln_patch") for p in patches]
        if c.positions:
            patches = [p + self.w["embed.positions"][i] for i, p in enumerate(patches)]
        x = torch.stack([*self.w["embed.prefix"], *patches])
        return self.norm(x, "embed.ln_pre") if c.norm_embed else x

    def block(self, x: Tensor, name: str) -> Tensor:
        divided = getattr(self.c, "attention", "joint") == "divided"
        x = self.over_time(x, name) if divided else x
        attend = self.over_space if divided else self.attention
        before = x
        branches = [("ln1", lambda y: attend(y, f"{name}.attn"), "scale1")]
        if self.c.d_mlp:
            branches.append(("ln2", lambda y: self.mlp(y, f"{name}.mlp"), "scale2"))
        for ln, branch, scale in branches:
            read = before if self.c.parallel else x
            y = branch(self.norm(read, f"{name}.{ln}") if self.c.norm == "pre" else read)
            y = self.norm(y, f"{name}.{ln}") if self.c.norm == "res_post" else y
            x = x + (y * self.w[f"{name}.{scale}.weight"] if self.c.layer_scale else y)
            x = self.norm(x, f"{name}.{ln}") if self.c.norm == "post" else x
        return x

    def attention(self, x: Tensor, name: str) -> Tensor:
        """Heads one after the other; the output matrix reads them side by side."""
        c, width = self.c, self.c.d_head
        weight, bias = self.w[f"{name}.qkv.weight"], self.w.get(f"{name}.qkv.bias")
        z = []
        for head in range(c.n_heads):
            parts = []
            for which in range(3):  # q, k, v
                rows = slice((which * c.n_heads + head) * width, (which * c.n_heads + head + 1) * width)
                parts.append(x @ weight[rows].T + (0 if bias is None else bias[rows]))
            q, k, v = parts
            if c.qk_norm:
                q, k = self.norm(q, f"{name}.q_norm"), self.norm(k, f"{name}.k_norm")
            if c.rotary == "axial":
                q, k = self.rotated(q), self.rotated(k)
            elif c.rotary != "none":
                table = self.w[f"{name}.rotation"][:, :, head if c.rotary == "head_table" else 0]
                q, k = self.turned(q, table), self.turned(k, table)
            shift = self.w[f"{name}.bias"][head] if c.score_bias else None
            z.append(softmax_attention(q, k, v, shift, self.causal))
        heads = torch.cat(z, dim=-1)
        return self.linear(self.norm(heads, f"{name}.ln") if c.norm_z else heads, f"{name}.out")

    def over_time(self, x: Tensor, name: str) -> Tensor:
        """The patches of one place read each other, place after place."""
        frames, places = self.c.grid[0], self.c.grid[1] * self.c.grid[2]
        x = x.clone()
        for place in range(places):
            tokens = [1 + frame * places + place for frame in range(frames)]
            y = self.attention(self.norm(x[tokens], f"{name}.ln_time"), f"{name}.time")
            x[tokens] += y * self.w[f"{name}.scale_time.weight"] if self.c.layer_scale else y
        return x

    def over_space(self, x: Tensor, name: str) -> Tensor:
        """Frame after frame, each with the class token, which gets the mean of what the frames give it."""
        frames, places = self.c.grid[0], self.c.grid[1] * self.c.grid[2]
        shares, patches = [], []
        for frame in range(frames):
            tokens = [0, *range(1 + frame * places, 1 + (frame + 1) * places)]
            y = self.attention(x[tokens], name)
            shares.append(y[0])
            patches.append(y[1:])
        return torch.cat([torch.stack(shares).mean(0, keepdim=True), *patches])

    def turned(self, x: Tensor, table: Tensor) -> Tensor:
        """Each component of a patch's vector, cosine times itself and sine times its partner, half a head away."""
        rows, half = list(x[: self.c.n_prefix]), self.c.d_head // 2
        for cos, sin, vector in zip(*table, x[self.c.n_prefix :], strict=True):
            first = [vector[i] * cos[i] - vector[i + half] * sin[i] for i in range(half)]
            second = [vector[i + half] * cos[i + half] + vector[i] * sin[i + half] for i in range(half)]
            rows.append(torch.stack(first + second))
        return torch.stack(rows)

    def rotated(self, x: Tensor) -> Tensor:
        """Each pair (i, i + d_head / 2) of a patch's vector as a complex number, turned by its angle."""
        c = self.c
        grid = c.grid if c.frames > 1 else c.grid[1:]
        d_axis = c.d_head // len(grid)
        rows = list(x[: c.n_prefix])
        for place, vector in zip(product(*map(range, grid)), x[c.n_prefix :], strict=True):
            angles = [
                2 * math.pi * (2 * (i + 0.5) / n - 1) / c.rotary_base ** (j / d_axis)
                for i, n in zip(place, grid, strict=True)
                for j in range(0, d_axis, 2)
            ]
            turn = torch.polar(torch.ones(len(angles), dtype=x.dtype), torch.tensor(angles, dtype=x.dtype))
            pairs = torch.complex(*vector.chunk(2)) * turn
            rows.append(torch.cat([pairs.real, pairs.imag]))
        return torch.stack(rows)

    def mlp(self, x: Tensor, name: str) -> Tensor:
        post = ACTIVATIONS[self.c.activation](self.linear(x, f"{name}.pre"))
        if self.c.gated_mlp:
            post = post * self.linear(x, f"{name}.pre_linear")
        return self.linear(self.norm(post, f"{name}.ln") if self.c.norm_post else post, f"{name}.out")

    def readout(self, x: Tensor) -> Tensor:
        c = self.c
        has_norm = c.norm in ("pre", "res_post") and c.norm_final
        if has_norm and not c.norm_pooled:
            x = self.norm(x, "readout.ln_final")
        mean = x[0 if c.pool_prefix else c.n_prefix :].mean(0)
        pools = {
            "class": lambda: x[0],
            "mean": lambda: mean,
            "class_mean": lambda: torch.cat([x[0], mean]),
            "distilled": lambda: torch.cat([x[0], x[1]]),
            "attention": lambda: self.attention_pool(x[0 if c.pool_prefix else c.n_prefix :], "readout.attention_pool"),
        }
        pooled = pools[c.pool]()
        if has_norm and c.norm_pooled:
            pooled = self.norm(pooled, "readout.ln_final")
        return self.linear(pooled, "readout.head") if c.n_classes else pooled

    def attention_pool(self, x: Tensor, name: str) -> Tensor:
        q = self.linear(self.w[f"{name}.query"], f"{name}.q")
        k, v = self.linear(x, f"{name}.k"), self.linear(x, f"{name}.v")
        n_heads = self.c.pool_heads or self.c.n_heads
        width = self.c.d_model // n_heads
        heads = [slice(h * width, (h + 1) * width) for h in range(n_heads)]
        z = torch.cat([softmax_attention(q[:, h], k[:, h], v[:, h]) for h in heads], dim=-1)
        pooled = self.linear(z, f"{name}.out")[0]
        if not (self.c.d_mlp if self.c.pool_d_mlp is None else self.c.pool_d_mlp):
            return pooled
        return pooled + self.mlp(pooled if self.c.norm == "none" else self.norm(pooled, f"{name}.ln"), f"{name}.mlp")

    def linear(self, x: Tensor, name: str) -> Tensor:
        return x @ self.w[f"{name}.weight"].T + self.w.get(f"{name}.bias", 0)

    def norm(self, x: Tensor, name: str) -> Tensor:
        own = getattr(self.c, "norm_final_eps", None) if name == "readout.ln_final" else None
        eps = self.c.norm_eps if own is None else own
        if self.c.norm_kind == "rms":
            return x / torch.sqrt((x**2).mean(-1, keepdim=True) + eps) * self.w[f"{name}.weight"]
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + eps)
        return scaled * self.w[f"{name}.weight"] + self.w[f"{name}.bias"]


class TextTwin(Twin):
    """`TextTwin(config, state_dict)(ids)`: embeddings [batch, class], of the twin's own blocks."""

    @property
    def causal(self) -> bool:
        return self.c.causal

    def logits(self, ids: Tensor) -> Tensor:
        tokens = [self.w["embed.tokens.weight"][i] for i in ids.tolist()]
        x = torch.stack(tokens) + self.w["embed.positions"]
        for layer in range(self.c.n_layers):
            x = self.block(x, f"blocks.{layer}")
        x = self.norm(x, "readout.ln_final") if self.c.norm in ("pre", "res_post") else x
        pooled = x[self.speaker(ids.tolist())]
        return self.linear(pooled, "readout.head") if self.c.n_classes else pooled

    def speaker(self, ids: list[int]) -> int:
        """Position of the token that speaks for the prompt."""
        end = max(ids) if self.c.end is None else self.c.end
        return {"end": ids.index(end) if end in ids else 0, "first": 0, "last": len(ids) - 1}[self.c.pool]


def softmax_attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None, causal: bool = False) -> Tensor:
    """One head, one query after the other; if causal, query i knows no key after i."""
    out = []
    for i, query in enumerate(q):
        seen = i + 1 if causal else len(k)
        scores = torch.stack([query @ key / math.sqrt(len(query)) for key in k[:seen]])
        weight = torch.exp(scores if bias is None else scores + bias[i])
        out.append((weight / weight.sum()) @ v[:seen])
    return torch.stack(out)
