"""Activations: those of the model, of the tokens that are asked for, in an order that can be computed again."""

import pytest
import torch

import prisma
from prisma.errors import NotFiniteError, PrismaError
from prisma.sparse.activations import Stream, roles_of, rows_of, source_of, split_images
from tests.variants import images_of, model_of

SITE = "blocks.0.resid_post"


@pytest.fixture(scope="module")
def model() -> prisma.ViT:
    return model_of("registers")


def test_they_are_the_models_own_and_the_model_stops_there(model: prisma.ViT) -> None:
    images = images_of(model, 5)
    _, acts = prisma.record(model, images, ["blocks.0.resid_post", "blocks.0.attn.z"])
    source = source_of(model, images, [SITE, "blocks.0.attn.hook_z"], batch=2)
    found = source.read([4, 0])
    assert torch.allclose(found[SITE], acts[SITE][[4, 0]])
    assert torch.allclose(found["blocks.0.attn.z"], acts["blocks.0.attn.z"][[4, 0]].flatten(2))  # heads side by side
    assert source.widths == {SITE: 12, "blocks.0.attn.z": 12}
    assert source.roles == ("class", *["registers"] * 3, *["patches"] * 9)


@pytest.mark.parametrize(
    ("tokens", "rows"),
    [("class", [0]), ("registers", [1, 2, 3]), ("patches", range(4, 13)), (("class", "patches"), [0, *range(4, 13)])],
)
def test_tokens_are_chosen_by_what_they_are(model: prisma.ViT, tokens: object, rows: list[int]) -> None:
    images = images_of(model, 3)
    whole = source_of(model, images, [SITE]).read(range(3))[SITE]
    source = source_of(model, images, [SITE], tokens)  # type: ignore[arg-type]
    assert torch.equal(source.read(range(3))[SITE], whole[:, list(rows)]) and len(source.roles) == len(list(rows))


def test_several_models_are_read_side_by_side(model: prisma.ViT) -> None:
    other, images = model_of("registers", seed=1), images_of(model, 3)
    found = source_of({"a": model, "b": other}, images, [SITE]).read(range(3))
    assert list(found) == [f"{SITE}@a", f"{SITE}@b"]
    assert torch.allclose(found[f"{SITE}@b"], prisma.record(other, images, SITE)[1][SITE])
    assert list(source_of({"a": model, "b": other}, images, [f"{SITE}@b"]).read([0])) == [f"{SITE}@b"]


def test_sites_without_tokens_have_one(model: prisma.ViT) -> None:
    found = source_of(model, images_of(model, 3), ["pooled"]).read(range(3))
    assert found["pooled"].shape == (3, 1, 12) and roles_of(model, "pooled") == ("pooled",)
    assert rows_of(torch.zeros(2, 3, 4, 5), "blocks.0.attn.z").shape == (2, 3, 20)
    with pytest.raises(PrismaError, match="expected a site with features of tokens"):
        source_of(model, images_of(model), ["blocks.0.attn.pattern"])


def test_what_cannot_be_read_is_said(model: prisma.ViT) -> None:
    images = images_of(model, 3)
    for arguments, message in {
        (model, ("blocks.9.resid_post",)): "no site of this model matches 'blocks.9.resid_post'",
        (model, (SITE, "pooled")): "expected sites with the same tokens",
        (model, (f"{SITE}@b",)): "expected a site of the models",
    }.items():
        with pytest.raises(PrismaError, match=message):
            source_of(arguments[0], images, list(arguments[1]))
    with pytest.raises(PrismaError, match="expected tokens among all, class, registers, patches; found 'cls'"):
        source_of(model, images, [SITE], "cls").read([0])
    with pytest.raises(PrismaError, match=f"expected tokens that {SITE} has, class, patches; found tokens='registers'"):
        source_of(base := model_of("base"), images_of(base), [SITE], "registers").read([0])
    with pytest.raises(PrismaError, match="expected at least one image; found none"):
        source_of(model, images[:0], [SITE])
    images[1, 0, 0, 0] = torch.nan
    with pytest.raises(NotFiniteError, match=f"expected finite activations at {SITE}; found nan in image 1"):
        source_of(model, images, [SITE]).read([0, 1])


def test_whole_images_are_held_out() -> None:
    train, kept = split_images(10, 0.3)
    assert len(kept) == 3 and sorted(train + kept) == list(range(10))
    assert split_images(10, 0.3) == (train, kept) != split_images(10, 0.3, seed=2)
    assert split_images(3, 0.0) == ([0, 1, 2], [])
    with pytest.raises(
        PrismaError, match="expected enough images to hold out 10% of them and train on the others; found 3"
    ):
        split_images(3, 0.1)
    with pytest.raises(PrismaError, match="expected held_out to be a share from 0 to below 1; found 1"):
        split_images(3, 1.0)


def test_every_token_is_seen_once_before_any_is_seen_twice(model: prisma.ViT) -> None:
    images = images_of(model, 6)
    stream = Stream(source_of(model, images, [SITE]), range(5), 13, seed=0)
    rows = torch.cat([stream.at(step)[SITE] for step in range(5)])
    whole = source_of(model, images, [SITE]).read(range(5))[SITE].flatten(0, 1)
    assert torch.equal(rows.sort(0).values, whole.sort(0).values) and not torch.equal(rows, whole)
    assert torch.equal(stream.at(7)[SITE], Stream(stream.source, range(5), 13, seed=0).at(7)[SITE])
    assert not torch.equal(stream.at(0)[SITE], stream.at(5)[SITE])  # the second epoch has another order


def test_little_memory_takes_some_images_at_a_time(model: prisma.ViT) -> None:
    images = images_of(model, 6)
    stream = Stream(source_of(model, images, [SITE]), range(6), 13, seed=0, memory=2 * 13 * 12 * 4)
    assert (stream.per_fill, stream.tokens) == (2, 26)
    rows = torch.cat([stream.at(step)[SITE] for step in range(6)])  # three fills of two batches: one epoch
    whole = source_of(model, images, [SITE]).read(range(6))[SITE].flatten(0, 1)
    assert torch.allclose(rows.sort(0).values, whole.sort(0).values)
    assert torch.equal(stream.at(3)[SITE], rows[39:52])
    assert torch.equal(stream.sample(26)[SITE], rows[:26])
    with pytest.raises(PrismaError, match="expected batch, the number of tokens of a step, to be at least 1; found 0"):
        Stream(stream.source, range(6), 0, seed=0)
