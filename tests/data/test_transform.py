"""From pictures to tensors: exact where nothing has to change, loud where it cannot be done."""

import json
import math
import os
import re
import struct
import zlib
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from prisma import PrismaError
from prisma.data import task
from prisma.data.transform import MAX_PIXELS, Transform, as_bytes, as_floats

GREY = Transform(size=(8, 8), mean=(0.0,), std=(1.0,))
COLOUR = Transform(size=(4, 6), mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.5))


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


# what stays exactly as it is


def test_a_picture_of_the_right_size_passes_unchanged() -> None:
    array = noise(8, 8)
    expected = torch.from_numpy(array.astype(np.float32) / 255)[None]
    for same in (array, array[:, :, None], Image.fromarray(array), array / 255, (array / 255).astype(np.float32)):
        x = GREY(same)
        assert (x.dtype, x.shape) == (torch.float32, (1, 8, 8))
        assert torch.equal(x, expected)


def test_a_file_is_the_picture_in_it(tmp_path: Path) -> None:
    array = noise(4, 6, 3)
    Image.fromarray(array).save(tmp_path / "picture.png")
    expected = COLOUR(array)
    assert torch.equal(COLOUR(tmp_path / "picture.png"), expected)
    assert torch.equal(COLOUR(str(tmp_path / "picture.png")), expected)
    by_hand = torch.from_numpy(array).permute(2, 0, 1) / 255 - torch.tensor(COLOUR.mean).view(3, 1, 1)
    torch.testing.assert_close(expected, by_hand / torch.tensor(COLOUR.std).view(3, 1, 1))


def test_a_digit_survives_its_picture_to_half_an_8_bit_step() -> None:
    """The digits count in sixteenths, which 8 bits cannot hold: a saved digit differs by at most 1/510."""
    digits = task("digits")
    images = digits.splits["test"].images[:50]
    raw = Transform(size=(8, 8), mean=(0.0,), std=(1.0,))
    again = torch.stack([raw((image[0] * 255).round().to(torch.uint8).numpy()) for image in images])
    error = (again - images).abs().max().item()
    assert 0 < error <= 0.5 / 255 + 1e-7


def test_pixels_undoes_normalise() -> None:
    x = torch.rand(2, 3, 4, 6)
    torch.testing.assert_close(COLOUR.pixels(COLOUR.normalise(x)), x)
    assert COLOUR.pixels(torch.full((3, 4, 6), 100.0)).max() == 1


# what is converted


def test_channels_become_those_of_the_model() -> None:
    grey, colour = noise(8, 8), noise(4, 6, 3)
    assert torch.equal(GREY(np.stack([grey] * 3, axis=2)), GREY(grey))
    x = Transform(size=(8, 8), mean=(0.0,) * 3, std=(1.0,) * 3)(grey)
    assert torch.equal(x[0], x[1])
    assert torch.equal(x[0], GREY(grey)[0])
    opaque = np.concatenate([colour, np.full((4, 6, 1), 255, np.uint8)], axis=2)
    assert torch.equal(COLOUR(opaque), COLOUR(colour))
    assert torch.equal(COLOUR(Image.fromarray(colour).convert("RGBA")), COLOUR(colour))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "LAB"])
def test_every_8_bit_mode_is_taken(mode: str) -> None:
    picture = Image.new(mode, (6, 4)) if mode == "LAB" else Image.fromarray(noise(4, 6, 3)).convert(mode)
    assert COLOUR(picture).shape == (3, 4, 6)


def test_16_bit_grey_keeps_its_shades(tmp_path: Path) -> None:
    array = noise(8, 8)
    Image.fromarray(array.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    assert torch.equal(GREY(tmp_path / "deep.png"), GREY(array))


def test_other_sizes_are_resized() -> None:
    ramp = np.linspace(0, 255, 32).astype(np.uint8)
    x = GREY(np.tile(ramp, (16, 1)))
    assert x.shape == (1, 8, 8)
    assert (x[0, 0].diff() > 0).all()
    assert COLOUR(np.full((100, 3, 3), 51, np.uint8)).shape == (3, 4, 6)


def test_a_photograph_taken_sideways_is_turned(tmp_path: Path) -> None:
    array = noise(8, 8)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees
    Image.fromarray(array).save(tmp_path / "sideways.png", exif=exif)
    expected = GREY(np.rot90(array, -1).copy())
    assert torch.equal(GREY(tmp_path / "sideways.png"), expected)
    with Image.open(tmp_path / "sideways.png") as opened:
        assert torch.equal(GREY(opened), expected)


# what is refused


@pytest.mark.parametrize("shape", [(8,), (8, 8, 2), (8, 8, 5), (1, 8, 8), (2, 8, 8, 3), (0, 8), (8, 0, 3), ()])
def test_arrays_of_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(PrismaError, match=rf"1, 3 or 4 channels; found {re.escape(str(list(shape)))}"):
        GREY(np.zeros(shape, np.uint8))


@pytest.mark.parametrize(
    "array", [noise(8, 8).astype(np.int64), noise(8, 8) * 1.0, -np.ones((8, 8)), np.full((8, 8), np.nan)]
)
def test_arrays_of_other_ranges_are_refused(array: np.ndarray) -> None:
    with pytest.raises(PrismaError, match=rf"uint8 or of floats in \[0, 1\]; found {array.dtype} from "):
        GREY(array)


def cut_png(path: Path) -> None:
    Image.fromarray(noise(64, 64, 3)).save(path, format="png")
    path.write_bytes(path.read_bytes()[:2000])


FILES: dict[str, tuple[Any, str]] = {
    "text": (lambda path: path.write_text("no picture"), "something else"),
    "empty": (lambda path: path.write_bytes(b""), "an empty file"),
    "folder": (lambda path: path.mkdir(), "a folder"),
    "absent": (lambda path: None, "no such file"),
    "cut": (cut_png, "a truncated image: the end of the file is missing"),
    "svg": (lambda path: path.write_text("<svg/>"), r"a vector drawing \(SVG\)"),
    "pointer": (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), "a Git LFS pointer"),
    "pipe": (lambda path: os.mkfifo(path), r"a pipe \(FIFO\)"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "a device"),
    "loop": (lambda path: path.symlink_to(path), "a file that cannot be read"),
    "lost": (lambda path: path.symlink_to("nowhere"), "a link to a file that does not exist"),
}


@pytest.mark.parametrize("kind", FILES)
def test_files_that_are_no_image_are_refused(kind: str, tmp_path: Path) -> None:
    make, found = FILES[kind]
    make(tmp_path / "file")
    with pytest.raises(PrismaError, match=rf"expected an image at .*file; found {found}") as error:
        GREY(tmp_path / "file")
    assert "\n" not in str(error.value)


def test_an_address_is_no_path() -> None:
    with pytest.raises(PrismaError, match=r"found an address: download the image, and give its path"):
        GREY("https://example.org/newt.png")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_transform_is_finite(value: float) -> None:
    for changes in ({"mean": (value,)}, {"std": (value,)}, {"std": (0.0,)}, {"std": (-1.0,)}):
        with pytest.raises(PrismaError, match=r"for 1 or 3 channels \(finite, std positive\)"):
            replace(GREY, **changes)


@pytest.mark.parametrize("thing", [None, 3, b"bytes", torch.zeros(8, 8), ["a.png"]])
def test_other_things_are_refused(thing: Any) -> None:
    with pytest.raises(PrismaError, match=f"a PIL image, an array or a path to an image; found {type(thing).__name__}"):
        GREY(thing)


def png_of(side: int) -> bytes:
    """The start of a grey picture of side x side pixels, as far as it is read before decoding."""
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    data = b"IDAT"
    chunks = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in (header, data, b"IEND")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [6_400, 12_000, 20_000, 2**31 - 1])
def test_enormous_pictures_are_refused_before_they_are_decoded(side: int, tmp_path: Path) -> None:
    assert side * side > MAX_PIXELS
    (tmp_path / "huge.png").write_bytes(png_of(side))
    with pytest.raises(PrismaError, match=r"pixels") as error:
        GREY(tmp_path / "huge.png")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_shades_of_no_known_range_are_refused(mode: str) -> None:
    with pytest.raises(PrismaError, match=f"8 or 16 bits per channel; found mode {mode}"):
        GREY(Image.new(mode, (8, 8)))


def test_as_data() -> None:
    assert Transform.from_dict(COLOUR.to_dict()) == COLOUR
    assert COLOUR.to_dict() == {"size": [4, 6], "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.5]}
    for full in (
        replace(COLOUR, shortest=7, interpolation="lanczos", crop_down=True),
        replace(COLOUR, stretch=(5, 6), interpolation="nearest"),
    ):
        assert Transform.from_dict(json.loads(json.dumps(full.to_dict()))) == full
    assert replace(COLOUR, shortest=7).to_dict() == {**COLOUR.to_dict(), "shortest": 7}


@pytest.mark.parametrize(
    "change",
    [
        {"size": [0, 8]}, {"mean": [0.5, 0.5]}, {"std": [1.0]}, {"std": [0.0, 1.0, 1.0]}, {"mean": [], "std": []},
        {"shortest": 5}, {"stretch": [3, 6]}, {"stretch": [4, 6], "shortest": 6}, {"interpolation": "box"},
    ],
)  # fmt: skip
def test_values_that_do_not_fit_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(PrismaError, match=r"expected a transform with size \[h, w\], mean and std for 1 or 3 channels"):
        Transform.from_dict(COLOUR.to_dict() | change)


@pytest.mark.parametrize(
    "change",
    [
        {"size": 8}, {"size": [8]}, {"size": ["8", 8]}, {"size": [8.5, 8]}, {"size": {"height": 8, "width": 8}},
        {"mean": None}, {"std": None}, {"shortest": 6.0}, {"stretch": 6}, {"interpolation": None}, {"crop_down": 1},
    ],
)  # fmt: skip
def test_values_of_another_type_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(PrismaError, match=f"expected {next(iter(change))} to be .*; found "):
        Transform.from_dict(COLOUR.to_dict() | change)


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(PrismaError, match="the transform has an unknown field 'crop'; the nearest known: crop_down"):
        Transform.from_dict(COLOUR.to_dict() | {"crop": 1})


def test_what_is_transparent_becomes_white() -> None:
    clear = Image.fromarray(np.zeros((2, 2, 4), dtype=np.uint8))
    assert torch.equal(Transform((2, 2), (0.0,), (1.0,))(clear), torch.ones(1, 2, 2))


# the source's own transform on real pictures, whose sides are odd

SHAPES = [(427, 640), (639, 427), (231, 230), (97, 301), (224, 224), (33, 611)]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@cache
def picture(shape: tuple[int, int]) -> Image.Image:
    """A part of a photograph, on its side if it is taller than wide."""
    photograph = pytest.importorskip("sklearn.datasets").load_sample_image("china.jpg")
    if shape[0] > shape[1]:
        photograph = np.rot90(photograph)
    part = photograph[: shape[0], : shape[1]].copy()
    assert part.shape == (*shape, 3)
    return Image.fromarray(part)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "nearest", "lanczos"])
@pytest.mark.parametrize("crop", ["center", "squash"])
def test_equal_to_timm(shape: tuple[int, int], interpolation: str, crop: str) -> None:
    data = pytest.importorskip("timm.data")
    for crop_pct, enlarged in ((0.875, 256), (0.9, 248), (1.0, 224)):
        theirs = data.create_transform(
            (3, 224, 224), interpolation=interpolation, mean=MEAN, std=STD, crop_pct=crop_pct, crop_mode=crop
        )
        whole: dict[str, Any] = {"shortest": enlarged} if crop == "center" else {"stretch": (enlarged, enlarged)}
        ours = Transform((224, 224), MEAN, STD, interpolation=interpolation, **whole)
        torch.testing.assert_close(ours(picture(shape)), theirs(picture(shape)), rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("mode", ["shortest", "squash"])
def test_equal_to_open_clip(shape: tuple[int, int], mode: str) -> None:
    image_transform = pytest.importorskip("open_clip.transform").image_transform
    for interpolation in ("bicubic", "bilinear"):
        theirs = image_transform(224, is_train=False, mean=MEAN, std=STD, resize_mode=mode, interpolation=interpolation)
        ours = Transform((224, 224), MEAN, STD, 224 if mode == "shortest" else None, interpolation=interpolation)
        torch.testing.assert_close(ours(picture(shape)), theirs(picture(shape)), rtol=0, atol=1e-6)


CROP = {"height": 64, "width": 64}
PROCESSORS: Mapping[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "vit": ("ViT", {"size": CROP, "resample": 2}, {"interpolation": "bilinear"}),
    "clip": ("CLIP", {"size": {"shortest_edge": 64}, "crop_size": CROP}, {"shortest": 64, "crop_down": True}),
    "dinov2": (
        "Bit", {"size": {"shortest_edge": 73}, "crop_size": CROP, "resample": 3}, {"shortest": 73, "crop_down": True},
    ),
    "deit": (
        "DeiT", {"size": {"height": 73, "width": 73}, "crop_size": CROP}, {"stretch": (73, 73), "crop_down": True},
    ),
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", PROCESSORS)
def test_equal_to_transformers(shape: tuple[int, int], name: str) -> None:
    """Exactly to those on PIL; those on torchvision resize in 8 bits by another route, at most one shade off."""
    transformers = pytest.importorskip("transformers")
    kind, theirs, ours = PROCESSORS[name]
    mine = Transform((64, 64), (0.5,) * 3, (0.25,) * 3, **ours)(picture(shape))
    for suffix, shades in (("Pil", 0), ("", 1)):
        processor = getattr(transformers, f"{kind}ImageProcessor{suffix}")(
            image_mean=[0.5] * 3, image_std=[0.25] * 3, do_normalize=True, **theirs
        )
        found = processor(picture(shape), return_tensors="pt")["pixel_values"][0]
        torch.testing.assert_close(mine, found, rtol=0, atol=shades / 255 / 0.25 + 1e-5)


def test_another_size_keeps_the_proportions() -> None:
    assert COLOUR.resized((4, 6)) is COLOUR
    assert COLOUR.resized((8, 8)) == replace(COLOUR, size=(8, 8))
    cut = replace(COLOUR, size=(224, 224), shortest=256)
    assert cut.resized((384, 384)) == replace(cut, size=(384, 384), shortest=438)
    assert cut.resized((112, 224)) == replace(cut, size=(112, 224))
    stretched = replace(COLOUR, size=(224, 224), stretch=(256, 248))
    assert stretched.resized((112, 448)) == replace(stretched, size=(112, 448), stretch=(128, 496))
    assert replace(cut, shortest=224).resized((98, 97)).shortest == 98


def test_a_ribbon_is_not_blown_up_without_bound() -> None:
    ribbon = Image.new("RGB", (40_000, 1))
    with pytest.raises(PrismaError, match=r"differ less; found 40,000 x 1, which becomes 8,960,000 x 224 when"):
        Transform((224, 224), MEAN, STD, shortest=224)(ribbon)


def test_bytes_floats_and_black_and_white_are_the_same_pixels() -> None:
    pixels = torch.tensor([[[[0, 255], [255, 0]]]], dtype=torch.uint8)
    transform = Transform(size=(2, 2), mean=(0.5,), std=(0.25,))
    for same in (pixels, pixels == 255, pixels.float() / 255):
        assert torch.equal(as_bytes(same), pixels)
        assert torch.equal(transform.normalise(same), torch.tensor([[[[-2.0, 2.0], [2.0, -2.0]]]]))
    grey = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    assert torch.equal(as_bytes(as_floats(grey)), grey) and as_floats(grey).dtype == torch.float32
