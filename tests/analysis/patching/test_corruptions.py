"""Corruptions: what they put where, and what they leave alone."""

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from prisma import PrismaError
from prisma.analysis.patching.corruptions import (
    CORRUPTIONS,
    OF_OBJECTS,
    blur,
    derangement,
    gaussian_noise,
    mask_object,
    mean_image,
    other_image,
    patch_pixels,
    swap_patches,
)
from tests.variants import images_of, model_of

IMAGE, VIDEO = (4, 2, 9, 11), (3, 2, 4, 6, 5)


def pictures(shape: tuple[int, ...] = IMAGE, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2 + 1


def some_pixels(images: Tensor) -> Tensor:
    """A rectangle that differs from image to image, in all frames but the first."""
    where = torch.zeros(len(images), *images.shape[2:], dtype=torch.bool)
    for i in range(len(images)):
        where[i, ..., 1 + i % 2 : 4, 2 : 4 + i % 2] = True
    if images.ndim == 5:
        where[:, 0] = False
    return where


@pytest.mark.parametrize("shape", [IMAGE, VIDEO])
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_only_the_chosen_pixels_change(name: str, shape: tuple[int, ...]) -> None:
    images = pictures(shape)
    where, before = some_pixels(images), images.clone()
    corrupted = CORRUPTIONS[name](images, where)
    assert torch.equal(images, before)
    assert corrupted.shape == images.shape
    assert corrupted.dtype == images.dtype
    changed = corrupted != images
    assert torch.equal(changed, where[:, None].expand_as(changed))
    assert torch.equal(CORRUPTIONS[name](images, where), corrupted), "not a pure function"


@pytest.mark.parametrize("name", [name for name in CORRUPTIONS if name not in OF_OBJECTS])
def test_without_a_mask_everything_changes(name: str) -> None:
    images = pictures()
    everything = torch.ones(len(images), *images.shape[2:], dtype=torch.bool)
    corrupted = CORRUPTIONS[name](images)
    assert torch.equal(corrupted, CORRUPTIONS[name](images, everything))
    assert (corrupted != images).all()
    assert corrupted.untyped_storage().data_ptr() != images.untyped_storage().data_ptr()


def test_a_mask_of_pixels_holds_for_every_frame() -> None:
    video = pictures(VIDEO)
    where = some_pixels(video)[:, 1]
    changed = gaussian_noise(video, where) != video
    assert torch.equal(changed, where[:, None, None].expand_as(changed))


def test_noise_is_in_units_of_the_images_own_deviation() -> None:
    images = pictures((3, 3, 64, 64)) * torch.tensor([0.1, 1, 10]).view(3, 1, 1, 1)
    noise = gaussian_noise(images, sigma=2.0) - images
    for image, of_image in zip(images, noise, strict=True):
        assert of_image.std().item() == pytest.approx(2 * image.std().item(), rel=0.02)
        assert abs(of_image.mean().item()) < 0.1 * image.std().item()
    assert torch.equal(gaussian_noise(images, sigma=0.0), images)
    assert not torch.equal(gaussian_noise(images, seed=1), gaussian_noise(images, seed=2))
    alone = gaussian_noise(images.float())[0] - images[0].float()
    torch.testing.assert_close(alone, (gaussian_noise(images) - images)[0].float(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("shape", [IMAGE, VIDEO])
@pytest.mark.parametrize("sigma", [0.7, 3.0])
def test_blur_is_a_gaussian_filter_of_each_picture(shape: tuple[int, ...], sigma: float) -> None:
    images = pictures(shape)
    expected = images.numpy().copy()
    for index in product(*(range(n) for n in shape[:-2])):
        for axis in (0, 1):
            expected[index] = gaussian_filter1d(expected[index], sigma, axis=axis, mode="nearest", truncate=4)
    np.testing.assert_allclose(blur(images, sigma=sigma).numpy(), expected, rtol=1e-5, atol=1e-6)
    flat = torch.full(shape, 3.0, dtype=torch.float64)
    torch.testing.assert_close(blur(flat, sigma=sigma), flat)


def test_mean_image() -> None:
    images, reference = pictures(), pictures(seed=1)[:3]
    for of, expected in ((None, images.mean(0)), (reference, reference.mean(0))):
        corrupted = mean_image(images, reference=of)
        for image in corrupted:
            torch.testing.assert_close(image, expected)


def test_swaps_come_from_another_image() -> None:
    images = pictures()
    where = some_pixels(images)
    order = [2, 3, 1, 0]
    swapped = swap_patches(images, where, order=order)
    for i, other in enumerate(order):
        for c in range(images.shape[1]):
            assert torch.equal(swapped[i, c][where[i]], images[other, c][where[i]])
            assert torch.equal(swapped[i, c][~where[i]], images[i, c][~where[i]])
    assert torch.equal(other_image(images), images[[1, 2, 3, 0]])
    assert torch.equal(swap_patches(images, seed=5), images[derangement(4, 5)])


@pytest.mark.parametrize("n", [2, 3, 10])
def test_a_derangement_leaves_nothing_where_it_was(n: int) -> None:
    found = [derangement(n, seed) for seed in range(30)]
    for order in found:
        assert sorted(order.tolist()) == list(range(n))
        assert (order != torch.arange(n)).all()
    assert torch.equal(derangement(n, 3), found[3])
    assert len({tuple(order.tolist()) for order in found}) == {2: 1, 3: 2}.get(n, 30)


def test_the_mean_of_many_pixels_in_half_precision() -> None:
    """Their sum is beyond 65504, the largest number of float16."""
    images, where = torch.full((1, 3, 256, 256), 2.0, dtype=torch.float16), torch.zeros(1, 256, 256, dtype=torch.bool)
    where[0, :9, :9] = True
    images[:, :, :9, :9] = 0
    assert (mask_object(images, where) == 2).all()
    assert (mask_object(images, where, by="noise") == 2).all()


def test_images_that_are_not_finite_are_named() -> None:
    images = torch.zeros(3, 1, 4, 4)
    images[2, 0, 1, 1] = torch.nan
    for corruption in (gaussian_noise, blur, mean_image, swap_patches, other_image):
        with pytest.raises(PrismaError, match="expected finite images; found nan in image 2"):
            corruption(images)
    with pytest.raises(PrismaError, match="found nan in image 2"):
        mean_image(torch.zeros(3, 1, 4, 4), reference=images)


def test_an_object_is_replaced_by_what_surrounds_it() -> None:
    images = pictures((3, 2, 30, 40))
    where = some_pixels(images)
    where[:, :25] = True
    by_mean, by_noise = mask_object(images, where), mask_object(images, where, by="noise")
    for i, c in product(range(3), range(2)):
        rest = images[i, c][~where[i]]
        torch.testing.assert_close(by_mean[i, c][where[i]], rest.mean().expand(int(where[i].sum())))
        assert by_noise[i, c][where[i]].mean().item() == pytest.approx(rest.mean().item(), abs=0.3)
        assert by_noise[i, c][where[i]].std().item() == pytest.approx(rest.std().item(), rel=0.1)
    assert torch.equal(mask_object(images, where, by="other"), swap_patches(images, where))


@pytest.mark.parametrize("variant", ["base", "not_square", "cut_edge", "video", "divided"])
def test_pixels_of_patches_are_what_the_patch_sees(variant: str) -> None:
    """Noise on some patches changes the embedding of these patches and of no other token."""
    model = model_of(variant)
    config, images = model.config, images_of(model, 3)
    patches = torch.rand(3, config.n_patches, generator=torch.Generator().manual_seed(0)) < 0.4
    where = patch_pixels(patches, config)
    assert where.shape == (3, *config.input_shape[1:])
    with torch.no_grad():
        changed = (model.embed(gaussian_noise(images, where)) != model.embed(images)).any(-1)
    assert torch.equal(changed[:, config.n_prefix :], patches)
    assert not changed[:, : config.n_prefix].any()
    every = patch_pixels(torch.ones(1, config.n_patches, dtype=torch.bool), config)
    assert every.all() == (variant != "cut_edge")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: gaussian_noise(x, sigma=-1.0), "expected sigma to be at least 0; found -1.0"),
        (lambda x: gaussian_noise(x, sigma=float("nan")), "expected sigma to be at least 0; found nan"),
        (lambda x: blur(x, sigma=0), "expected sigma to be above 0 pixels"),
        (lambda x: blur(x, sigma=float("nan")), "expected sigma to be above 0 pixels"),
        (lambda x: mean_image(x, reference=x[:, :1]), "expected reference images"),
        (lambda x: mean_image(x, reference=x[:0]), "expected reference images"),
        (lambda x: other_image(x[:1]), "index of another image"),
        (lambda x: swap_patches(x[:1]), "at least 2 images, so that each can get another one; found 1"),
        (lambda x: swap_patches(x, order=[1, 0, 3, 3]), "index of another image"),
        (lambda x: swap_patches(x, order=[1, 0, 3, 4]), "index of another image"),
        (lambda x: swap_patches(x, order=[1, 0, 3]), "index of another image"),
        (lambda x: mask_object(x, None), "found None"),
        (lambda x: mask_object(x, some_pixels(x), by="love"), "mean, other or noise; found 'love'"),
        (
            lambda x: mask_object(x, torch.ones(4, 9, 11, dtype=torch.bool)),
            "masks that leave some pixels of each image",
        ),
        (lambda x: mask_object(x, torch.ones(4, 9, 11)), "expected pixels, boolean"),
        (lambda x: blur(x, torch.ones(4, 9, 10, dtype=torch.bool)), r"boolean \[4, 9, 11\]; found \[4, 9, 10\]"),
        (lambda x: blur(x, torch.ones(9, 11, dtype=torch.bool)), "expected pixels"),
        (lambda x: blur(x[0]), "expected floating-point images"),
        (lambda x: gaussian_noise(x.long()), "expected floating-point images"),
        (lambda x: gaussian_noise(x[:0]), "expected floating-point images"),
        (lambda x: patch_pixels(torch.ones(1, 4, dtype=torch.bool), model_of("base").config), r"\[image, 9\]"),
        (lambda x: patch_pixels(torch.ones(1, 9), model_of("base").config), "expected patches, boolean"),
    ],
)
def test_what_cannot_be_done_is_said(call: Any, message: str) -> None:
    with pytest.raises(PrismaError, match=message):
        call(pictures())
