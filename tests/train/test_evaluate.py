import math

import pytest
import torch

from prisma.data import task
from prisma.train import Recipe
from prisma.train.evaluate import evaluate, evaluate_each, images_per_pass
from prisma.train.loop import initial_model


@pytest.mark.parametrize("batch", [7, 1024])
def test_equal_to_one_image_at_a_time(tiny: Recipe, batch: int) -> None:
    model = initial_model(tiny.model, seed=0)
    images, labels = (x[:40] for x in task("digits").inputs("test"))
    losses, right = [], []
    for image, label in zip(images, labels.tolist(), strict=True):
        probabilities = model(image[None])[0].softmax(-1).tolist()
        losses.append(-math.log(probabilities[label]))
        right.append(probabilities.index(max(probabilities)) == label)
    loss, accuracy = evaluate(model, images, labels, batch)
    assert loss == pytest.approx(sum(losses) / 40, rel=1e-5)
    assert accuracy == sum(right) / 40


def test_leaves_no_gradient_and_can_be_followed_by_training(tiny: Recipe) -> None:
    model = initial_model(tiny.model, seed=0)
    images, labels = (x[:4] for x in task("digits").inputs("test"))
    evaluate(model, images, labels)
    assert all(p.grad is None for p in model.parameters())
    model(images).sum().backward()
    assert torch.isfinite(model.readout.head.weight.grad).all()


def test_constant_logits_have_the_accuracy_of_chance(tiny: Recipe) -> None:
    model = initial_model(tiny.model, seed=0)
    torch.nn.init.zeros_(model.readout.head.weight)
    images, labels = (x[:40] for x in task("digits").inputs("test"))
    assert evaluate(model, images, labels) == pytest.approx((math.log(10), 0.1))
    torch.nn.init.constant_(model.readout.head.bias, 3.0)
    model.readout.head.bias.data[9] = 2.0  # nine classes tie
    share = (labels != 9).double().mean().item() / 9
    assert evaluate(model, images, labels)[1] == pytest.approx(share)


def test_where_a_pass_has_no_room_smaller_ones_are_made() -> None:
    images, labels, sizes = torch.randn(10, 4), torch.arange(10) % 4, list[int]()

    def forward(some: torch.Tensor) -> torch.Tensor:
        sizes.append(len(some))
        if len(some) > 3:
            torch.empty(2**55, dtype=torch.uint8)  # the real error
        return some[None]

    found = evaluate_each(forward, images, labels, batch=8)
    assert found == evaluate_each(lambda some: some[None], images, labels, batch=2)
    assert sizes == [8, 4, 2, 2, 2, 2, 2]
    with pytest.raises(RuntimeError):
        evaluate_each(lambda some: torch.empty(2**55, dtype=torch.uint8), images, labels)


def test_on_a_cpu_a_pass_has_as_many_images_as_caches_hold(tiny: Recipe) -> None:
    wide = tiny.override({"d_mlp": "1000000"}).model
    assert images_per_pass(tiny.model, "cpu") == images_per_pass(wide, "cuda") == 1024
    assert images_per_pass(wide, "cpu") == 1
    sprites = tiny.override({"d_mlp": "2048"}).model
    assert images_per_pass(sprites, "cpu") == 8 * 2**20 // (4 * 5 * 2048)
    images, labels = task("digits").inputs("test")
    model = initial_model(sprites, 0)
    assert evaluate(model, images, labels) == pytest.approx(evaluate(model, images, labels, 1024), rel=1e-6)
