"""The images that a state names: an example, an upload, a drawing, or the clean image with patches changed.

`7`                      example 7 of the model
`sha256:1f3a...`         an upload, which is in memory for a while and nowhere else
`ink:SIDE:BASE64`        a drawing of SIDE x SIDE pixels, 4 bits each, in the address itself
`blur:`, `noise:`, `mean:`   (only `corrupt`) the clean image changed everywhere, or in the patches listed: `blur:0,1,7`
"""

import base64
import binascii
import hashlib
import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from warnings import catch_warnings

import numpy as np
import torch
from torch import Tensor

from prisma.analysis.patching.corruptions import blur, gaussian_noise, mean_image, patch_pixels
from prisma.config import ViTConfig
from prisma.errors import PrismaError, quoted
from prisma.loaded import Loaded
from prisma_app.cache import Cache

JPEGS = ("JPEG", "MPO")  # the second has several
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
MOST_BYTES = 8 * 2**20  # of an uploaded file
MOST_SIDE, MOST_ASPECT, MOST_DECODED = 12_000, 20, 80 * 2**20  # pixels; longer over shorter side; bytes
MOST_READS = 10_000  # of a file while it is decoded: a small file may have a million comments, which take minutes
KEPT_SIDE = 768  # pixels of the longer side of what is kept of an upload
INK_SIDES = range(1, 65)


@dataclass(frozen=True)
class Upload:
    """What is kept of an uploaded file."""

    pixels: np.ndarray  # [height, width, 3]
    animated: bool  # the file has more frames; the first is shown


UPLOADS: Cache[Upload] = Cache(64 * 2**20, lambda upload: upload.pixels.nbytes)
CHANGES: Mapping[str, str] = {"blur": "blurred", "noise": "with noise", "mean": "replaced by their mean"}


@dataclass(frozen=True, eq=False)
class Picture:
    """An image as model input."""

    caption: str
    x: Tensor  # [channel, height, width], normalised
    img: str  # how an address names it
    label: int | None = None  # its class, if it is known


def keep_upload(data: bytes) -> str:
    """Decode an uploaded file, keep it for a while, and return the name by which an address means it.

    Raises:
        PrismaError: not an image of `FORMATS`, or one that is too large, too long, or damaged.
    """
    name = f"sha256:{hashlib.sha256(data).hexdigest()[:32]}"
    UPLOADS.put(name, decoded(data))
    return name


def decoded(data: bytes) -> Upload:
    """The first frame of an image file, no longer than KEPT_SIDE. Sizes are checked before decoding.

    Raises:
        PrismaError: see `keep_upload`.
    """
    from PIL import Image, ImageOps

    if len(data) > MOST_BYTES:
        raise PrismaError(f"expected an image file of at most {MOST_BYTES >> 20} MB; found {len(data) / 2**20:.1f} MB")
    file = _File(data)
    try:
        with catch_warnings(action="ignore"):
            picture = Image.open(file, formats=FORMATS)
    except Exception:  # of any kind: the bytes of a file decide what the parser does
        file.expect_few_reads()
        raise PrismaError(f"expected an image file ({', '.join(FORMATS)}); found something else") from None
    with picture:
        _expect_small(picture, data)
        try:
            if picture.format in JPEGS:
                picture.draft("RGB", (KEPT_SIDE, KEPT_SIDE))  # decoded at a half, quarter or eighth of its size
            gap = None if picture.mode.startswith("I;16") else 2.0  # which Pillow has no quick way for
            animated = _is_animated(picture, data)
            picture.thumbnail((KEPT_SIDE, KEPT_SIDE), reducing_gap=gap)
            upright = ImageOps.exif_transpose(picture)
            if upright.mode.startswith("I;16"):  # convert() would clip it
                upright = Image.fromarray((np.asarray(upright) // 257).astype(np.uint8))
            if upright.has_transparency_data:
                upright = upright.convert("RGBA")
                upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright)
            return Upload(np.array(upright.convert("RGB")), animated)
        except Exception as error:
            file.expect_few_reads()
            raise PrismaError(
                f"expected an image that can be decoded; found a damaged {picture.format} file ({type(error).__name__})"
            ) from None


class _File(io.BytesIO):
    """A file that ends its decoder after `MOST_READS`."""

    reads = 0

    def read(self, size: int | None = -1, /) -> bytes:
        """Some bytes, while there are not too many reads."""
        self.reads += 1
        if self.reads > MOST_READS:
            raise OSError
        return super().read(size)

    def expect_few_reads(self) -> None:
        """Raises PrismaError if there were too many."""
        if self.reads > MOST_READS:
            raise PrismaError(f"expected an image file of at most {MOST_READS:,} parts; found more: save it anew")


def _is_animated(picture: Any, data: bytes) -> bool:
    """Whether there are more frames. Pillow would decode a GIF to know it."""
    if picture.format != "GIF":
        return bool(getattr(picture, "is_animated", False))
    frames, at = 0, 13 + _colours(data[10])
    while frames < 2 and at + 9 < len(data) and data[at] in b"!,":
        frames += data[at] == ord(",")
        at += 2 if data[at] == ord("!") else 11 + _colours(data[at + 9])
        while at < len(data) and data[at]:
            at += 1 + data[at]
        at += 1
    return frames > 1


def _colours(flags: int) -> int:
    """The bytes of a table of colours in a GIF."""
    return 3 * 2 ** (flags % 8 + 1) if flags & 0x80 else 0


def _expect_small(picture: Any, data: bytes) -> None:
    width, height = picture.size
    if max(width, height) > MOST_SIDE or max(width, height) > MOST_ASPECT * min(width, height):
        raise PrismaError(
            f"expected an image of at most {MOST_SIDE:,} pixels a side, the longer at most {MOST_ASPECT} times the "
            f"shorter; found {width:,} x {height:,}"
        )
    size = int(width * height * _bits(picture, data)) // 8
    if size > MOST_DECODED:
        raise PrismaError(
            f"expected an image of at most {MOST_DECODED >> 20} MB once decoded; found {width:,} x {height:,} pixels, "
            f"{size >> 20} MB: make it smaller first"
        )


def _bits(picture: Any, data: bytes) -> float:
    """What the decoder of a picture's format holds at once, for each pixel."""
    # A colour takes four bytes, and where it may be transparent, there is a copy while the picture is made smaller.
    bits = {"1": 8, "L": 8, "P": 8, "I;16": 16, "I;16B": 16, "LA": 64, "RGBA": 64}.get(picture.mode, 32)
    if picture.format == "WEBP":
        return 96  # two canvases with transparency, and the picture
    if picture.format == "BMP":
        return 3 * bits  # runs of equal pixels become bytes, a copy of these, and the picture
    if picture.format not in JPEGS:
        return bits
    layers = [across * down for _, across, down, _ in picture.layer]
    if picture.info.get("progressive") or _components_of_first_scan(data) < len(layers):
        return 16 * sum(layers) / max(layers)  # all coefficients, before the first pixel is known
    return bits / 16 if max(picture.size) > 4 * KEPT_SIDE else bits


def _components_of_first_scan(data: bytes) -> int:
    """Of a JPEG file: its colours come one after the other where the first scan has fewer of them than the picture."""
    at = 2
    while at + 5 < len(data):
        marker = data[at + 1]
        if data[at] != 0xFF or marker == 0xFF:
            at += 1
        elif marker == 0xDA:
            return data[at + 4]
        else:
            alone = marker in (0x00, 0x01) or 0xD0 <= marker <= 0xD8
            at += 2 if alone else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return 0


def uploaded(name: str, loaded: Loaded) -> Picture:
    """An upload as model input.

    Raises:
        PrismaError: it is no longer, or never was, in memory here.
    """
    upload = UPLOADS.find(name)
    if upload is None:
        raise PrismaError(
            "expected the image of this link to be here; found none: it was uploaded by a visitor, and uploads are not "
            "kept. Upload the same file again to see the same figure"
        )
    caption = "Your image, the first of its frames" if upload.animated else "Your image"
    return Picture(caption, transform_of(loaded)(upload.pixels), name)


def drawing(name: str, loaded: Loaded) -> Picture:
    """A drawing, white on black, as model input. Raises PrismaError on anything else."""
    side, levels = ink_levels(name)
    pixels = np.array([17 * int(level, 16) for level in levels], np.uint8).reshape(side, side)
    return Picture("Your drawing", transform_of(loaded)(pixels), name)


def ink_levels(name: str) -> tuple[int, str]:
    """The side of a drawing, and its pixels row by row, each a hex digit from 0 to f. Raises PrismaError for others."""
    match = re.fullmatch(r"ink:([0-9]{1,2}):([A-Za-z0-9_-]*)", name)
    side = int(match[1]) if match else 0
    try:
        raw = base64.urlsafe_b64decode(match[2] + "=" * (-len(match[2]) % 4)) if match else b""
    except binascii.Error:
        raw = b""
    if side not in INK_SIDES or len(raw) != -(-side * side // 2):
        raise PrismaError(f"expected a drawing as ink:SIDE:BASE64, 4 bits for each pixel; found {quoted(name, 40)}")
    return side, raw.hex()[: side * side]


def changed(name: str, clean: Picture, config: ViTConfig) -> Picture:
    """The clean image blurred, with noise, or replaced by its mean, in all patches or in those listed.

    Raises:
        PrismaError: another change, or a patch that the model does not have.
    """
    kind, _, listed = name.partition(":")
    patches = _patches(listed, config)
    where = _mask(patches, config)
    how: Mapping[str, Callable[[Tensor], Tensor]] = {
        "blur": lambda x: blur(x, where),
        "noise": lambda x: gaussian_noise(x, where),
        "mean": lambda x: mean_image(x, where, reference=x.mean((-2, -1), keepdim=True).expand_as(x)),
    }
    if kind not in how:
        raise PrismaError(f"expected an image by number, or one of {', '.join(how)}; found {quoted(kind, 40)}")
    part = f"{len(patches)} of {config.n_patches} patches" if patches else "all patches"
    return Picture(f"{clean.caption}, {part} {CHANGES[kind]}", how[kind](clean.x[None])[0], name, clean.label)


def _patches(listed: str, config: ViTConfig) -> list[int]:
    if not re.fullmatch(r"([0-9]{1,5}(,[0-9]{1,5})*)?", listed):
        raise PrismaError(f"expected patches as numbers with commas between them; found {quoted(listed, 40)}")
    patches = sorted({int(text) for text in listed.split(",") if text})
    if patches and patches[-1] >= config.n_patches:
        raise PrismaError(f"expected patches from 0 to {config.n_patches - 1}; found {patches[-1]}")
    return patches


def _mask(patches: list[int], config: ViTConfig) -> Tensor | None:
    """Where pixels change; None for everywhere."""
    if not patches:
        return None
    chosen = torch.zeros(1, config.n_patches, dtype=torch.bool)
    chosen[0, patches] = True
    return patch_pixels(chosen, config)


def transform_of(loaded: Loaded) -> Any:
    """The preprocessing of a model. Raises PrismaError if Prisma cannot reproduce it."""
    if loaded.transform is None:
        raise PrismaError("this model's files do not specify a preprocessing that Prisma can reproduce")
    return loaded.transform
