"""The text tower of a CLIP: the blocks of the vision tower between token embeddings and a projection.

Source: Radford et al. 2103.00020. Shapes: B batch, T token, M d_model.
"""

import torch
from torch import Tensor, nn

from prisma.attention import real_device
from prisma.blocks import Block
from prisma.config import TextConfig
from prisma.errors import PrismaError
from prisma.layers import make_norm
from prisma.sites import AnyTap, no_tap
from prisma.tower import Tower


class TextEmbed(nn.Module):
    """Token ids -> tokens."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.vocabulary, config.d_model)
        self.positions = nn.Parameter(0.01 * torch.randn(config.context, config.d_model))

    def forward(self, ids_BT: Tensor, tap: AnyTap = no_tap) -> Tensor:
        c = self.config
        if ids_BT.ndim != 2 or ids_BT.shape[1] != c.context or ids_BT.dtype not in (torch.int32, torch.int64):
            found = f"{list(ids_BT.shape)} of {ids_BT.dtype}"
            raise PrismaError(f"expected token ids [batch, context] = [batch, {c.context}]; found {found}")
        if not torch.compiler.is_compiling():  # a graph knows no values; uncompiled, a GPU would not survive such an id
            outside = ids_BT[(ids_BT < 0) | (ids_BT >= c.vocabulary)]
            if len(outside):
                raise PrismaError(f"expected token ids from 0 to {c.vocabulary - 1}; found {outside[0].item()}")
        x_BTM = tap("embed", self.tokens(ids_BT))
        return x_BTM + tap("pos_embed", self.positions.expand_as(x_BTM))


class TextReadout(nn.Module):
    """Tokens -> embedding: final norm, the token that is pooled, projection."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        has_norm = config.norm in ("pre", "res_post")
        self.ln_final = make_norm(config, config.d_model) if has_norm else None
        projects = config.n_classes > 0
        self.head = nn.Linear(config.d_model, config.n_classes, bias=config.head_bias) if projects else nn.Identity()

    def forward(self, x_BTM: Tensor, ids_BT: Tensor, tap: AnyTap = no_tap) -> Tensor:
        if self.ln_final is not None:
            x_BTM = tap("ln_final", self.ln_final(x_BTM))
        pooled_BM = x_BTM[torch.arange(len(x_BTM), device=x_BTM.device), self._position(ids_BT)]
        return tap("logits", self.head(tap("pooled", pooled_BM)))

    def _position(self, ids_BT: Tensor) -> Tensor:
        """The position of the token that is pooled [batch]."""
        c = self.config
        if c.pool == "end":
            return (ids_BT if c.end is None else (ids_BT == c.end).int()).argmax(-1)
        return torch.full_like(ids_BT[:, 0], 0 if c.pool == "first" else c.context - 1)


class TextTower(Tower):
    """Token ids [batch, context] -> embedding [batch, class], in the space of the image tower's logits."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config: TextConfig = config
        unseen = torch.full((config.context, config.context), -torch.inf, device=real_device()).triu(1)
        bias = unseen if config.causal else None
        self.embed = TextEmbed(config)
        self.blocks = nn.ModuleList(Block(config, bias) for _ in range(config.n_layers))
        self.readout = TextReadout(config)

    def forward(self, ids: Tensor, tap: AnyTap = no_tap) -> Tensor:
        return self.readout(self.encode(self.embed(ids, tap), tap=tap), ids, tap)
