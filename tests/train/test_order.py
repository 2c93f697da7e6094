from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prisma.data import task
from prisma.train import Recipe
from prisma.train.order import batch, batch_indices, batch_moves, move


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 40), st.integers(1, 60), st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_every_epoch_is_a_permutation_whatever_the_batch(n: int, size: int, seed: int, epochs: int) -> None:
    steps = -(-n * epochs // size)
    seen = torch.cat([batch_indices(n, size, seed, step) for step in range(steps)])
    assert seen.dtype == torch.int64 and len(seen) == steps * size
    for epoch in seen[: n * epochs].view(epochs, n):
        assert sorted(epoch.tolist()) == list(range(n))


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32 - 1), st.integers(0, 10_000))
def test_a_batch_depends_on_seed_and_step_alone(seed: int, step: int) -> None:
    first = batch_indices(50, 8, seed, step)
    torch.rand(3)
    batch_indices(50, 8, seed, step + 17)
    assert torch.equal(first, batch_indices(50, 8, seed, step))


def test_the_order_is_frozen() -> None:
    """numpy promises this stream for good; a recipe published today must name the same images then."""
    assert batch_indices(10, 10, 0, 0).tolist() == [8, 2, 4, 3, 6, 0, 9, 1, 5, 7]
    assert not torch.equal(batch_indices(10, 10, 1, 0), batch_indices(10, 10, 0, 0))
    assert not torch.equal(batch_indices(10, 10, 0, 1), batch_indices(10, 10, 0, 0))


def test_moves_stay_in_their_range_and_depend_on_the_step(tiny: Recipe) -> None:
    config = replace(tiny.training, shift=2.0, turn=30.0)
    moves = batch_moves(4000, config, 3)
    assert moves.abs().amax(0).tolist() == pytest.approx([2, 2, 30], rel=0.01)
    assert moves.mean(0).tolist() == pytest.approx([0, 0, 0], abs=1)
    assert torch.equal(moves, batch_moves(4000, config, 3))
    assert not torch.equal(moves, batch_moves(4000, config, 4))
    assert not torch.equal(moves, batch_moves(4000, replace(config, order_seed=1), 3))


def test_move_is_what_its_numbers_say() -> None:
    images = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    still = torch.zeros(2, 3)
    torch.testing.assert_close(move(images, still), images)
    shifted = move(images, still + torch.tensor([1.0, 2.0, 0.0]))
    torch.testing.assert_close(shifted[:, :, 1:, 2:], images[:, :, :-1, :-2])
    torch.testing.assert_close(shifted[:, :, 0, 2:], images[:, :, 0, :-2])  # the border repeats
    turned = move(images, still + torch.tensor([0.0, 0.0, 90.0]))
    torch.testing.assert_close(turned, images.rot90(1, (2, 3)))


def test_a_turn_keeps_the_shape_of_what_is_in_an_oblong_image() -> None:
    image = torch.zeros(1, 1, 5, 9)
    image[0, 0, 2, 3:6] = 1
    turned = move(image, torch.tensor([[0.0, 0.0, 90.0]]))
    torch.testing.assert_close(turned[0, 0, 1:4, 4], torch.ones(3))
    assert turned.sum().item() == pytest.approx(3, abs=1e-4)


def test_a_batch_is_the_chosen_images_moved_and_normalised(tiny: Recipe) -> None:
    digits = task("digits")
    data, config = digits.splits["train"], tiny.training
    chosen = batch_indices(len(data.labels), config.batch_size, config.order_seed, 5)
    images, labels = batch(data, digits.transform, replace(config, shift=0, turn=0), 5)
    assert torch.equal(labels, data.labels[chosen])
    assert torch.equal(images, digits.inputs("train")[0][chosen])
    moved, _ = batch(data, digits.transform, config, 5)
    expected = digits.transform.normalise(move(data.images[chosen], batch_moves(len(chosen), config, 5)))
    assert torch.equal(moved, expected)
