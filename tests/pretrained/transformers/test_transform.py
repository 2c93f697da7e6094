"""Image processors of transformers as a transform: equal pictures, or none at all."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from prisma.data.transform import Transform
from prisma.pretrained.transformers.transform import transform_of

PROCESSORS: Mapping[str, Mapping[str, Any]] = {
    "ViT": {"size": {"height": 32, "width": 48}},
    "DeiT": {"size": {"height": 40, "width": 36}, "crop_size": {"height": 32, "width": 32}},
    "CLIP": {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 24}, "resample": 1},
    "Beit": {"size": 32, "resample": 0},
    "Siglip": {"size": {"height": 32, "width": 32}, "do_normalize": False},
    "Bit": {"size": 40, "crop_size": 32, "do_rescale": False},
    "VideoMAE": {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}},
}


def picture(height: int, width: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("name", PROCESSORS)
@pytest.mark.parametrize("shape", [(61, 83), (97, 50), (40, 41), (32, 32)])
def test_equals_the_processor(name: str, shape: tuple[int, int]) -> None:
    """To rounding on PIL, and to two shades on torchvision."""
    for suffix, shades in (("Pil", 0), ("", 2)):
        processor = getattr(transformers, f"{name}ImageProcessor{suffix}")(**PROCESSORS[name])
        found = processor(picture(*shape), return_tensors="pt")["pixel_values"].flatten(0, -4)[0].float()
        ours = transform_of(processor, 3)
        assert ours is not None
        mine, shade = ours(picture(*shape)), 1 / 255 / min(ours.std)
        torch.testing.assert_close(mine, found, rtol=1e-5, atol=shades * shade + 1e-5)


def test_dinov3_resizes_in_floats() -> None:
    """Ours end at black and white, where its sharpest edges overshoot."""
    processor = transformers.DINOv3ViTImageProcessor(size={"height": 32, "width": 32})  # type: ignore[no-untyped-call]
    ours = transform_of(processor, 3)
    assert ours is not None
    found = processor(picture(61, 83), return_tensors="pt")["pixel_values"][0]
    shades = (ours.pixels(found) - ours.pixels(ours(picture(61, 83)))).abs().max() * 255
    assert shades <= 2


def test_vivit_has_an_offset() -> None:
    processor = transformers.VivitImageProcessor(size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32})  # type: ignore[no-untyped-call]
    ours = transform_of(processor, 3)
    found = processor([picture(61, 83)], return_tensors="pt")["pixel_values"][0, 0]
    assert ours is not None
    torch.testing.assert_close(ours(picture(61, 83)), found, rtol=0, atol=1e-5)


SQUARE = {"height": 8, "width": 8}
PLAIN: Mapping[str, Any] = {
    "size": SQUARE, "do_resize": True, "do_rescale": True, "rescale_factor": 1 / 255, "resample": 3,
    "do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.25] * 3,
}  # fmt: skip


def test_fields() -> None:
    ours = transform_of(SimpleNamespace(**PLAIN), 3)
    assert ours == Transform((8, 8), (0.5,) * 3, (0.25,) * 3)
    grey = transform_of(SimpleNamespace(**{**PLAIN, "do_normalize": False}), 1)
    assert grey == Transform((8, 8), (0.0,), (1.0,))


@pytest.mark.parametrize(
    "change",
    [
        {"do_resize": False}, {"do_pad": True}, {"resample": 4}, {"resample": None}, {"size": None},
        {"size": {"shortest_edge": 8}}, {"size": {"longest_edge": 8}}, {"size": {**SQUARE, "longest_edge": 9}},
        {"image_mean": [0.5]}, {"image_std": None}, {"do_center_crop": True, "crop_size": {"height": 9, "width": 8}},
        {"size": {"shortest_edge": 7}, "do_center_crop": True, "crop_size": SQUARE},
    ],
)  # fmt: skip
def test_what_a_transform_cannot_do_is_none(change: dict[str, Any]) -> None:
    assert transform_of(SimpleNamespace(**{**PLAIN, **change}), 3) is None
