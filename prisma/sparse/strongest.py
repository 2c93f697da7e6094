"""Which images of a data set are strongest in each latent, and where: the best few are kept while batches go by.

The maps are kept in the same pass, because the codes of a data set cannot be: no more than the kept images are ever in
memory, so the data set may be of any size.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from prisma.errors import PrismaError

NONE = -1
"""In the place of an image, where a latent has fewer of them."""


class Strongest:
    """For each latent the `n` images with the largest strength, the strongest first, in one pass: `add` batches.

    An image's strength is that of its strongest token. Images that tie come in the order of the data set, so nothing
    depends on how the images were put into batches.

    Attributes:
        strength: [latent, n]; 0 where there are fewer images.
        image: [latent, n], their indices; `NONE` where there are fewer.
        maps: [latent, n, token], the values of the latent at every token of the image.

    Args:
        latents, n, tokens: how many there are.
        above: only images of a larger strength are kept; by default all.
    """

    def __init__(
        self, latents: int, n: int, tokens: int, *, above: float | None = None, device: torch.device | str = "cpu"
    ) -> None:
        if n < 1:
            raise PrismaError(f"expected at least 1 image of each latent; found {n}")
        self.n, self.above = n, above
        self._strength = torch.full((latents, n), -torch.inf, device=device)
        self.image = torch.full((latents, n), NONE, device=device)
        self.maps = torch.zeros(latents, n, tokens, device=device)

    @property
    def strength(self) -> Tensor:
        return self._strength.masked_fill(self.image == NONE, 0.0)

    def add(self, images: Sequence[int], values: Tensor, strength: Tensor | None = None) -> None:
        """Look at some more images.

        Args:
            images: their indices in the data set.
            values: [image, token, latent].
            strength: [image, token, latent], what images are compared by, if it is not the values themselves.
        """
        new = (values if strength is None else strength).amax(1).T.float()  # [latent, image]
        if self.above is not None:
            new = new.masked_fill(new <= self.above, -torch.inf)
        both, order = torch.cat([self._strength, new], 1).sort(dim=1, descending=True, stable=True)
        order = order[:, : self.n]
        changed = ((order >= self.n) & (both[:, : self.n] > -torch.inf)).any(1).nonzero()[:, 0]
        if not len(changed):
            return
        order = order[changed]
        is_new, old, row = order >= self.n, order.clamp(max=self.n - 1), (order - self.n).clamp(min=0)
        indices = torch.as_tensor(list(images), device=self.image.device)
        self._strength[changed] = both[changed, : self.n]
        found = torch.where(is_new, indices[row], self.image[changed].gather(1, old))
        self.image[changed] = found.masked_fill(self._strength[changed] == -torch.inf, NONE)
        kept = self.maps[changed[:, None], old]
        self.maps[changed] = torch.where(is_new[..., None], values[row, :, changed[:, None]].float(), kept)
