"""What the tour says of the mice in the package is what the library computes."""

from itertools import permutations

import torch
from prisma_app.findings import FINDINGS, findings_about

import prisma
from prisma.data import task
from prisma.data.induction import draw
from prisma.data.task import coverage


def text_of(title: str) -> str:
    return next(finding.text for finding in FINDINGS if finding.title == title)


def test_heads_that_look_at_the_object() -> None:
    sprites, mouse = task("sprites"), prisma.load("mice/sprites").model
    masks = coverage(sprites.splits["test"].masks[:100], mouse.config.patch_size)
    best = prisma.head_scores(mouse, sprites.inputs("test", 100)[0], masks=masks).top("object", 1)[0]
    said = text_of("Heads that look at the object")
    assert f"Head {best.head} of layer {best.layer} gives {100 * best.score:.0f} %" in said
    assert f"alike gives {100 * best.chance:.0f} %" in said
    keys = next(finding.keys for finding in FINDINGS if finding.title == "Heads that look at the object")
    assert (keys["layer"], keys["head"]) == (best.layer, best.head)


def test_hue_can_be_read_before_shape() -> None:
    images, labels = task("sprites").inputs("test", 200)
    answers = prisma.logit_lens(prisma.load("mice/sprites").model, images).readout.argmax(-1)
    hue = (answers % 5 == labels[:, None] % 5).double().mean(0)
    shape = (answers // 5 == labels[:, None] // 5).double().mean(0)
    said = text_of("Hue can be read before shape")
    assert f"right hue in {100 * hue[3]:.0f} % of 200" in said and f"right shape in {100 * shape[3]:.0f} %" in said
    assert f"After layer 4 it is {100 * hue[4]:.0f} % and {100 * shape[4]:.0f} %" in said


def test_two_heads_compare() -> None:
    places = [(row, col) for row in range(4, 28, 3) for col in range(4, 21, 3)]
    kinds = [(a, b, row, col) for a, b in permutations(range(4), 2) for row, col in places]
    same, different = (
        torch.stack([draw(*which, row, col) for *which, row, col in pairs])[:, None]
        for pairs in ([(a, a, r, c) for a, _, r, c in kinds], kinds)
    )
    model = prisma.load("mice/induction").model
    found = prisma.activation_patching(model, same, different, "attn.z", prisma.LogitDiff(2, 3)).normalised()[0]
    said = text_of("Two heads compare")
    assert found.topk(2).indices.sort().values.tolist() == [1, 7]
    assert f"({100 * found[1]:.0f} % and {100 * found[7]:.0f} % over {len(kinds)} pairs)" in said
    assert found[[0, 2, 3, 4, 5, 6]].max() < 0.2


def test_they_are_offered_where_the_mice_are() -> None:
    assert [found["state"]["model"] for found in findings_about(["a/b", "mice/sprites"])] == ["mice/sprites"] * 2
    assert len(findings_about(["prisma/induction", "lab/sprites"])) == 1
    assert findings_about(["lab/digits"]) == []
