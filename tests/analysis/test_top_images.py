"""The images with the largest numbers, against sorting all of them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import prisma
from prisma.analysis.top_images import Largest, image_parts, top_images
from prisma.data.pictures import Pictures
from prisma.errors import NotFiniteError, PrismaError
from tests.variants import images_of, model_of


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=1, max_size=30),
    st.integers(1, 8),
    st.integers(1, 7),
)
def test_the_largest_are_those_of_a_sort_however_the_data_are_divided(rows: list, k: int, size: int) -> None:
    values = torch.tensor(rows).float().T
    found = Largest(k)
    for part in values.split(size, dim=1):
        found.add(part)
    for unit in range(2):
        order = sorted(range(len(rows)), key=lambda i: (-values[unit, i], i))[:k]
        assert found.images[unit].tolist() == order
        assert found.values[unit].tolist() == [values[unit, i] for i in order]


def test_what_is_not_finite_is_named() -> None:
    found = Largest(2)
    found.add(torch.zeros(1, 5))
    with pytest.raises(NotFiniteError, match="expected finite numbers; found nan in image 6"):
        found.add(torch.tensor([[1.0, torch.nan]]))
    with pytest.raises(PrismaError, match="expected to keep at least one image; found 0"):
        Largest(0)


@pytest.mark.parametrize("pool", ["mean", "max"])
def test_units_of_a_site_and_where_they_are_large(pool: str) -> None:
    model = model_of("registers", torch.float32)
    images, site = images_of(model, 11), "blocks.1.mlp.post"
    acts = prisma.record(model, images, site)[1][site]
    patches = acts[:, model.config.n_prefix :]
    values = patches.mean(1) if pool == "mean" else patches.amax(1)
    found = top_images(model, images, site, [4, 1], k=3, pool=pool, batch=4)
    order = values.argsort(0, descending=True)[:3].T[[4, 1]]
    assert torch.equal(found.images, order)
    assert torch.allclose(found.values, values.T[[4, 1]].gather(1, order), atol=1e-6)
    assert torch.allclose(found.mean, values.mean(0)[[4, 1]], atol=1e-6)
    assert torch.allclose(found.spread, values.std(0, correction=0)[[4, 1]], atol=1e-5)
    assert found.maps is not None
    wanted = patches[order][torch.arange(2)[:, None], torch.arange(3), :, torch.tensor([4, 1])[:, None]]
    assert torch.allclose(found.maps.flatten(2), wanted, atol=1e-6)
    assert torch.equal(top_images(model, images, site, [4, 1], k=3, pool=pool).images, found.images)


def test_pictures_are_read_in_parts_and_sites_without_patches_have_no_maps() -> None:
    model = model_of("base", torch.float32)
    images = images_of(model, 7)
    asked: list[int] = []

    def read(rows) -> torch.Tensor:  # type: ignore[no-untyped-def]
        asked.append(len(rows))
        return images[list(rows)]

    pictures = Pictures(tuple(map(str, range(7))), "hash", read)
    found = top_images(model, pictures, "logits", k=20, batch=3)
    assert asked == [3, 3, 1] and found.maps is None and found.values.shape == (5, 7)
    assert torch.equal(found.images, model(images).argsort(0, descending=True).T)
    assert [len(x) for x in image_parts(images, 4)] == [4, 3]
    assert found.metadata["units"] == [0, 1, 2, 3, 4] and found.to_dict()["arrays"]["values"]["axes"] == [
        "unit",
        "rank",
    ]
    heads = top_images(model, images, "blocks.0.attn.z", [1], head=2, where="class")
    assert torch.allclose(
        heads.values[0],
        prisma.record(model, images, "blocks.0.attn.z")[1]["blocks.0.attn.z"][:, 0, 2, 1].sort(descending=True).values,
    )


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16])
def test_pictures_are_what_the_weights_are(kind: torch.dtype) -> None:
    model, images = model_of("base", kind), images_of(model_of("base", torch.float32), 5)
    found = top_images(model, Pictures(tuple("abcde"), "hash", lambda rows: images[list(rows)]), "blocks.1.mlp.post")
    expected = top_images(model, images.to(kind), "blocks.1.mlp.post")
    assert torch.equal(found.values, expected.values) and torch.equal(found.images, expected.images)
    assert found.maps is not None and expected.maps is not None and torch.equal(found.maps, expected.maps)


def test_what_cannot_be_done_is_said() -> None:
    model = model_of("base", torch.float32)
    images = images_of(model, 2)
    for arguments, message in (
        ((model, images, "blocks.0.mlp.pots"), "no site .* the nearest are"),
        ((model, images, "blocks.*.mlp.post"), "expected the name of one site"),
        ((model, images, 3), "expected the name of one site; found 3"),
        ((model, images, "blocks.0.mlp.post", []), "expected units of blocks.0.mlp.post; found none"),
        ((model, images, "blocks.0.mlp.post", [10]), "expected a feature of blocks.0.mlp.post below 10; found 10"),
        ((model, images, "blocks.0.attn.pattern"), "expected a site of features"),
        ((model, images[:0], "logits"), "expected at least one image; found none"),
        ((model, [1], "logits"), "expected images as a tensor with an axis for the batch; found a list"),
    ):
        with pytest.raises(PrismaError, match=message):
            top_images(*arguments)  # type: ignore[arg-type]
    with pytest.raises(PrismaError, match="expected one of mean, max; found 'sum'"):
        top_images(model, images, "logits", pool="sum")


def test_the_plot_has_the_pictures_of_the_units_and_their_maps() -> None:
    model = model_of("base", dtype=torch.float32)
    images = images_of(model, n=6)
    found = top_images(model, images, "blocks.1.mlp.post", k=3)
    pictures = torch.rand(6, 3, 8, 8)
    shown = found.plot(pictures=pictures, units=[4, 0]).axes[0].images
    assert len(shown) == 2 * 3 * 2, "two units, three images, and a map beside each"
    drawn = torch.as_tensor(shown[0].get_array()).movedim(-1, 0).float() / 255
    torch.testing.assert_close(drawn, pictures[found.images[4, 0]], atol=0.003, rtol=0)
    with pytest.raises(PrismaError, match=r"expected the 6 pictures of the data set .*; found \[5, 3, 8, 8\]"):
        found.plot(pictures=pictures[:5])
    with pytest.raises(PrismaError, match=r"expected units from 0 to 9; found \[10\]"):
        found.plot(pictures=pictures, units=[10])
