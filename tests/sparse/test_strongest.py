"""The strongest images of a latent, against a sort of the whole data set."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prisma.errors import PrismaError
from prisma.sparse.strongest import NONE, Strongest


@given(
    seed=st.integers(0, 10_000),
    images=st.integers(1, 12),
    n=st.integers(1, 5),
    batch=st.integers(1, 12),
    above=st.sampled_from([None, 0.0]),
)
def test_any_batches_give_what_a_stable_sort_of_all_gives(
    seed: int, images: int, n: int, batch: int, above: float | None
) -> None:
    # few different values, so that images tie
    values = torch.randint(-2, 3, (images, 3, 4), generator=torch.Generator().manual_seed(seed)).float()
    found = Strongest(4, n, 3, above=above)
    for start in range(0, images, batch):
        rows = range(start, min(start + batch, images))
        found.add(rows, values[start : start + batch])
    for latent in range(4):
        strength = [max(values[i, :, latent].tolist()) for i in range(images)]
        wanted = sorted((i for i in range(images) if above is None or strength[i] > above), key=lambda i: -strength[i])
        wanted = wanted[:n]
        missing = n - len(wanted)
        assert found.image[latent].tolist() == [*wanted, *[NONE] * missing]
        assert found.strength[latent].tolist() == [*(strength[i] for i in wanted), *[0.0] * missing]
        for rank, i in enumerate(wanted):
            assert torch.equal(found.maps[latent, rank], values[i, :, latent])


def test_images_are_compared_by_another_strength_where_one_is_given() -> None:
    values = torch.tensor([[[-3.0]], [[2.0]]])
    found = Strongest(1, 1, 1)
    found.add([7, 9], values, values.abs())
    assert found.image.tolist() == [[7]] and found.strength.item() == 3 and found.maps.item() == -3
    with pytest.raises(PrismaError, match="expected at least 1 image of each latent; found 0"):
        Strongest(1, 0, 1)
