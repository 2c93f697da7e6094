"""Units as text."""

import pytest

from prisma.errors import PrismaError
from prisma.features.names import name_of
from prisma.features.objectives import Channel
from prisma.features.units import units_of

SITES = ["blocks.3.mlp.post", "blocks.3.attn.z", "logits"]
LABELS = ["red square", "2", "blue: a disc"]


def test_units_are_read_in_order_and_once() -> None:
    texts = [
        "blocks.3.mlp.post:1-2", "blocks.3.mlp.post:2",
        "blocks.3.mlp.post:17,token=class", "blocks.3.mlp.post:0,token=-1",
        "blocks.3.attn.z:5,head=2,token=mean", "logits:red square", "logits:blue: a disc", "logits:2",
    ]  # fmt: skip
    found = units_of(texts, SITES, LABELS)
    post = "blocks.3.mlp.post"
    assert found == [
        Channel(post, 1), Channel(post, 2), Channel(post, 17, "class"), Channel(post, 0, -1),
        Channel("blocks.3.attn.z", 5, "all", 2), Channel("logits", 0), Channel("logits", 2), Channel("logits", 1),
    ]  # fmt: skip
    again = units_of([name_of(unit) for unit in found[:6]], SITES)
    assert again == found[:6], "a unit's name reads as itself"


def test_latents_are_units_of_a_coder() -> None:
    made: list[tuple[int, int | None]] = []

    def latent(index: int, token: int | None) -> Channel:
        made.append((index, token))
        return Channel("logits", index)

    texts = ["latent:3", "latent:2-3", "latent:3,token=-1", "latent:4,token=mean", "logits:1"]
    assert len(units_of(texts, SITES, latent=latent)) == 5
    assert made == [(3, None), (2, None), (3, -1), (4, None)]
    for wrong in ("latent:3,token=class", "latent:3,head=1"):
        with pytest.raises(PrismaError, match=f"expected a latent as latent:17, or with ,token=0; found '{wrong}'"):
            units_of([wrong], SITES, latent=latent)
    with pytest.raises(PrismaError, match="is called 'latent'; latents need --coder; the nearest are"):
        units_of(texts, SITES)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("logits", "expected a unit as SITE:INDEX, such as blocks.3.mlp.post:17; found 'logits'"),
        (
            "blocks.3.mlp.pots:1",
            "called 'blocks.3.mlp.pots'; the nearest are blocks.3.mlp.post",
        ),
        ("logits:green square", "an index of logits, or .* found 'green square'; the nearest classes are red square"),
        ("blocks.3.mlp.post:5-1", "expected an index of blocks.3.mlp.post, or a range such as 0-63; found '5-1'"),
        ("blocks.3.mlp.post:-1", "expected an index of blocks.3.mlp.post"),
        ("blocks.3.mlp.post:9999999999", "expected an index of blocks.3.mlp.post"),
    ],
)
def test_other_texts_are_refused(text: str, message: str) -> None:
    with pytest.raises(PrismaError, match=message):
        units_of([text], SITES, LABELS)
    with pytest.raises(PrismaError, match="expected 1 to 100,000 units; found 0"):
        units_of([], SITES)
