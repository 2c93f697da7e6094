"""Runs on some of the tokens: which runs share a pass, and that a shorter sequence is a mask of keys."""

import pytest
import torch

from prisma.analysis.fewer_tokens import only_keys, positions_in_attention, same_length, taken
from prisma.sites import Tap
from tests.variants import images_of, model_of

KEPT = torch.tensor([[1, 0, 1, 1], [1, 1, 0, 0], [1, 0, 0, 1], [1, 1, 1, 1], [1, 1, 0, 1]]).bool()


def test_runs_of_one_length_share_a_pass_of_their_own_size() -> None:
    found = [(rows.tolist(), places.tolist()) for rows, places in same_length(KEPT, lambda n: 2 if n < 3 else 1)]
    assert found == [
        ([1, 2], [[0, 1], [0, 3]]),
        ([0], [[0, 2, 3]]),
        ([4], [[0, 1, 3]]),
        ([3], [[0, 1, 2, 3]]),
    ]


def test_tokens_at_places() -> None:
    x = torch.arange(24.0).view(2, 4, 3)
    assert torch.equal(taken(x, torch.tensor([[0, 2], [1, 3]])), torch.stack([x[0, [0, 2]], x[1, [1, 3]]]))


@pytest.mark.parametrize("variant", ["base", "registers", "norm_post", "parallel", "rms"])
def test_a_shorter_sequence_is_a_mask_of_keys(variant: str) -> None:
    model = model_of(variant)
    x, places = model.embed(images_of(model)), torch.tensor([[0, 2, 5, 8], [0, 1, 6, 9]])
    assert not positions_in_attention(model.config)
    masked = model.encode(x, tap=Tap(frozenset(), only_keys(model.config, places)))
    torch.testing.assert_close(taken(masked, places), model.encode(taken(x, places)))


def test_attention_that_knows_places() -> None:
    assert [positions_in_attention(model_of(v).config) for v in ("rotary_only", "score_bias", "base")] == [1, 1, 0]
