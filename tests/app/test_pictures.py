"""Images that an address names: decoded within bounds, drawn, or changed in some patches."""

import base64
import io
import resource
import zlib
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from prisma_app import pictures
from prisma_app.library import Library
from prisma_app.pictures import decoded, keep_upload
from prisma_app.subject import Subject

from prisma import PrismaError
from prisma.analysis.patching.corruptions import blur, patch_pixels
from tests.app.conftest import DIGITS


@pytest.fixture(scope="module")
def mouse(library: Library) -> Subject:
    return library.subject(DIGITS, None)


def peak_memory() -> int:
    """The most bytes that this process has held at once."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def saved(image: Image.Image, kind: str = "PNG", **how: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **how)  # type: ignore[arg-type]
    return buffer.getvalue()


def png(width: int, height: int, bits: int, kind: int, compressed: bytes) -> bytes:
    """A PNG file with a header of any size, whatever its data."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")

    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([bits, kind, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", compressed) + chunk(b"IEND", b"")


PNG, JPEG, GIF = (saved(Image.effect_noise((20, 20), 90), kind) for kind in ("PNG", "JPEG", "GIF"))
PARTS = "an image file of at most 10,000 parts; found more"


@pytest.mark.parametrize(
    ("file", "sentence"),  # a large file is made when its test runs, not whenever this module is read
    [
        (png(39_000_000, 1, 1, 0, b""), r"at most 12,000 pixels a side, .* found 39,000,000 x 1"),
        (png(6250, 6250, 16, 6, b""), "at most 80 MB once decoded; found 6,250 x 6,250"),
        (png(100_000, 100_000, 1, 0, b""), "expected an image"),
        (png(5000, 100, 8, 2, b""), "the longer at most 20 times the shorter; found 5,000 x 100"),
        (png(60, 60, 8, 2, b"nonsense"), "a damaged PNG file"),
        (b"no picture", r"expected an image file .PNG, JPEG"),
        (b"", "expected an image file"),
        (b"<svg onload=alert(1)>", "expected an image file"),
        (saved(Image.new("RGB", (30, 30)), "TIFF"), "expected an image file"),
        (lambda: bytes(pictures.MOST_BYTES + 1), "of at most 8 MB; found 8.0 MB"),
        (saved(Image.effect_noise((90, 90), 90))[:900], "a damaged PNG file"),
        (
            lambda: saved(Image.new("RGB", (7000, 6000)), "JPEG", quality=5, progressive=True),
            "7,000 x 6,000 pixels, 120 MB",
        ),
        (lambda: saved(Image.new("RGB", (3000, 3000)), "WEBP", method=0), "3,000 x 3,000 pixels, 102 MB"),
        (png(5000, 5000, 8, 6, b""), "5,000 x 5,000 pixels, 190 MB"),
        (lambda: saved(Image.new("P", (6000, 6000)), "BMP")[:3000], "6,000 x 6,000 pixels, 102 MB"),
        (PNG[:33] + (bytes(4) + b"aaAa" + zlib.crc32(b"aaAa").to_bytes(4, "big")) * 20_000 + PNG[33:], PARTS),
        (JPEG[:2] + b"\xff\xfe\0\2" * 20_000 + JPEG[2:], PARTS),
        (GIF[:13] + b"!\xfe" + (b"\xff" + b"a" * 255) * 20_000 + b"\0" + GIF[13:], PARTS),
    ],
)
def test_files_that_are_refused_and_what_that_costs(file: bytes | Callable[[], bytes], sentence: str) -> None:
    data = file() if callable(file) else file
    before = peak_memory()
    with pytest.raises(PrismaError, match=sentence):
        decoded(data)
    assert peak_memory() - before < 32 * 2**20


def test_a_large_photograph_is_made_smaller_while_it_is_decoded() -> None:
    photograph = saved(Image.effect_noise((6000, 4000), 20).convert("RGB"), "JPEG", quality=20)
    before = peak_memory()
    assert decoded(photograph).pixels.shape == (512, 768, 3)
    assert peak_memory() - before < 60 * 2**20


def test_pictures_of_every_mode_are_upright_and_of_three_channels() -> None:
    for mode in ("1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "I;16"):
        kind = "JPEG" if mode == "CMYK" else "PNG"
        image = Image.fromarray(np.full((20, 30), 65535, np.uint16)) if mode == "I;16" else Image.new(mode, (30, 20))
        assert decoded(saved(image, kind)).pixels.shape == (20, 30, 3), mode
    turned = Image.new("RGB", (30, 20))
    exif = turned.getexif()
    exif[0x0112] = 6
    assert decoded(saved(turned, "JPEG", exif=exif)).pixels.shape == (30, 20, 3)
    white = decoded(saved(Image.new("RGBA", (4, 4), (0, 0, 0, 0)))).pixels
    assert white.min() == 255


def test_an_upload_is_what_the_transform_makes_of_it(mouse: Subject) -> None:
    image = Image.effect_noise((40, 30), 90)
    name = keep_upload(saved(image))
    picture = mouse.picture(name)
    transform = mouse.final.transform
    assert transform is not None
    assert torch.equal(picture.x, transform(image)) and picture.img == name
    with pytest.raises(PrismaError, match=r"uploads are not kept\. Upload the same file again"):
        mouse.picture("sha256:" + 32 * "0")


def test_of_several_frames_the_first_is_shown_and_said(mouse: Subject) -> None:
    first, *rest = (Image.new("RGB", (9, 9), (i * 80, 0, 0)) for i in range(3))
    picture = mouse.picture(keep_upload(saved(first, "GIF", save_all=True, append_images=rest)))
    assert picture.caption == "Your image, the first of its frames"
    transform = mouse.final.transform
    assert transform is not None
    assert torch.equal(picture.x, transform(first))


def test_uploads_go_within_a_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures.UPLOADS, "budget", 40 * 40 * 3)
    first = keep_upload(saved(Image.new("RGB", (30, 30))))
    second = keep_upload(saved(Image.new("RGB", (31, 30))))
    assert pictures.UPLOADS.find(first) is None and pictures.UPLOADS.find(second) is not None


def test_a_drawing_is_in_its_address(mouse: Subject) -> None:
    levels = np.zeros((8, 8), dtype=np.uint8)
    levels[:, 4:] = 15
    packed = (levels.reshape(-1)[::2] << 4) | levels.reshape(-1)[1::2]
    name = "ink:8:" + base64.urlsafe_b64encode(packed.tobytes()).decode().rstrip("=")
    transform = mouse.final.transform
    assert transform is not None
    assert torch.equal(mouse.picture(name).x, transform(levels * 17))


@pytest.mark.parametrize(
    "name", ["ink:", "ink:8:", "ink:0:", "ink:99:AAAA", "ink:8:!!", f"ink:8:{'A' * 500}", "ink:²:AA"]
)
def test_other_drawings_are_refused(mouse: Subject, name: str) -> None:
    with pytest.raises(PrismaError, match=r"expected a drawing as ink:SIDE:BASE64"):
        mouse.picture(name)


def test_changed_patches_are_those_listed_and_no_others(mouse: Subject) -> None:
    clean = mouse.picture("3")
    config = mouse.final.config
    chosen = torch.zeros(1, config.n_patches, dtype=torch.bool)
    chosen[0, [1, 5]] = True
    where = patch_pixels(chosen, config)
    found = mouse.corrupt_picture("blur:5,1", clean)
    assert torch.equal(found.x, blur(clean.x[None], where)[0])
    assert found.caption == "Test image 3, labelled 3, 2 of 16 patches blurred"
    for kind in ("noise", "mean", "blur"):
        whole, part = (mouse.corrupt_picture(f"{kind}:{listed}", clean).x for listed in ("", "1,5"))
        assert torch.equal(part[:, where[0]], whole[:, where[0]]), kind
        assert torch.equal(part[:, ~where[0]], clean.x[:, ~where[0]])
        assert not torch.equal(part, clean.x)
    mean = mouse.corrupt_picture("mean:", clean).x
    assert torch.allclose(mean, clean.x.mean((-2, -1), keepdim=True).expand_as(mean))


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("blur:16", "expected patches from 0 to 15; found 16"),
        ("blur:a", "expected patches as numbers with commas between them"),
        ("blur:1,,2", "expected patches as numbers"),
        ("swap:1", "expected an image by number, or one of blur, noise, mean; found 'swap'"),
        ("3", "found the same image"),
        ("20", "expected an example from 0 to 19; found '20'"),
        ("-1", "expected an example"),
    ],
)
def test_other_corruptions_are_refused(mouse: Subject, name: str, sentence: str) -> None:
    with pytest.raises(PrismaError, match=sentence):
        mouse.corrupt_picture(name, mouse.picture("3"))


def test_the_other_image_of_a_pair_has_another_label(mouse: Subject) -> None:
    for img in ("0", "7", "ink:1:AA"):
        clean = mouse.picture(img)
        assert mouse.corrupt_picture(None, clean).label != clean.label


def test_what_a_jpeg_holds_at_once() -> None:
    """All coefficients, where its colours come one after the other, also if it is not progressive."""
    assert pictures._components_of_first_scan(JPEG) == 1
    colours = saved(Image.new("RGB", (40, 40)), "JPEG")
    assert pictures._components_of_first_scan(colours) == 3
    start = colours.index(b"\xff\xda")
    several = colours[:2] + b"\xff\xfe\0\x08\xff\xda\0\x0c\3\1" + colours[2:start] + b"\xff\xff" + colours[start:]
    several = several.replace(b"\xff\xda\0\x0c\3\1\0", b"\xff\xda\0\x08\1\1\0")  # not the comment before
    assert pictures._components_of_first_scan(several) == 1
    with Image.open(io.BytesIO(several)) as picture:
        assert pictures._bits(picture, several) == 24  # two halved colours of 16 bits a coefficient
        assert pictures._bits(picture, colours) == 32


def test_a_large_picture_of_16_bits() -> None:
    levels = np.repeat(np.linspace(0, 65535, 1600).astype(np.uint16)[None], 900, 0)
    found = decoded(saved(Image.fromarray(levels))).pixels
    assert found.shape == (432, 768, 3) and np.abs(found[5, :, 0] - np.linspace(0, 255, 768)).max() < 1.5


@pytest.mark.parametrize("frames", [1, 2])
@pytest.mark.parametrize("mode", ["P", "L", "RGB"])
def test_frames_of_a_gif_are_found_without_decoding_them(frames: int, mode: str) -> None:
    made = [Image.effect_noise((90, 60), 90 + i).convert(mode) for i in range(frames)]
    file = saved(made[0], "GIF", save_all=True, append_images=made[1:], comment=b"x" * 600, loop=0)
    assert decoded(file).animated is (frames > 1)
