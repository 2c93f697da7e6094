"""Pictures of a folder and of a task: in order, as the model takes them, and what cannot be read is named."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from prisma import PrismaError
from prisma.data import task
from prisma.data.pictures import Pictures, no_pictures, pictures
from prisma.data.transform import Transform

SQUARE = Transform(size=(8, 8), mean=(0.5,) * 3, std=(0.5,) * 3)
SHAPE = (3, 8, 8)


def colour(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8, 3), value, dtype=np.uint8)).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures, one of them below; and files that are none."""
    for value, name in enumerate(("b.png", "a.BMP", "below/c.webp")):
        colour(tmp_path / name, value)
    (tmp_path / "readme.txt").write_text("not a picture")
    (tmp_path / "._b.png").write_bytes(b"what another system leaves behind")
    (tmp_path / "below" / "empty.png").mkdir()
    return tmp_path


def of(folder: Path, first: int | None = None) -> Pictures:
    return pictures(folder, SQUARE, SHAPE, first)


def test_a_folder_is_read_in_order(folder: Path) -> None:
    found = of(folder)
    assert found.names == ("a.BMP", "b.png", "below/c.webp")
    assert found.masks is None
    expected = torch.stack([SQUARE(folder / name) for name in found.names])
    assert torch.equal(found.read(range(3)), expected)
    assert torch.equal(found.read([2, 0]), expected[[2, 0]])
    assert torch.equal(found.reference, expected)
    assert of(folder, first=2).names == found.names[:2]


def test_the_hash_sees_what_changes(folder: Path) -> None:
    before = of(folder).sha256
    assert of(folder).sha256 == before
    assert of(folder, first=2).sha256 != before
    time = (folder / "b.png").stat().st_mtime_ns
    os.utime(folder / "b.png", ns=(time, time + 1))
    changed = of(folder).sha256
    assert changed != before
    (folder / "b.png").rename(folder / "d.png")
    assert of(folder).sha256 != changed


def test_unreadable_pictures_are_named_before_any_work(folder: Path) -> None:
    (folder / "a.BMP").write_bytes(b"no picture")
    with pytest.raises(PrismaError, match=r"expected an image at .*a\.BMP; found something else"):
        of(folder)
    for name in ("e.png", "f.jpg", "g.gif", "h.tif"):
        (folder / name).write_bytes(b"")
    with pytest.raises(PrismaError, match=r"5 pictures cannot be read: a\.BMP, e\.png, f\.jpg and 2 more$"):
        of(folder)


def test_a_picture_that_breaks_off_is_named_when_it_is_read(folder: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "b.png")
    os.truncate(folder / "b.png", 2000)
    found = of(folder)
    assert len(found.read([0])) == 1
    with pytest.raises(PrismaError, match=r"b\.png"):
        found.read(range(3))


@pytest.mark.parametrize("name", ["digits", "sprites"])
def test_a_task_gives_its_test_images(name: str) -> None:
    data = task(name)
    images, _ = data.inputs("test", 5)
    found = pictures(name, data.transform, tuple(images.shape[1:]), 5)
    assert len(found) == 5 and found.sha256 == data.sha256
    assert torch.equal(found.read([1, 4]), images[[1, 4]])
    assert (found.masks is None) == (name == "digits")
    if found.masks is not None:
        assert torch.equal(found.masks, data.splits["test"].masks[:5])


def test_a_task_is_seen_as_the_model_sees(folder: Path) -> None:
    other = Transform(size=(8, 8), mean=(0.0,), std=(2.0,))
    found = pictures("digits", other, (1, 8, 8), 3)
    assert torch.equal(found.read(range(3)), task("digits").splits["test"].images[:3] / 2)


@pytest.mark.parametrize(
    ("ref", "shape", "sentence"),
    [
        ("digts", SHAPE, "found 'digts', the nearest task: digits"),
        ("digits", (1, 28, 28), r"expected images \[1, 28, 28\], .* found \[1, 8, 8\] in the task digits"),
        ("digits", (1, 2, 8, 8), "found a model of video"),
        (".", SHAPE, "expected pictures in .*; found none"),
    ],
)
def test_what_is_no_data_set_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ref: str, shape: tuple[int, ...], sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PrismaError, match=sentence):
        pictures(ref, SQUARE, shape)


def test_a_model_without_a_transform_takes_no_folder(folder: Path) -> None:
    with pytest.raises(PrismaError, match=r"expected a model with a transform, .* that Prisma cannot reproduce"):
        pictures(folder, None, SHAPE)


def stored(path: Path, kind: str) -> None:
    """A picture whose left half is red and whose right half is black, in the given form."""
    picture = Image.new("RGB", (8, 8))
    picture.paste((255, 0, 0), (0, 0, 4, 8))
    if kind == "CMYK":
        picture.convert("CMYK").save(path, "TIFF")
    elif kind == "palette":
        picture.convert("P", palette=Image.Palette.ADAPTIVE).save(path, "PNG")
    elif kind == "animated":
        picture.save(path, "GIF", save_all=True, append_images=[Image.new("RGB", (8, 8), "blue")])
    elif kind == "turned":  # the camera was held so that the picture must be turned by 90 degrees
        exif = Image.Exif()
        exif[0x0112] = 6
        picture.transpose(Image.Transpose.ROTATE_90).save(path, "PNG", exif=exif)
    elif kind == "transparent":  # what is transparent is white; here the right half is opaque
        picture.convert("RGBA").save(path, "PNG")


@pytest.mark.parametrize("kind", ["CMYK", "palette", "animated", "turned", "transparent"])
def test_every_form_of_a_picture_has_its_colours(kind: str, tmp_path: Path) -> None:
    stored(tmp_path / "picture", kind)
    identity = Transform(size=(8, 8), mean=(0.0,) * 3, std=(1.0,) * 3)
    (pixels,) = pictures(tmp_path, identity, SHAPE).read([0])
    expected = torch.zeros(3, 8, 8)
    expected[0, :, :4] = 1
    assert torch.allclose(pixels, expected, atol=0.01)


def test_sixteen_bits_keep_their_range(tmp_path: Path) -> None:
    grey = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    identity = Transform(size=(8, 8), mean=(0.0,) * 3, std=(1.0,) * 3)
    (pixels,) = pictures(tmp_path, identity, SHAPE).read([0])
    assert (pixels - torch.from_numpy(grey / 65535)).abs().max() < 0.003


def test_subfolders_that_are_classes_are_labels(tmp_path: Path) -> None:
    for value, name in enumerate(("b/1.png", "a/2.png", "b/3.png")):
        colour(tmp_path / name, value)

    def labels(*classes: str, first: int | None = None) -> list[int] | None:
        found = pictures(tmp_path, SQUARE, SHAPE, first, classes).labels
        return None if found is None else found.tolist()

    assert labels("b", "c", "a") == [2, 0, 0]  # sorted by path: a/2, b/1, b/3
    assert labels("b", "c", "a", first=2) == [2, 0]
    assert labels("n01", "n02", first=1) == [0]
    assert labels("x", "y", "z") is None and labels() is None
    colour(tmp_path / "4.png", 4)
    assert labels("b", "a") is None
    assert no_pictures().labels is None
    with pytest.raises(PrismaError, match="expected pictures; found none"):
        no_pictures().read([0])


def test_a_task_has_labels_and_training_images() -> None:
    digits = task("digits")
    found = pictures("digits", None, (1, 8, 8), 5)
    assert found.labels is not None and found.training is not None
    assert torch.equal(found.labels, digits.splits["test"].labels[:5])
    for x, expected in zip(found.training(3), digits.inputs("train", 3), strict=True):
        assert torch.equal(x, expected)


def test_another_model_reads_the_same_pictures_in_its_own_way(folder: Path) -> None:
    larger = Transform(size=(16, 16), mean=(0.0,) * 3, std=(1.0,) * 3)
    seen = of(folder, 2).for_model(larger, (3, 16, 16))
    assert seen.names == of(folder, 2).names and seen.sha256 == of(folder, 2).sha256
    assert torch.equal(seen.read([1]), pictures(folder, larger, (3, 16, 16), 2).read([1]))
    digits = pictures("digits", None, (1, 8, 8), 4)
    alike = digits.for_model(None, (1, 8, 8))
    assert len(alike) == 4 and torch.equal(alike.read([3, 0]), digits.read([3, 0]))
    seen, images = digits.for_model(larger, (3, 16, 16)), task("digits").splits["test"].images
    assert (
        seen.names == digits.names
        and seen.labels is not None
        and torch.equal(seen.labels, task("digits").splits["test"].labels[:4])
    )
    assert torch.equal(seen.read([3, 0]), torch.stack([larger(images[i, 0].numpy()) for i in (3, 0)]))
    with pytest.raises(PrismaError, match=r"expected images \[3, 16, 16\]"):
        digits.for_model(None, (3, 16, 16))
    with pytest.raises(PrismaError, match="expected pictures of a folder or a task"):
        no_pictures().for_model(larger, (3, 16, 16))
