"""What single latents add to a model's outputs, each measured on the images in which it is strongest.

Every (latent, image) is a run of its own, the same as one with `Splice(coder).ablate(latent)`. Runs share what they
have in common: an image is run once, and the runs of many latents continue from the coder's site together. Only images
in which a latent is active have one. What is left costs the blocks after the site for each of them, of which the last
computes the tokens that the readout reads alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from prisma.batching import inputs_per_pass
from prisma.blocks import RESUMABLE
from prisma.data.pictures import Pictures
from prisma.edits import Set
from prisma.runs import Model, attention_stream, record, resume, run
from prisma.sites import Cache
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
            clean, acts = self._clean(pixels)
            row = torch.arange(len(some), device=clean.device).repeat_interleave(many.to(clean.device))
            for part in torch.arange(start, start + len(row), device=latent.device).split(size):
                j, rows = latent[part], row[part - start]
                z = maps[j, rank[part]]
                total.index_add_(0, j, clean[rows] - self._without(acts, z, j, pixels, rows))
            start += len(row)
        return total / (image >= 0).sum(1).clamp_min(1)[:, None].to(total)

    @property
    def site(self) -> str:
        return bare(self.coder.config.target or self.coder.site)

    def _pixels(self, rows: Tensor) -> Tensor:
        chosen = rows.cpu()
        found = self.images[chosen] if isinstance(self.images, Tensor) else self.images.read(chosen.tolist())
        return found.to(next(self.model.parameters()).device)

    @property
    def _place(self) -> tuple[int, str] | None:
        """The block of the site and its name there; None outside of blocks."""
        block, _, name = self.site.removeprefix("blocks.").partition(".")
        return (int(block), name) if name and block.isdecimal() else None

    @property
    def _streams(self) -> tuple[str, ...]:
        """What a run needs, beside the site, to continue inside its block: the streams that its branches add to."""
        if self._place is None or self._place[1] not in RESUMABLE:
            return ()
        return attention_stream(self.model, self._place[0]), f"blocks.{self._place[0]}.resid_mid"

    def _clean(self, pixels: Tensor) -> tuple[Tensor, Cache]:
        return record(self.model, pixels, [self.site, *self._streams])

    def _without(self, acts: Cache, z: Tensor, latents: Tensor, pixels: Tensor, rows: Tensor) -> Tensor:
        """Outputs [run, output]: run i is that of image `rows[i]` without latent `latents[i]`, whose code is `z[i]`."""
        written = z[:, :, None] * self.coder.W_dec[latents][:, None]  # [run, token, d]
        changed = acts[self.site][rows]  # a copy
        if changed.ndim == 2:  # a site without tokens
            changed -= written[:, 0].to(changed)
        else:
            places = torch.as_tensor(list(self.tokens), device=changed.device)
            changed[:, places] -= written.to(changed).view(*written.shape[:2], *changed.shape[2:])
        block, name = self._place or (0, "")
        if self._streams:
            stream, middle = (acts[site][rows] for site in self._streams)
            return resume(self.model, pixels[rows], block, name, changed, stream, middle)
        return run(self.model, pixels[rows], {self.site: Set(changed)})
