"""Pixels that cannot come from the transform of a model."""

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import prisma
from prisma.data import task
from prisma.data.transform import Transform
from prisma.pixels import warn_of_range
from tests.variants import images_of, model_of

IMAGENET = Transform((4, 4), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
PICTURES = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def test_the_range_is_that_of_black_and_white() -> None:
    black, white = IMAGENET.normalise(torch.zeros(3, 1, 1)).flatten(), IMAGENET.normalise(torch.ones(3, 1, 1)).flatten()
    torch.testing.assert_close(torch.tensor(IMAGENET.range), torch.stack([black, white], dim=1))


WRONG: dict[str, tuple[Tensor, str]] = {
    "0 to 255": (PICTURES * 255, r"from -2\.12 to 2\.64; found pixels from .* to 25\d"),
    "not normalised": (PICTURES, r"look as if they were not normalised, from 0\.\d+ to 0\.99\d"),
    "normalised twice": (IMAGENET.normalise(IMAGENET.normalise(PICTURES * 0.2)), "found pixels from -11.3 to -6.09"),
    "-1 to 1 in 0 to 255": (PICTURES * 255 - 128, "found pixels from -12"),
}


@pytest.mark.parametrize("case", WRONG)
def test_pixels_that_the_transform_cannot_give_are_named(case: str) -> None:
    images, sentence = WRONG[case]
    with pytest.warns(UserWarning, match=sentence):
        warn_of_range(images, IMAGENET.range)
    warn_of_range(images, None)


def test_pixels_of_the_transform_are_silent() -> None:
    extremes = torch.stack([torch.zeros(3, 4, 4), torch.ones(3, 4, 4)])
    for images in (PICTURES, extremes, PICTURES * 0.2, 0.8 + PICTURES * 0.2):
        normalised = IMAGENET.normalise(images)
        for x in (normalised, normalised.half(), normalised.bfloat16(), normalised[:0]):
            warn_of_range(x, IMAGENET.range)
    warn_of_range(PICTURES, ((0.0, 1.0),) * 3)
    digits = Transform((4, 4), (0.305,), (0.376,))
    for plain in (torch.zeros(2, 1, 4, 4), torch.ones(2, 1, 4, 4)):  # all black, all white
        for x in (digits.normalise(plain), digits.normalise(plain).half(), digits.normalise(plain).bfloat16()):
            warn_of_range(x, digits.range)


def test_noise_and_tensors_without_values_are_silent() -> None:
    generator = torch.Generator().manual_seed(0)
    for noise in (1.0, 3.0):
        warn_of_range(
            IMAGENET.normalise(PICTURES) + noise * torch.randn(PICTURES.shape, generator=generator), IMAGENET.range
        )
    warn_of_range(torch.empty(2, 3, 4, 4, device="meta"), IMAGENET.range)

    def silent(image: torch.Tensor) -> torch.Tensor:
        warn_of_range(image[None], IMAGENET.range)
        return image.sum()

    torch.func.vmap(silent)(PICTURES)


@pytest.mark.parametrize("name", ["circle", "digits", "induction", "sprites"])
def test_a_loaded_model_knows_its_range(name: str) -> None:
    loaded = prisma.load(f"mice/{name}")
    assert loaded.transform is not None
    images = task(name).inputs("test", 8)[0]
    pixels = loaded.transform.pixels(images)
    if task(name).transform.mean == (0.0,):
        pixels = pixels + 2  # this transform does nothing
    loaded.model(images)
    model, metric = loaded.model, prisma.Logit(1)
    uses: list[Callable[[Tensor], object]] = [
        model, lambda x: prisma.run(model, x), lambda x: prisma.record(model, x, "embed", stop=True),
        lambda x: prisma.sweep(model, x, x.flip(0), "attn.z", metric),
        lambda x: prisma.ablation(model, x, "attn.z", metric),
        lambda x: prisma.path_patching(model, x, x.flip(0), metric, senders=["embed"], receivers=["logits"]),
        lambda x: prisma.edge_attribution(model, x, x.flip(0), metric), lambda x: prisma.logit_lens(model, x),
    ]  # fmt: skip
    for use in uses:
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            use(images)
            assert not found
            use(pixels)
        assert len(found) == 1
        assert "expected pixels as this model's transform gives them" in str(found[0].message)


def test_shape_and_type_are_looked_at_before_the_range() -> None:
    model = model_of("base", torch.float32)
    model.pixel_range = ((-2.0, 2.0),) * 2
    images = 1000 * images_of(model)
    for wrong, found in (
        (images.to(torch.uint8), "torch.uint8"),
        (images.double(), "float64"),
        (images[:, :1], "1, 6"),
    ):
        calls: list[Callable[[Tensor], Tensor]] = [
            model,
            lambda x: prisma.run(model, x),
            lambda x: prisma.record(model, x, "blocks.0.resid_pre", stop=True)[0],
        ]
        for call in calls:
            with pytest.raises(prisma.PrismaError, match=rf"expected .*; found .*{found}"):
                call(wrong)
    with pytest.warns(UserWarning, match="expected pixels as this model's transform gives them"):
        model(images)
