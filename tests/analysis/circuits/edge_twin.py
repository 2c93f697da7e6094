"""The slow twin of a run over edges: one image, one receiver, one head after the other, on the twin of the model.

It shares nothing with the package but the names of parameters and nodes, and is differentiable in the edges' weights:
the stream of receiver v is made of (1 - w) what u sent in the other run + w what u sends in this one.
"""

import torch
from torch import Tensor

from tests.twin import Twin, softmax_attention

Sent = dict[str, Tensor]


class EdgeTwin(Twin):
    def edge_run(
        self,
        image: Tensor | None,
        weights: dict[tuple[str, str], Tensor | float] | None = None,
        other: Sent | None = None,
        embed: Tensor | None = None,
    ) -> tuple[Tensor, Sent]:
        """Logits [class], and what each sender sends. Edges without a weight are in; without another run, all are.

        A run starts from an image, or from its embedding [token, d_model].
        """
        self.weights, self.other = weights or {}, other
        self.sent = {"embed": self.embed(image) if embed is None else embed}
        self.streams = {name: self.chosen("embed", name) for name in self.receivers()}
        for layer in range(self.c.n_layers):
            if getattr(self.c, "attention", "joint") == "divided":
                self.heads("t", layer)
            self.heads("a", layer)
            if self.c.d_mlp:
                self.neurons(layer)
        return self.readout(self.streams["logits"]), self.sent

    def receivers(self) -> list[str]:
        """In order."""
        c, names = self.c, []
        for layer in range(c.n_layers):
            for letter in ["t", "a"] if getattr(c, "attention", "joint") == "divided" else ["a"]:
                names += [f"{letter}{layer}.h{head}.{side}" for side in "qkv" for head in range(c.n_heads)]
            names += [f"m{layer}"] if c.d_mlp else []
        return [*names, "logits"]

    def chosen(self, sender: str, receiver: str) -> Tensor:
        own, weight = self.sent[sender], self.weights.get((sender, receiver), 1.0)
        return own if self.other is None else (1 - weight) * self.other[sender] + weight * own

    def later(self, last: str) -> list[str]:
        return self.receivers()[self.receivers().index(last) + 1 :]

    def heads(self, letter: str, layer: int) -> None:
        c, block = self.c, f"blocks.{layer}"
        name, scale, ln = (
            (f"{block}.time", "scale_time", "ln_time") if letter == "t" else (f"{block}.attn", "scale1", "ln1")
        )
        for head in range(c.n_heads):
            read = [self.streams[f"{letter}{layer}.h{head}.{side}"] for side in "qkv"]
            read = [self.norm(x, f"{block}.{ln}") if c.norm == "pre" else x for x in read]
            self.sent[f"{letter}{layer}.h{head}"] = self.z(read, head, name)
        for receiver in self.later(f"{letter}{layer}.h{c.n_heads - 1}.v"):
            if c.parallel and receiver == f"m{layer}":
                continue
            z = torch.cat([self.chosen(f"{letter}{layer}.h{head}", receiver) for head in range(c.n_heads)], dim=-1)
            out = self.linear(self.norm(z, f"{name}.ln") if c.norm_z else z, f"{name}.out")
            out = torch.cat([torch.zeros(1, c.d_model, dtype=out.dtype), out]) if letter == "t" else out
            out = self.norm(out, f"{block}.{ln}") if c.norm == "res_post" else out
            x = self.streams[receiver] + (out * self.w[f"{block}.{scale}.weight"] if c.layer_scale else out)
            self.streams[receiver] = self.norm(x, f"{block}.{ln}") if c.norm == "post" else x

    def neurons(self, layer: int) -> None:
        c, block = self.c, f"blocks.{layer}"
        x = self.streams[f"m{layer}"]
        out = self.mlp(self.norm(x, f"{block}.ln2") if c.norm == "pre" else x, f"{block}.mlp")
        out = self.norm(out, f"{block}.ln2") if c.norm == "res_post" else out
        self.sent[f"m{layer}"] = out * self.w[f"{block}.scale2.weight"] if c.layer_scale else out
        for receiver in self.later(f"m{layer}"):
            x = self.streams[receiver] + self.chosen(f"m{layer}", receiver)
            self.streams[receiver] = self.norm(x, f"{block}.ln2") if c.norm == "post" else x

    def z(self, read: list[Tensor], head: int, name: str) -> Tensor:
        """Of one head [token, d_head]; of attention over time, of the patches."""
        if name.endswith("time"):
            return self.z_over_time(read, head, name)
        q, k, v = self.qkv(read, head, name)
        if getattr(self.c, "attention", "joint") == "divided":
            return self.z_over_space(q, k, v)
        return softmax_attention(q, k, v, self.w[f"{name}.bias"][head] if self.c.score_bias else None)

    def qkv(self, read: list[Tensor], head: int, name: str) -> tuple[Tensor, Tensor, Tensor]:
        c, width, bias = self.c, self.c.d_head, self.w.get(f"{name}.qkv.bias")
        sides = []
        for which, x in enumerate(read):
            rows = slice((which * c.n_heads + head) * width, (which * c.n_heads + head + 1) * width)
            sides.append(x @ self.w[f"{name}.qkv.weight"][rows].T + (0 if bias is None else bias[rows]))
        q, k, v = sides
        if c.qk_norm:
            q, k = self.norm(q, f"{name}.q_norm"), self.norm(k, f"{name}.k_norm")
        if c.rotary == "axial":
            q, k = self.rotated(q), self.rotated(k)
        elif c.rotary != "none":
            table = self.w[f"{name}.rotation"][:, :, head if c.rotary == "head_table" else 0]
            q, k = self.turned(q, table), self.turned(k, table)
        return q, k, v

    def z_over_time(self, read: list[Tensor], head: int, name: str) -> Tensor:
        frames, places = self.c.grid[0], self.c.grid[1] * self.c.grid[2]
        rows: list[Tensor | None] = [None] * (frames * places)
        for place in range(places):
            tokens = [frame * places + place for frame in range(frames)]
            q, k, v = self.qkv([x[1:][tokens] for x in read], head, name)
            for token, row in zip(tokens, softmax_attention(q, k, v), strict=True):
                rows[token] = row
        return torch.stack([row for row in rows if row is not None])

    def z_over_space(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        frames, places = self.c.grid[0], self.c.grid[1] * self.c.grid[2]
        shares, patches = [], []
        for frame in range(frames):
            tokens = [0, *range(1 + frame * places, 1 + (frame + 1) * places)]
            z = softmax_attention(q[tokens], k[tokens], v[tokens])
            shares.append(z[0])
            patches.append(z[1:])
        return torch.cat([torch.stack(shares).mean(0, keepdim=True), *patches])
