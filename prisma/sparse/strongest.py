"""Which images of a data set are strongest in each latent, and where: the best few are kept while batches go by.

The maps are kept in the same pass, because the codes of a data set cannot be: no more than the kept images are ever in
memory, so the data set may be of any size.
"""

import torch
from torch import Tensor

from prisma.analysis.top_images import Largest
from prisma.fields import conform

NONE = -1
"""In the place of an image, where a latent is active in fewer of them."""


class Strongest:
    """For each latent the `n` images with the largest strength, the strongest first, in one pass: `add` batches.

    An image's strength is how strong the latent is at its strongest token, with either sign. Images that tie come in
    the order of the data set, so nothing depends on how the images were put into batches.

    Attributes:
        maps: [latent, n, token], the values of the latent at every token of the image.

    Args:
        latents, n, tokens: how many there are.
    """

    def __init__(self, latents: int, n: int, tokens: int, *, device: torch.device | str = "cpu") -> None:
        self._largest = Largest(conform("the number of images of each latent", n, int))
        self.maps = torch.zeros(latents, n, tokens, device=device)

    @property
    def strength(self) -> Tensor:
        """[latent, n]; 0 where a latent is active in fewer images."""
        missing = self.maps.shape[1] - self._largest.values.shape[1]
        return torch.nn.functional.pad(self._largest.values, (0, missing))

    @property
    def image(self) -> Tensor:
        """[latent, n], the indices of the images; `NONE` where a latent is active in fewer."""
        missing = self.maps.shape[1] - self._largest.images.shape[1]
        return torch.nn.functional.pad(self._largest.images, (0, missing)).masked_fill(self.strength == 0, NONE)

    def add(self, values: Tensor) -> None:
        """Look at some more images: values [image, token, latent].

        Raises:
            NotFiniteError: a value is NaN or an infinity; the image is named.
        """
        before = self._largest.values.shape[1]
        order = self._largest.add(values.abs().amax(1).T.float())
        rows = (order >= before).any(1).nonzero()[:, 0]
        if not len(rows):
            return
        order = order[rows]
        kept = self.maps[rows[:, None], order.clamp(max=max(before - 1, 0))]
        new = values[(order - before).clamp(min=0), :, rows[:, None]].float()
        self.maps[rows, : order.shape[1]] = torch.where((order >= before)[..., None], new, kept)
