"""Keys in contexts are those of separate runs without padding."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from prisma.errors import PrismaError
from prisma.language.anatomy import anatomy
from prisma.language.keys import Batch, continued, in_contexts, keys_at, streams_at, written_contexts
from tests.language.families import tiny

CONTEXTS = ["{}", "the city of Oslo. {}", "Ben is a. {}"]


@pytest.mark.parametrize("family", ["GPT2", "Mistral", "OPT", "Bloom"])
def test_padding_changes_nothing(words: Any, family: str) -> None:
    model = tiny(family)
    parts = anatomy(model)
    rows, lookup, answers = in_contexts(words, CONTEXTS, "{} was born in", "Ada Brook", "Rome")
    assert [words.decode(row[at]) for row, at in zip(rows, lookup, strict=True)] == ["Brook"] * 3
    assert [words.decode(row[-1:]) for row in rows] == ["Rome"] * 3 and [len(x) for x in answers] == [1] * 3
    keys, streams = keys_at(parts, [1], rows, lookup)[1], streams_at(parts, 1, rows, lookup)
    assert keys.shape == (3, parts.d_mlp) and streams.shape == (3, 16)
    for i, (row, at) in enumerate(zip(rows, lookup, strict=True)):
        alone, seen = _alone(model, parts.mlp_out[1], parts.blocks[1], row)
        torch.testing.assert_close(keys[i], alone[at])
        torch.testing.assert_close(streams[i], seen[at])


def _alone(model: nn.Module, linear: nn.Module, block: nn.Module, row: Tensor) -> tuple[Tensor, Tensor]:
    kept: list[Tensor] = []
    handles = [
        linear.register_forward_pre_hook(lambda module, args: kept.append(args[0].view(len(row), -1))),
        block.register_forward_hook(
            lambda module, args, out: kept.append((out[0] if isinstance(out, tuple) else out)[0])
        ),
    ]
    with torch.no_grad():
        model(input_ids=row[None])
    for handle in handles:
        handle.remove()
    return kept[0], kept[1]


def test_contexts_are_written_by_the_model(words: Any) -> None:
    parts = anatomy(tiny("GPT2"))
    found = written_contexts(parts, words, ((2, 2), (4, 1)), seed=3)
    assert found[0] == "{}" and all(text.endswith(". {}") for text in found[1:])
    assert found == written_contexts(parts, words, ((2, 2), (4, 1)), seed=3)
    ids = torch.tensor([[0, 5]])
    likeliest = continued(parts.model, ids, 2, top_k=1)
    assert likeliest[0, 2] == parts.model(input_ids=ids).logits[0, -1].argmax() and likeliest.shape == (1, 4)
    assert Batch.of([torch.tensor([1, 2]), torch.tensor([3])], torch.device("cpu")).mask.tolist() == [[1, 1], [1, 0]]


def test_contexts_end_with_the_place_of_the_prompt(words: Any) -> None:
    for context in ("the city of Oslo.", "{} the city", "{} was {}"):
        with pytest.raises(PrismaError, match=r"expected contexts that end with \{\}"):
            in_contexts(words, ["{}", context], "{} was born in", "Ada Brook")
