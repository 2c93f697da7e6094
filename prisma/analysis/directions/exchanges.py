"""Pairs of images whose vectors at a place are exchanged within a subspace; and the search for one by gradients.

Source: Geiger et al. 2303.02536 (distributed alignment search).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from prisma.analysis.directions.places import Place, PlacedRuns
from prisma.analysis.directions.subspaces import exchanged
from prisma.metrics import above_and_tied, top_share
from prisma.numbers import exact
from prisma.vit import ViT


class Pairs:
    """Pairs of images, whose vectors at a place are exchanged."""

    def __init__(self, model: ViT, images: Tensor, sources: Tensor, place: Place, batch: int | None) -> None:
        self.runs = PlacedRuns(model, images, place, batch)
        self.source = PlacedRuns(model, sources, place, batch).values

    def answers(self, basis: Tensor, labels: Tensor) -> Tensor:
        """[pair]: whether the run with this exchange gives the label; 1 / n where it is first with n - 1 others."""
        values = exchanged(self.runs.values, self.source, basis.to(self.source))
        return exact(top_share(*above_and_tied(self.runs.all_logits(values), labels)))

    def search(self, labels: Tensor, dim: int, steps: int, lr: float, pairs: int, seed: int) -> tuple[Tensor, Tensor]:
        """The subspace [feature, direction] for which these labels are likeliest, and the loss of each step."""
        random, base = torch.Generator().manual_seed(seed), self.runs.values
        start = torch.randn(self.source.shape[-1], dim, generator=random, dtype=torch.float64)
        free, losses = start.to(base).requires_grad_(), []
        optimizer = torch.optim.Adam([free], lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(steps):
            rows = torch.randint(len(labels), (min(pairs, len(labels)),), generator=random).to(labels.device)
            with torch.enable_grad():
                basis = torch.linalg.qr(free).Q
                logits = self.runs.logits(exchanged(base[rows], self.source[rows], basis), rows)
                loss = F.cross_entropy(exact(logits), labels[rows])
                (free.grad,) = torch.autograd.grad(loss, free)
            optimizer.step()
            schedule.step()
            losses.append(loss.detach())
        return torch.linalg.qr(free.detach().double()).Q.cpu(), torch.stack(losses)
