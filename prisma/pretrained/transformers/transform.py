"""The `Transform` that does what an image processor of transformers does."""

from typing import Any

from prisma.data.transform import Transform

INTERPOLATIONS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}
"""PIL's number of an interpolation -> our name."""

WARPED = 384  # pixels of a side from which ConvNeXt's processor cuts nothing, and does not keep proportions

Sides = tuple[int, int]


def transform_of(processor: Any, channels: int) -> Transform | None:
    """The transform of a processor for one image or frame; None if no `Transform` does the same.

    It equals processors that use PIL exactly. Processors that use torchvision resize a tensor, and differ by one or two
    of 256 grey levels: they round to 8 bits as PIL does, or (DINOv3) use floats, which may leave [0, 1] at sharp edges,
    where ours are clipped.
    """
    resample = getattr(processor, "resample", None)
    sizes = _sizes(processor)
    if sizes is None or resample is None or int(resample) not in INTERPOLATIONS:
        return None
    mean, std = (tuple(getattr(processor, f"image_{name}", None) or ()) for name in ("mean", "std"))
    if not getattr(processor, "do_normalize", False):
        mean, std = (0.0,) * channels, (1.0,) * channels
    if not len(mean) == len(std) == channels or channels not in (1, 3):
        return None
    white, black = _range(processor)
    size, shortest, stretch = sizes
    return Transform(
        size=size,
        mean=mean if (black, white) == (0, 1) else tuple((x - black) / (white - black) for x in mean),
        std=std if (black, white) == (0, 1) else tuple(x / (white - black) for x in std),
        shortest=shortest,
        stretch=stretch,
        interpolation=INTERPOLATIONS[int(resample)],
        crop_down=bool(shortest or stretch),
    )


def _range(processor: Any) -> tuple[float, float]:
    """The values of white and black before they are normalised."""
    if not getattr(processor, "do_rescale", False):
        return 255.0, 0.0
    white = 255 * float(processor.rescale_factor)
    white = 1.0 if abs(white - 1) < 1e-6 else white
    return (white - 1, -1.0) if getattr(processor, "offset", False) else (white, 0.0)


def _sizes(processor: Any) -> tuple[Sides, int | None, Sides | None] | None:
    """(size, shortest, stretch) of `Transform`; None if the processor pads, or has no fixed output size."""
    size, crop = getattr(processor, "size", None), getattr(processor, "crop_size", None)
    if size is None or not getattr(processor, "do_resize", False) or getattr(processor, "do_pad", False):
        return None
    if (share := getattr(processor, "crop_pct", None)) is not None:
        return _convnext(_named(size, "shortest_edge"), float(share))
    whole, shortest = _sides(size), _named(size, "shortest_edge")
    cut = _sides(crop) if getattr(processor, "do_center_crop", False) and crop is not None else whole
    if cut is None or _named(size, "longest_edge") is not None:
        return None
    if whole is not None:
        fits = whole[0] >= cut[0] and whole[1] >= cut[1]
        return (cut, None, None if whole == cut else whole) if fits else None
    return (cut, shortest, None) if shortest is not None and shortest >= max(cut) else None


def _convnext(side: int | None, share: float) -> tuple[Sides, int | None, Sides | None] | None:
    """Of the processors of ConvNeXt and ResNet: the centre, this share of a side; of large images, the whole."""
    if side is None or not 0 < share <= 1:
        return None
    return (side, side), int(side / share) if side < WARPED else None, None


def _sides(size: Any) -> Sides | None:
    height, width = _named(size, "height"), _named(size, "width")
    return None if height is None or width is None else (height, width)


def _named(size: Any, name: str) -> int | None:
    value = size.get(name) if isinstance(size, dict) else getattr(size, name, None)
    return None if value is None else int(value)
