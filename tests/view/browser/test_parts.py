"""Bars of a decomposed logit: one for each head and each other component, in the model's order."""

import torch

from prisma.view.browser.parts import Part, parts_facts, parts_of, written

NAMES = ["embed.patch", "blocks.0.attn", "blocks.0.attn.out.bias", "blocks.0.mlp", "readout.head.bias", "odd.one"]


def test_heads_stand_where_their_attention_stands() -> None:
    parts = parts_of(NAMES, heads=2)
    assert [part.name for part in parts] == [
        "patch embedding", "layer 0, head 0", "layer 0, head 1", "layer 0, bias of attention", "layer 0, MLP",
        "bias of the class", "odd.one",
    ]  # fmt: skip
    assert [part.group for part in parts] == ["embedding", *["layer 0"] * 4, "readout", "readout"]
    assert parts[2] == Part("layer 0, head 1", "layer 0", 1, 0, 1)
    assert [part.name for part in parts_of(["blocks.0.attn"], heads=0)] == ["layer 0, attn"]


def test_what_parts_write_sums_to_the_components() -> None:
    components, heads = torch.tensor([1.0, 5.0, 2.0, 3.0, 4.0, 0.5]), torch.tensor([[2.0, 3.0]])
    found = written(parts_of(NAMES, 2), components, heads)
    assert found.tolist() == [1, 2, 3, 2, 3, 4, 0.5] and found.sum() == components.sum()
    assert torch.equal(written(parts_of(NAMES, 0), components, None), components)


def test_facts() -> None:
    assert parts_facts([Part("a", "g", 0)], 1.5, 1.25) == {"names": ["a"], "groups": ["g"], "value": 1.5, "sum": 1.25}
