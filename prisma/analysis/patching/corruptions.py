"""Corrupted images: an image with something taken away, to see which part of it the model needs.

Each corruption is a pure function of images [image, channel, (frame,) height, width], normalised as the model takes
them, and of the pixels to corrupt: `where`, boolean [image, (frame,) height, width], or None for all pixels.
`patch_pixels` makes it from patches. Random numbers depend on `seed` alone and not on the device: they are drawn on the
CPU in float32.

Sources: Meng et al. 2202.05262 (noise); Zhang & Nanda 2309.16042 (what the choice of corruption does to the result);
Hase et al. 2106.00786 and Fong & Vedaldi 1704.03296 (blur, mean, noise in place of an object); Żukowska et al.
2604.14477 (the object inpainted).

Shapes: B image, C channel, F frame, H height, W width, P patch, K tap of a filter.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from einops import repeat
from torch import Tensor

from prisma.analysis.patching.inpainting import inpainted
from prisma.config import ViTConfig
from prisma.errors import NotFiniteError, PrismaError
from prisma.fields import conform
from prisma.numbers import exact, first_not_finite


def gaussian_noise(images: Tensor, where: Tensor | None = None, *, sigma: float = 3.0, seed: int = 0) -> Tensor:
    """Add Gaussian noise whose standard deviation is `sigma` times that of the image's own pixel values.

    Raises:
        PrismaError: `sigma` is negative; as for all corruptions, images or `where` have another shape or type.
    """
    sigma = conform("sigma", sigma, float)
    if not 0 <= sigma < torch.inf:
        raise PrismaError(f"expected sigma to be at least 0; found {sigma}")
    noise = _normal(images, seed) * (sigma * _std(images))
    return _replaced(images, where, images + noise)


def blur(images: Tensor, where: Tensor | None = None, *, sigma: float = 4.0) -> Tensor:
    """Blur each channel and frame with a Gaussian of `sigma` pixels, cut at 4 sigma; edge pixels repeat outside.

    Raises:
        PrismaError: `sigma` is not above 0.
    """
    sigma = conform("sigma", sigma, float)
    if not 0 < sigma < torch.inf:
        raise PrismaError(f"expected sigma to be above 0 pixels; found {sigma}")
    radius = int(4 * sigma + 0.5)
    at_K = torch.arange(-radius, radius + 1, device=images.device, dtype=torch.float64)
    weights_K = torch.exp(-0.5 * (at_K / sigma) ** 2)
    weights_K = weights_K / weights_K.sum()
    x = _expect_images(images).double().flatten(0, -3)[:, None]  # one picture per row; devices sum in another order
    x = F.conv2d(F.pad(x, (radius, radius, 0, 0), mode="replicate"), weights_K[None, None, None])
    x = F.conv2d(F.pad(x, (0, 0, radius, radius), mode="replicate"), weights_K[None, None, :, None])
    return _replaced(images, where, x.view_as(images).to(images))


def mean_image(images: Tensor, where: Tensor | None = None, *, reference: Tensor | None = None) -> Tensor:
    """Replace pixels by those of the mean image, over `reference` [any, ...] or over the images themselves.

    Raises:
        PrismaError: the reference images have another shape.
    """
    averaged = images if reference is None else reference
    if averaged.shape[1:] != images.shape[1:] or not len(averaged):
        raise PrismaError(f"expected reference images [any, {list(images.shape[1:])}]; found {list(averaged.shape)}")
    return _replaced(images, where, _expect_images(averaged).mean(0, keepdim=True).expand_as(images))


def swap_patches(
    images: Tensor, where: Tensor | None = None, *, order: Sequence[int] | Tensor | None = None, seed: int = 0
) -> Tensor:
    """Replace pixels of image i by those at the same place in image `order[i]` of the batch.

    Args:
        order: [image], none of them its own index; by default drawn from `seed`.

    Raises:
        PrismaError: there are fewer than two images, an index is out of range, or an image would replace itself.
    """
    n = len(images)
    chosen = derangement(n, seed) if order is None else torch.as_tensor(order)
    whole = chosen.shape == (n,) and not chosen.is_floating_point() and bool(((chosen >= 0) & (chosen < n)).all())
    if not whole or bool((chosen == torch.arange(n, device=chosen.device)).any()):
        raise PrismaError(
            f"expected the index of another image (0 to {n - 1}) for each of {n}; found {chosen.tolist()}"
        )
    return _replaced(images, where, images[chosen.to(images.device)])


def other_image(images: Tensor, where: Tensor | None = None) -> Tensor:
    """Replace pixels by those of the next image of the batch; the last image gets those of the first.

    Raises:
        PrismaError: fewer than two images.
    """
    return swap_patches(images, where, order=[*range(1, len(images)), 0])


def mask_object(images: Tensor, where: Tensor | None, *, by: str = "mean", seed: int = 0) -> Tensor:
    """Remove the object: replace it by the mean of the image's other pixels, by another image, or by noise.

    Args:
        where: the object.
        by: "mean", per channel; "other", the same pixels of another image; or "noise" with that mean and deviation.

    Raises:
        PrismaError: `where` is missing or covers a whole image, or `by` is unknown.
    """
    if by not in ("mean", "other", "noise"):
        raise PrismaError(f"expected by to be mean, other or noise; found {by!r}")
    if where is None:
        raise PrismaError("expected where the object is, boolean [image, height, width]; found None")
    if by == "other":
        return swap_patches(images, where, seed=seed)
    rest = ~_expect_where(images, where).expand_as(images)
    axes = tuple(range(2, images.ndim))
    count = rest.sum(axes, keepdim=True)
    if not count.all():
        raise PrismaError("expected masks that leave some pixels of each image; found one that covers a whole image")
    pixels = exact(images)  # the sum of all pixels may be beyond the largest number of half precision
    mean = (pixels * rest).sum(axes, keepdim=True) / count
    if by == "mean":
        return _replaced(images, where, mean.to(images).expand_as(images))
    std = (((pixels - mean) ** 2 * rest).sum(axes, keepdim=True) / count).sqrt()
    return _replaced(images, where, (mean + std * _normal(images, seed)).to(images))


def inpaint_object(images: Tensor, where: Tensor | None) -> Tensor:
    """Remove the object: fill it smoothly from the pixels around it, so that no edge is left where it was.

    Args:
        where: the object. Each pixel in it becomes the mean of its neighbours: see `patching.inpainting`.

    Raises:
        PrismaError: `where` is missing or covers a whole image, or scipy is not installed.
    """
    if where is None:
        raise PrismaError("expected where the object is, boolean [image, height, width]; found None")
    holes = _expect_where(_expect_images(images), where).expand_as(images)
    return _replaced(images, where, inpainted(images, holes))


Corruption = Callable[..., Tensor]

CORRUPTIONS: Mapping[str, Corruption] = {
    "noise": gaussian_noise,
    "blur": blur,
    "mean": mean_image,
    "swap": swap_patches,
    "object": mask_object,
    "inpaint": inpaint_object,
    "other": other_image,
}
"""Name on the command line -> corruption, called with images and `where`."""
OF_OBJECTS = ("object", "inpaint")
"""Corruptions that need to know where the object is."""


def derangement(n: int, seed: int = 0) -> Tensor:
    """A permutation [n] that maps no index to itself: one random cycle.

    Raises:
        PrismaError: `n` is less than 2.
    """
    if n < 2:
        raise PrismaError(f"expected at least 2 images, so that each can get another one; found {n}")
    cycle = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    return torch.empty_like(cycle).scatter_(0, cycle, cycle.roll(1))


def patch_pixels(patches_BP: Tensor, config: ViTConfig) -> Tensor:
    """The pixels in chosen patches: boolean [image, patch] -> [image, (frame,) height, width].

    Raises:
        PrismaError: the patches are not boolean, or not one per patch of this model.
    """
    if patches_BP.dtype != torch.bool or patches_BP.ndim != 2 or patches_BP.shape[1] != config.n_patches:
        raise PrismaError(
            f"expected patches, boolean [image, {config.n_patches}]; "
            f"found {list(patches_BP.shape)} of {patches_BP.dtype}"
        )
    (t, h, w), (p, q) = config.grid, config.patch_sides
    pixels = repeat(patches_BP, "b (t h w) -> b (t f) (h p) (w q)", t=t, h=h, w=w, f=config.tubelet, p=p, q=q)
    height, width = config.image_sides
    pixels = F.pad(pixels, (0, width - w * q, 0, height - h * p))  # pixels beyond the last whole patch are in no patch
    return pixels if config.frames > 1 else pixels[:, 0]


def _replaced(images: Tensor, where: Tensor | None, by: Tensor) -> Tensor:
    _expect_images(images)
    return by.clone() if where is None else torch.where(_expect_where(images, where), by, images)


def _expect_images(images: Tensor) -> Tensor:
    if images.ndim not in (4, 5) or not images.is_floating_point() or not images.numel():
        raise PrismaError(
            "expected floating-point images [image, channel, (frame,) height, width]; "
            f"found {list(images.shape)} of {images.dtype}"
        )
    if (found := first_not_finite(images)) is not None:
        raise NotFiniteError(f"expected finite images; found {found[1]} in image {found[0]}")
    return images


def _expect_where(images: Tensor, where: Tensor) -> Tensor:
    """The mask with a channel axis, and a frame axis where the images have one."""
    shape = (len(images), *images.shape[2:])
    frames = where[:, None] if images.ndim == 5 and where.ndim == 3 else where  # the same pixels in every frame
    fits = frames.ndim == len(shape) and all(n in (1, full) for n, full in zip(frames.shape, shape, strict=True))
    if where.dtype != torch.bool or not fits:
        raise PrismaError(f"expected pixels, boolean {list(shape)}; found {list(where.shape)} of {where.dtype}")
    return frames[:, None].to(images.device)


def _normal(images: Tensor, seed: int) -> Tensor:
    _expect_images(images)
    return torch.randn(images.shape, generator=torch.Generator().manual_seed(seed)).to(images)


def _std(images: Tensor) -> Tensor:
    """The standard deviation of each image's pixel values [image, 1, ...]."""
    return images.flatten(1).std(1, correction=0).view(-1, *[1] * (images.ndim - 1))
