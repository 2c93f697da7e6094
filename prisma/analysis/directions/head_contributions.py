"""What each head adds to the output directly: a vector for each image, layer and head.

With patterns and the divisors of all norms on the path at their values for this image, the output is a sum of what all
parts write (`prisma.analysis.attribution.direct_path`). Here each head's share is that sum's term as a vector, where
direct logit attribution has its product with one direction.

Sources: Elhage et al. 2021; Gandelsman et al. 2310.05916.

Shapes: B image, L layer, H head, T token, M d_model, F feature.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from prisma.analysis.attribution.direct_path import EVERY, DirectPath, path_memory, record_path
from prisma.analysis.directions.texts import output_of
from prisma.batching import inputs_per_pass
from prisma.vit import ViT


@torch.no_grad()
def head_contributions(model: ViT, images: Tensor, space: str, batch: int | None = None) -> tuple[Tensor, Tensor]:
    """What each head writes to the output [image, layer, head, feature], and the output [image, feature].

    Args:
        space: "logits" or "pooled", as in `texts.output_of`.

    Raises:
        PrismaError: a part on the path carries something of its own, such as a hook.
    """
    c = model.config
    width = c.d_pooled if space == "pooled" else max(c.n_classes, c.d_pooled)
    later = c.n_heads * (2 * c.n_tokens * c.d_model + c.n_layers * width) * 8
    heads, outputs = list[Tensor](), list[Tensor]()
    for some in images.split(inputs_per_pass(model, batch, memory=path_memory(model, False) + later)):
        acts, whole = record_path(model, some, sources=False)[1], dict[str, Tensor]()
        path = _Divided(model, acts, lambda name, value, tokens: value, divisors=whole)
        path.logits()
        outputs.append(output_of(model, path.pooled[0], space))
        one = _OneHead(model, acts, lambda name, value, tokens: torch.zeros_like(value), divisors=whole)
        heads.append(torch.stack([one.vectors(layer, space) for layer in range(c.n_layers)], dim=1))
    return torch.cat(heads), torch.cat(outputs)


@dataclass
class _Divided(DirectPath):
    """The direct path of a whole run, of which the divisors of all norms are kept by name."""

    divisors: dict[str, Tensor] = field(default_factory=dict)
    pooled: list[Tensor] = field(default_factory=list)

    def _divisor(self, name: str, size: Tensor) -> Tensor:
        self.divisors[name] = size
        return size

    def _head(self, pooled_BM: Tensor) -> Tensor:
        self.pooled.append(pooled_BM)
        return super()._head(pooled_BM)


class _OneHead(_Divided):
    """The path of one head alone, for all heads of a layer side by side, with the divisors of the whole run."""

    def vectors(self, layer: int, space: str) -> Tensor:
        """[image, head, feature]: what each head of a layer adds to the output."""
        c, block = self.model.config, f"blocks.{layer}"
        z_BTHD = self.acts[f"{block}.attn.z"]
        alone = torch.eye(c.n_heads).to(z_BTHD)[:, None, :, None]  # [head, 1, head, 1]
        z = (z_BTHD[:, None] * alone).flatten(0, 1).flatten(2)
        out = self._linear(f"{block}.attn.out", self._norm(f"{block}.attn.ln", z, EVERY), EVERY)
        x = self._add(torch.zeros_like(out), out, block, 1)
        for later in range(layer, c.n_layers):
            x = self._after(x, later, first=later > layer)
        acts, self.acts = self.acts, self._of_pooling(self.acts)
        pooled = self._readout(x)
        self.acts = acts
        return output_of(self.model, pooled, space, bias=False).unflatten(0, (-1, c.n_heads))

    def _after(self, x: Tensor, layer: int, *, first: bool) -> Tensor:
        """The norms on the stream itself, of the branches of a block that add nothing; `first`: of attention too."""
        if self.model.config.norm != "post":
            return x
        branches = [1] * first + [2] * bool(self.model.config.d_mlp)
        for branch in branches:
            x = self._norm(f"blocks.{layer}.ln{branch}", x, EVERY)
        return x

    def _of_pooling(self, acts: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The pattern of the pooling for each head's row; without its MLP, whose neurons are parts of their own."""
        if "pool.pattern" not in acts:
            return {}
        return {"pool.pattern": acts["pool.pattern"].repeat_interleave(self.model.config.n_heads, 0)}

    def _divisor(self, name: str, size: Tensor) -> Tensor:
        return self.divisors[name].repeat_interleave(self.model.config.n_heads, 0)
