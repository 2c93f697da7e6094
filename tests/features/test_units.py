"""Units as text."""

import pytest

from prisma.errors import PrismaError
from prisma.features.objectives import Channel, name_of
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
