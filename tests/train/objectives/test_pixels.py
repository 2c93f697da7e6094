"""Pixels as answers, against loops over images and patches in float64."""

from collections.abc import Mapping

import pytest
import torch

from prisma.config import ViTConfig
from prisma.errors import PrismaError
from prisma.train import Recipe
from prisma.train.objectives.learners import Decoder, MaskedAutoencoder
from prisma.train.objectives.pixels import Masked, patch_orders, pixel_names, pixels_to_give
from prisma.vit import ViT
from tests.train.stacks import run_of

CONFIG = ViTConfig(
    image_size=(6, 4), patch_size=(3, 2), channels=2, n_layers=1, d_model=4, n_heads=1, d_mlp=4, n_classes=12
)


def test_the_pixels_of_patches_are_slices_with_names() -> None:
    images = torch.randn(3, 2, 6, 4, dtype=torch.float64)
    found, normed = (pixels_to_give(CONFIG, images, normalised) for normalised in (False, True))
    for i in range(3):
        for patch, (top, left) in enumerate([(0, 0), (0, 2), (3, 0), (3, 2)]):
            wanted = images[i, :, top : top + 3, left : left + 2].flatten()
            assert torch.equal(found[i, patch], wanted)
            mean = sum(wanted.tolist()) / 12
            variance = sum((x - mean) ** 2 for x in wanted.tolist()) / 11
            expected = torch.tensor([(x - mean) / (variance + 1e-6) ** 0.5 for x in wanted.tolist()])
            torch.testing.assert_close(normed[i, patch], expected.double(), rtol=1e-6, atol=1e-6)
    names = pixel_names(CONFIG)
    assert len(set(names)) == 12 and names[7] == "channel 1, row 0, column 1"
    assert pixels_to_give(CONFIG, torch.ones_like(images), True).abs().max() == 0  # a blank patch has no contrast


def test_reconstruction_reads_every_patch_by_itself(recipes: Mapping[str, Recipe]) -> None:
    run = run_of(recipes["reconstruction"], 0)
    objective, (images, targets) = run.recipe.objective, run.inputs["test"]
    (asked,), wanted = objective.question(images[:9], targets[:9], None)
    answer, model = run.learner(asked), run.model
    total = 0.0
    for i in range(9):
        x = model.readout.ln_final(model.encode(model.embed(images[i : i + 1])))
        for patch, (top, left) in enumerate([(0, 0), (0, 4), (4, 0), (4, 4)]):
            given = model.readout.head(x[0, 1 + patch])
            torch.testing.assert_close(answer[i, patch], given)
            total += (given - images[i, :, top : top + 4, left : left + 4].flatten()).square().mean().item()
    assert objective.loss(answer, wanted).item() == pytest.approx(total / 36, rel=1e-12)
    torch.testing.assert_close(answer.mean(1), model(images[:9]))  # the logits of the model are their mean


def test_the_kept_patches_are_drawn_by_step_and_seed_and_every_patch_alike() -> None:
    orders = patch_orders((0, 2, 5), 4000, 16)
    assert torch.equal(orders, patch_orders((0, 2, 5), 4000, 16))
    assert torch.equal(orders.sort(1).values, torch.arange(16).expand(4000, 16))
    assert not torch.equal(orders, patch_orders((0, 2, 6), 4000, 16))
    assert not torch.equal(orders, patch_orders((1, 2, 5), 4000, 16))
    kept = torch.bincount(orders[:, :4].flatten(), minlength=16) / 4000
    assert (kept - 0.25).abs().max() < 4 * (0.25 * 0.75 / 4000) ** 0.5


@pytest.fixture
def masked(recipes: Mapping[str, Recipe]) -> tuple[Masked, MaskedAutoencoder, ViT, torch.Tensor, torch.Tensor]:
    run = run_of(recipes["masked"], 0)
    assert isinstance(run.learner, MaskedAutoencoder) and isinstance(run.recipe.objective, Masked)
    return run.recipe.objective, run.learner, run.model, run.inputs["test"][0][:5], patch_orders((7,), 5, 16)


def test_a_masked_autoencoder_is_its_slow_twin(
    masked: tuple[Masked, MaskedAutoencoder, ViT, torch.Tensor, torch.Tensor],
) -> None:
    """The twin puts the decoder's tokens back into the order of the image, and takes an image at a time."""
    objective, learner, model, images, orders = masked
    decoder = learner.decoder
    assert objective.n_kept == 4 and isinstance(decoder, Decoder)
    inputs, wanted = objective.question(images, torch.zeros(5), orders)
    answer, total = learner(*inputs), 0.0
    for i, order in enumerate(orders.tolist()):
        embedded = model.embed(images[i : i + 1])[0]
        x = torch.stack([embedded[0], *(embedded[1 + patch] for patch in order[:4])])[None]
        x = decoder.enter(model.readout.ln_final(model.encode(x)))[0]
        whole = [x[0]]
        for patch in range(16):
            seen = order.index(patch) < 4
            whole.append((x[1 + order.index(patch)] if seen else decoder.missing) + decoder.positions[patch])
        y = torch.stack(whole)[None]
        for block in decoder.blocks:
            y = block(y)
        given = decoder.leave(decoder.ln_final(y))[0, 1:]
        for place, patch in enumerate(order[4:]):
            torch.testing.assert_close(answer[i, place], given[patch])
            row, column = divmod(patch, 4)
            pixels = images[i, 0, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2].flatten()
            right = (pixels - pixels.mean()) / (pixels.var() + 1e-6).sqrt()
            torch.testing.assert_close(wanted[i, place], right)
            total += (given[patch] - right).square().sum().item()
    assert objective.loss(answer, wanted).item() == pytest.approx(total / (5 * 12 * 4), rel=1e-10)


def test_dropped_patches_do_not_reach_the_encoder_and_seen_ones_do_not_count(
    masked: tuple[Masked, MaskedAutoencoder, ViT, torch.Tensor, torch.Tensor],
) -> None:
    objective, learner, _, images, orders = masked
    images = images.clone().requires_grad_()
    seen = torch.zeros(5, 16, dtype=torch.bool).scatter_(1, orders[:, :4], True)
    seen_pixels = seen.view(5, 1, 4, 1, 4, 1).expand(5, 1, 4, 2, 4, 2).reshape(5, 1, 8, 8)
    (gradient,) = torch.autograd.grad(learner.encoded(images, orders[:, :4]).square().sum(), images)
    assert torch.equal(gradient != 0, seen_pixels)
    _, wanted = objective.question(images, torch.zeros(5), orders)
    (gradient,) = torch.autograd.grad((wanted * torch.randn_like(wanted)).sum(), images)
    assert not gradient[seen_pixels].any() and gradient[~seen_pixels].any()
    learner(images.detach(), orders).square().sum().backward()
    assert all(parameter.grad is not None for parameter in learner.parameters())  # all of it is trained


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        ("reconstruction", {"pool": "class"}, "a model with pool=mean, whose readout is the same for every patch, for"),
        ("reconstruction", {"n_classes": "4"}, "n_classes to be 16 for the task digits and the objective reconstruct"),
        ("masked", {"rotary": "axial"}, r"does not know the number of tokens for the objective masked; found \['rota"),
        ("masked", {"score_bias": "yes"}, "score_bias"),
        ("masked", {"pool": "attention"}, "pool=class, mean or class_mean, after the final norm, for the objective"),
        ("masked", {"ema": "0.9"}, "ema=0, because a decoder has no running mean, for the objective masked; found 0.9"),
        ("masked", {"drop": "0.01"}, "at least one patch of each image for the objective masked; found '0.01 of 16'"),
        ("masked", {"drop": "1"}, "found '1 of 16'"),
        ("masked", {"decoder_heads": "3"}, "d_model=8 contradicts n_heads=3"),
        ("masked", {"n_classes": "10"}, "n_classes to be 0 for the task digits and the objective masked; found 10"),
        ("masked", {"patch_size": "1", "n_classes": "0"}, "patches of several pixels where norm_pixels is set for"),
    ],
)
def test_what_cannot_be_combined_is_a_sentence(
    recipes: Mapping[str, Recipe], name: str, change: dict[str, str], sentence: str
) -> None:
    with pytest.raises(PrismaError, match=sentence):
        recipes[name].override(change)
