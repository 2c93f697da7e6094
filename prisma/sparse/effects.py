"""What single latents add to a model's outputs, each measured on the images in which it is strongest.

Every (latent, image) is a run of its own, the same as one with `Splice(coder).ablate(latent)`. Runs share what they
have in common: an image is run once up to the coder's site, and the runs of many latents continue from there together.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from prisma.batching import inputs_per_pass
from prisma.data.pictures import Pictures
from prisma.edits import Set
from prisma.plain import is_plain
from prisma.runs import Model, finish, record, run
from prisma.sparse.activations import bare
from prisma.sparse.coders import Coder


@dataclass(frozen=True)
class Effects:
    """Args: `tokens`, the indices of the tokens at which a latent is ablated; `batch`, images in one pass."""

    coder: Coder
    model: Model
    images: Tensor | Pictures
    tokens: Sequence[int]
    batch: int | None = None

    def of(self, image: Tensor, maps: Tensor) -> Tensor:
        """[latent, output]: the outputs of the model as it is, minus those with the latent ablated; means over images.

        Args:
            image: [latent, rank], the images of each latent, -1 for none.
            maps: [latent, rank, token], how active it is at each of the tokens.
        """
        latent, rank = (image >= 0).nonzero(as_tuple=True)
        order = image[latent, rank].sort(stable=True).indices
        latent, rank = latent[order], rank[order]
        wanted, counts = image[latent, rank].unique_consecutive(return_counts=True)
        size, start = inputs_per_pass(self.model, self.batch), 0
        outputs = self._clean(self._pixels(torch.zeros(1, dtype=torch.long)))[0]
        total = outputs.new_zeros(len(image), outputs.shape[1])
        for some, many in zip(wanted.split(size), counts.split(size), strict=True):
            pixels = self._pixels(some)
            clean, value = self._clean(pixels)
            row = torch.arange(len(some), device=value.device).repeat_interleave(many.to(value.device))
            for part in torch.arange(start, start + len(row), device=latent.device).split(size):
                j, rows = latent[part], row[part - start]
                z = maps[j, rank[part]]
                total.index_add_(0, j, clean[rows] - self._without(value[rows], z, j, pixels, rows))
            start += len(row)
        return total / (image >= 0).sum(1).clamp_min(1)[:, None].to(total)

    @property
    def site(self) -> str:
        return bare(self.coder.config.target or self.coder.site)

    def _pixels(self, rows: Tensor) -> Tensor:
        chosen = rows.cpu()
        found = self.images[chosen] if isinstance(self.images, Tensor) else self.images.read(chosen.tolist())
        return found.to(next(self.model.parameters()).device)

    def _clean(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        outputs, acts = record(self.model, pixels, self.site)
        return outputs, acts[self.site]

    def _without(self, value: Tensor, z: Tensor, latents: Tensor, pixels: Tensor, rows: Tensor) -> Tensor:
        """Outputs [run, output]: run i has the site's `value[i]` without latent `latents[i]`, whose code is `z[i]`."""
        written = z[:, :, None] * self.coder.W_dec[latents][:, None]  # [run, token, d]
        changed = value.clone()
        if value.ndim == 2:  # a site without tokens
            changed -= written[:, 0].to(value)
        else:
            places = torch.as_tensor(list(self.tokens), device=value.device)
            changed[:, places] -= written.to(value).view(*written.shape[:2], *value.shape[2:])
        block, _, name = self.site.removeprefix("blocks.").partition(".")
        if is_plain(self.model) and name in ("resid_pre", "resid_post"):
            return finish(self.model, changed, pixels[rows], start=int(block) + (name == "resid_post"))
        return run(self.model, pixels[rows], {self.site: Set(changed)})
