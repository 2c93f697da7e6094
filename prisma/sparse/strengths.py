"""How strong each latent is where it is active: a histogram whose range grows while the data go by."""

import torch
from torch import Tensor

BINS = 32
_SMALLEST = 2.0**-40


class Strengths:
    """For each latent the number of tokens at each strength, in `BINS` equal bins from 0 to `range`.

    The range is the smallest power of two that holds every strength so far; where it doubles, bins are added in pairs.
    So the numbers are exact, and do not depend on how the tokens were put into batches.
    """

    def __init__(self, m: int, *, device: torch.device | str = "cpu") -> None:
        self.counts = torch.zeros(m, BINS, dtype=torch.float64, device=device)
        self.range = torch.full((m,), _SMALLEST, device=device)

    def add(self, z: Tensor) -> None:
        """Codes [token, m]; a latent that is zero is not active, and not counted."""
        x = z.abs().float()
        largest = x.amax(0)
        self._grow(torch.where(largest > 0, torch.exp2(largest.log2().ceil()), self.range).clamp_min(_SMALLEST))
        token, latent = x.nonzero(as_tuple=True)
        values, top = x[token, latent], self.range[latent]
        bins = (values / top * BINS).long().clamp(max=BINS - 1)
        self.counts.view(-1).index_add_(0, latent * BINS + bins, torch.ones_like(values, dtype=torch.float64))

    def _grow(self, wanted: Tensor) -> None:
        empty = self.counts.sum(1) == 0
        self.range = torch.where(empty, torch.maximum(self.range, wanted), self.range)
        while (behind := self.range < wanted).any():
            folded = torch.zeros_like(self.counts[behind])
            folded[:, : BINS // 2] = self.counts[behind].view(-1, BINS // 2, 2).sum(2)
            self.counts[behind] = folded
            self.range[behind] = self.range[behind] * 2
