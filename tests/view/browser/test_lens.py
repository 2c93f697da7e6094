"""The arrays of a logit lens: what is likeliest, and whole columns, of few numbers and of many."""

import torch

from prisma.view.browser import View
from prisma.view.browser import lens as module
from prisma.view.browser.lens import lens_arrays, stage_names
from tests.app.unpack import assert_near, unpack


def arrays_of(readout: torch.Tensor, tokens: torch.Tensor | None) -> dict[str, torch.Tensor]:
    return unpack(View({}, lens_arrays(readout, tokens)).pack())[1]


def test_few_classes_come_whole() -> None:
    readout, tokens = torch.randn(3, 4), torch.randn(3, 5, 4)
    found = arrays_of(readout, tokens)
    assert_near(found["tokens"], tokens.softmax(-1))
    assert found["top.class"].shape == (3, 5, 4) and "columns" not in found


def test_many_classes_come_as_the_likeliest_and_the_answers_columns() -> None:
    readout, tokens = torch.randn(3, 2000), torch.randn(3, 60, 2000)
    found, probability = arrays_of(readout, tokens), tokens.softmax(-1)
    assert tokens.numel() > module.FULL and "tokens" not in found
    best = probability.sort(descending=True)
    assert torch.equal(found["top.class"], best.indices[..., :5].double())
    assert_near(found["top.probability"], best.values[..., :5])
    drawn = readout[-1].sort(descending=True).indices[:3]
    assert torch.equal(found["column.class"], drawn.double())
    assert_near(found["columns"], probability[..., drawn].movedim(-1, 0))


def test_without_tokens_only_the_image_is_read() -> None:
    assert set(arrays_of(torch.randn(3, 4), None)) == {"readout"}


def test_stages_have_names() -> None:
    assert stage_names(2) == ["after the embedding", "after layer 0", "after layer 1"]
