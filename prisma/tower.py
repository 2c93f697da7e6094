"""What the image tower and the text tower share: the run through the blocks, and the weights of all layers."""

from typing import Any

import torch
from torch import Tensor, nn

from prisma.config import TransformerConfig
from prisma.errors import PrismaError
from prisma.sites import AnyTap, no_tap


class Tower(nn.Module):
    """Blocks on one residual stream."""

    config: TransformerConfig
    blocks: nn.ModuleList

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
        """Query weights of all heads [layer, head, d_model, d_head]: `q = x @ W_Q[layer, head]`."""
        return torch.stack([block.attn.W_Q for block in self._blocks()])

    @property
    def W_K(self) -> Tensor:
        """Key weights of all heads [layer, head, d_model, d_head]."""
        return torch.stack([block.attn.W_K for block in self._blocks()])

    @property
    def W_V(self) -> Tensor:
        """Value weights of all heads [layer, head, d_model, d_head]."""
        return torch.stack([block.attn.W_V for block in self._blocks()])

    @property
    def W_O(self) -> Tensor:
        """Output weights of all heads [layer, head, d_head, d_model]: a head writes `z @ W_O[layer, head]`."""
        return torch.stack([block.attn.W_O for block in self._blocks()])

    @property
    def W_in(self) -> Tensor:
        """Input weights of all MLPs [layer, d_model, d_mlp]; of a gated MLP, those of its linear branch."""
        return torch.stack([block.mlp.W_in for block in self._blocks(mlp=True)])

    @property
    def W_out(self) -> Tensor:
        """Output weights of all MLPs [layer, d_mlp, d_model]: a neuron writes `post * W_out[layer, neuron]`."""
        return torch.stack([block.mlp.W_out for block in self._blocks(mlp=True)])

    def _blocks(self, mlp: bool = False) -> list[Any]:
        """The blocks. Raises PrismaError if there are none, or none with an MLP where one is needed."""
        c = self.config
        if not c.n_layers or (mlp and not c.d_mlp):
            raise PrismaError(
                f"expected a model with layers{' and MLPs' * mlp}; found n_layers={c.n_layers} and d_mlp={c.d_mlp}"
            )
        return list(self.blocks)
