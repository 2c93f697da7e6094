"""The strongest images of a latent, against a sort of the whole data set."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prisma.errors import NotFiniteError, PrismaError
from prisma.sparse.strongest import NONE, Strongest


@given(seed=st.integers(0, 10_000), images=st.integers(1, 12), n=st.integers(1, 5), batch=st.integers(1, 12))
def test_any_batches_give_what_a_stable_sort_of_all_gives(seed: int, images: int, n: int, batch: int) -> None:
    # few different values, so that images tie, and some latents are active in few images or none
    values = torch.randint(-2, 3, (images, 3, 4), generator=torch.Generator().manual_seed(seed)).float()
    values *= torch.rand(images, 1, 4, generator=torch.Generator().manual_seed(seed)) < torch.tensor([1, 0.5, 0.2, 0])
    found = Strongest(4, n, 3)
    for part in values.split(batch):
        found.add(part)
    for latent in range(4):
        strength = [max(values[i, :, latent].abs().tolist()) for i in range(images)]
        wanted = sorted((i for i in range(images) if strength[i] > 0), key=lambda i: -strength[i])[:n]
        missing = n - len(wanted)
        assert found.image[latent].tolist() == [*wanted, *[NONE] * missing]
        assert found.strength[latent].tolist() == [*(strength[i] for i in wanted), *[0.0] * missing]
        for rank, i in enumerate(wanted):
            assert torch.equal(found.maps[latent, rank], values[i, :, latent])
        assert not found.maps[latent, len(wanted) :].any()


def test_what_cannot_be_kept_is_said() -> None:
    with pytest.raises(PrismaError, match="expected to keep at least one image; found 0"):
        Strongest(1, 0, 1)
    with pytest.raises(PrismaError, match="expected the number of images of each latent to be a whole number"):
        Strongest(1, 1.5, 1)  # type: ignore[arg-type]
    with pytest.raises(NotFiniteError, match="found nan in image 1"):
        Strongest(1, 2, 1).add(torch.tensor([[[1.0]], [[torch.nan]]]))
