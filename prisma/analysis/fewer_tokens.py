"""Runs on some of the tokens: a shorter sequence, or no attention to the others. Both give the same stream.

Tokens are left out after positions were added, so that those that stay are where they were. Where positions live in
the attention (rotary, a bias of the scores), keys are masked instead. Neither needs another run of the embedding.

Shapes: B run, T token, N kept token, M d_model.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from prisma.config import ViTConfig
from prisma.edits import Edit


def positions_in_attention(config: ViTConfig) -> bool:
    """Whether attention itself knows where each token is, so that tokens cannot be left out of its input."""
    return config.rotary != "none" or config.score_bias


def same_length(kept_BT: Tensor, per_pass: Callable[[int], int]) -> Iterator[tuple[Tensor, Tensor]]:
    """(runs [B], the places of their kept tokens [B, N]): runs that keep equally many tokens, some at a time.

    Args:
        kept_BT: boolean.
        per_pass: number of kept tokens -> how many such runs fit in one pass.
    """
    counts_B = kept_BT.sum(1)
    for count in counts_B.unique().tolist():
        for rows in (counts_B == count).nonzero()[:, 0].split(per_pass(count)):
            yield rows, kept_BT[rows].nonzero()[:, 1].view(len(rows), count)


def taken(x_BTM: Tensor, places_BN: Tensor) -> Tensor:
    """The tokens at these places [B, N, M]."""
    return x_BTM.gather(1, places_BN[..., None].expand(-1, -1, x_BTM.shape[-1]))


@dataclass(frozen=True, eq=False)
class _OnlyKeys(Edit):
    """No query attends to the other keys."""

    kept: Tensor  # [batch, key], boolean

    def __call__(self, x: Tensor, axes: tuple[str, ...]) -> Tensor:
        return x.masked_fill(~self.kept[:, None, None], -torch.inf)


def only_keys(config: ViTConfig, places_BN: Tensor) -> dict[str, tuple[Edit, ...]]:
    """The edits of a run in which no token attends to those at other places."""
    kept_BT = torch.zeros(len(places_BN), config.n_tokens, dtype=torch.bool, device=places_BN.device)
    edit = _OnlyKeys(kept_BT.scatter(1, places_BN, True))
    return {f"blocks.{layer}.attn.scores": (edit,) for layer in range(config.n_layers)}
