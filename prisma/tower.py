"""What the image tower and the text tower share: the run through the blocks, and the weights of all layers."""

from typing import Any

import torch
from torch import Tensor, nn

from prisma.config import TransformerConfig
from prisma.plain import CONTAINERS, expect_plain, is_compiled
from prisma.sites import AnyTap, no_tap


class Tower(nn.Module):
    """Blocks on one residual stream."""

    config: TransformerConfig
    blocks: nn.ModuleList

    def __setattr__(self, name: str, value: Any) -> None:
        """A container is never called, so what `torch.compile` makes of one is the container itself."""
        while name in CONTAINERS and is_compiled(value):
            value = value._orig_mod
        super().__setattr__(name, value)

    def encode(
        self, x_BTM: Tensor, start: int = 0, stop: int | None = None, tap: AnyTap = no_tap, *, keep: int | None = None
    ) -> Tensor:
        """Residual stream [batch, token, d_model] before block `start` -> before block `stop` (default: the end).

        With `keep`, the last of these blocks computes its first `keep` tokens only, and its sites have no others.
        """
        layers = range(self.config.n_layers)[start:stop]
        for layer in layers:
            x_BTM = self.blocks[layer](x_BTM, tap.within(f"blocks.{layer}"), keep if layer == layers[-1] else None)
        return x_BTM

    @property
    def W_Q(self) -> Tensor:
        """Query weights of all heads [layer, head, d_model, d_head], a copy: `q = x @ W_Q[layer, head]` and a bias."""
        return self._stacked("attn", "W_Q")

    @property
    def W_K(self) -> Tensor:
        """Key weights of all heads [layer, head, d_model, d_head], a copy."""
        return self._stacked("attn", "W_K")

    @property
    def W_V(self) -> Tensor:
        """Value weights of all heads [layer, head, d_model, d_head], a copy."""
        return self._stacked("attn", "W_V")

    @property
    def W_O(self) -> Tensor:
        """Output weights of all heads [layer, head, d_head, d_model], a copy: a head writes `z @ W_O[layer, head]`."""
        return self._stacked("attn", "W_O")

    @property
    def W_in(self) -> Tensor:
        """Input weights of all MLPs [layer, d_model, d_mlp], a copy; for gated MLPs, those of the linear branch."""
        return self._stacked("mlp", "W_in")

    @property
    def W_out(self) -> Tensor:
        """Output weights of all MLPs [layer, d_mlp, d_model], a copy: neuron n writes `post[n] * W_out[layer, n]`."""
        return self._stacked("mlp", "W_out")

    def _stacked(self, branch: str, name: str) -> Tensor:
        """A weight of one branch (attention over time and attention pooling not included), stacked over layers.

        A model without layers or without MLPs has an empty tensor: [0, ...] or [layer, ..., 0, ...].
        """
        there = [i for i, block in enumerate(self.blocks) if getattr(block, branch, self) is not None]
        parts = {"W_O": (".out",), "W_in": (".pre", ".pre_linear"), "W_out": (".out",)}.get(name, (".qkv",))
        expect_plain(self, [f"blocks.{i}.{branch}{part}" for i in there for part in ("", *parts)], name)
        modules = [self.blocks[i].get_submodule(branch) for i in there]
        if modules:
            return torch.stack([getattr(module, name) for module in modules])
        c = self.config
        shapes = {"W_O": (c.n_heads, c.d_head, c.d_model), "W_in": (c.d_model, c.d_mlp), "W_out": (c.d_mlp, c.d_model)}
        shape = shapes.get(name, (c.n_heads, c.d_model, c.d_head))
        return torch.zeros(c.n_layers, *shape)
