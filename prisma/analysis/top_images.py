"""The images of a data set for which a number is largest, found in one pass that keeps only these.

`Largest` is the streaming part, for any numbers; `top_images` reads the features of a site, and where in each of its
images a feature is large.

Shapes: U unit, B image, T position, K rank.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from prisma.analysis.attention.token_grid import TokenGrid
from prisma.analysis.border import guarded, record
from prisma.analysis.readings import Activations, expect_index, features_at
from prisma.analysis.result import Result
from prisma.batching import inputs_per_pass
from prisma.data.pictures import Pictures
from prisma.errors import NotFiniteError, PrismaError, quoted
from prisma.inventory import site_names
from prisma.numbers import exact, first_not_finite
from prisma.sites import axes_of, matching
from prisma.view.figures.sheet import draw_sheet
from prisma.vit import ViT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Images = Tensor | Pictures
"""A data set: inputs of the model [image, channel, height, width], or pictures that are read a few at a time."""
POOLS = ("mean", "max")


class Largest:
    """The k largest numbers of each unit, over parts of a data set that come one after the other.

    Of equal numbers, that of the earlier image comes first, so the result does not depend on how the data are divided.

    Attributes:
        values: [unit, rank], from the largest down; fewer than k ranks where there are fewer images.
        images: [unit, rank], the indices of their images.
    """

    def __init__(self, k: int) -> None:
        if k < 1:
            raise PrismaError(f"expected to keep at least one image; found {k}")
        self.k, self.seen = k, 0
        self.values = self.images = torch.empty(0, 0)

    def add(self, values_UB: Tensor) -> Tensor:
        """The next part.

        Returns:
            [unit, rank]: where each kept number was among those that were kept before and then those of this part.

        Raises:
            NotFiniteError: it holds NaN or an infinity; the image is named.
        """
        if (wrong := first_not_finite(values_UB.T)) is not None:
            raise NotFiniteError(f"expected finite numbers; found {wrong[1]} in image {self.seen + wrong[0]}")
        units, n = values_UB.shape
        images = torch.arange(self.seen, self.seen + n, device=values_UB.device).expand(units, -1)
        if self.seen:
            values_UB, images = torch.cat([self.values, values_UB], 1), torch.cat([self.images, images], 1)
        order = values_UB.argsort(dim=1, descending=True, stable=True)[:, : self.k]
        self.values, self.images, self.seen = values_UB.gather(1, order), images.gather(1, order), self.seen + n
        return order


def image_parts(images: Images, size: int) -> Iterator[Tensor]:
    """The data set in parts of at most `size` images, in order."""
    for start in range(0, len(images), size):
        yield images_at(images, range(start, min(start + size, len(images))))


def images_at(images: Images, rows: Sequence[int]) -> Tensor:
    """Some images [row, channel, height, width], by index."""
    return images[torch.as_tensor(list(rows), dtype=torch.long)] if isinstance(images, Tensor) else images.read(rows)


def expect_data(images: object) -> None:
    """Raise PrismaError unless this is a data set with at least one image."""
    if not isinstance(images, Tensor | Pictures):
        raise PrismaError(f"expected images as a tensor, or pictures; found {quoted(images)}")
    if not len(images):
        raise PrismaError("expected at least one image; found none")


@dataclass(frozen=True, kw_only=True, eq=False)
class TopImages(Result):
    """Which images of a data set a unit answers to most, and where in them.

    `metadata["units"]` has the indices of the units. A unit is known by all of its images, not by the first alone: look
    at several ranks, and at `mean` and `spread` over all images, before you give it a name.
    """

    AXES: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "values": ("unit", "rank"),
        "images": ("unit", "rank"),
        "mean": ("unit",),
        "spread": ("unit",),
        "maps": ("unit", "rank", "row", "column"),
    }

    values: Tensor  # [unit, rank], from the largest down
    images: Tensor  # [unit, rank]: indices into the data set
    mean: Tensor  # [unit]: over all images
    spread: Tensor  # [unit]: the standard deviation over all images
    maps: Tensor | None = None  # [unit, rank, row, column]: the unit at each patch; None where a site has none

    def plot(
        self, array: str | None = None, *, pictures: Tensor | None = None, units: Sequence[int] | None = None
    ) -> "Figure":
        """With `pictures`, a row for each unit: its images from the strongest down, and the unit at their patches.

        Args:
            pictures: the data set, [image, 1 or 3 channels, height, width] in [0, 1].
            units: which of the units, by their place in the result; by default the first eight.

        Raises:
            PrismaError: a unit that the result does not have, or pictures that are not those of the data set.
        """
        if pictures is None or array is not None:
            return super().plot(array)
        if pictures.ndim != 4 or len(pictures) != self.metadata["data"]:
            raise PrismaError(
                f"expected the {self.metadata['data']:,} pictures of the data set [image, channel, height, width]; "
                f"found {list(pictures.shape)}"
            )
        rows = list(range(min(8, len(self.images)))) if units is None else list(units)
        if not rows or not all(0 <= row < len(self.images) for row in rows):
            raise PrismaError(f"expected units from 0 to {len(self.images) - 1}; found {rows}")
        beside = None if self.maps is None else _shaded(self.maps[rows], (pictures.shape[2], pictures.shape[3]))
        names = [self._called(row) for row in rows]
        captions = [
            f"{self.values[row, 0]:.2f} to {self.values[row, -1]:.2f}; mean {self.mean[row]:.2f}" for row in rows
        ]
        titles = ("images with the largest activation", "the unit at their patches")
        return draw_sheet(pictures[self.images[rows].to(pictures.device)], beside, names, captions, titles=titles)

    def _called(self, row: int) -> str:
        return f"{self.metadata['site']}, {self.metadata['units'][row]}"


def _shaded(maps_UKRC: Tensor, sides: tuple[int, int]) -> Tensor:
    """Maps as grey pictures [unit, rank, 1, height, width]: white is the unit's largest, black 0 and below."""
    most = maps_UKRC.amax((1, 2, 3), keepdim=True)
    grey = (maps_UKRC / most.clamp(min=torch.finfo(most.dtype).tiny)).clamp(0, 1)
    return F.interpolate(grey, size=sides, mode="nearest").unsqueeze(2)


@guarded
@torch.no_grad()
def top_images(
    model: ViT,
    images: Images,
    site: str,
    units: Sequence[int] | None = None,
    k: int = 9,
    *,
    where: str | int = "patches",
    head: int | None = None,
    pool: str = "mean",
    batch: int | None = None,
) -> TopImages:
    """To which images of a data set does each unit of a site answer most?

    Args:
        images: [image, channel, height, width], or pictures, which are read a few at a time.
        site: the full name of a site with features, such as `blocks.3.mlp.post` or `logits`.
        units: indices of features; by default all.
        k: how many images of each unit.
        where: "patches", "class", "registers", "all", or a position by its place.
        head: which head, where the site has heads.
        pool: an image's number is the "mean" over these positions, or the "max".
        batch: images in one pass; it changes no result but by rounding.

    Raises:
        PrismaError: no such site, unit, head or position, or no images.
    """
    expect_data(images)
    if pool not in POOLS:
        raise PrismaError(f"expected one of {', '.join(POOLS)}; found {quoted(pool)}")
    if not isinstance(site, str) or matching(site, site_names(model.config)) != [site]:
        raise PrismaError(f"expected the name of one site; found {quoted(site)}")
    if isinstance(images, Pictures):  # which are float32, whatever the model is
        pictures = images
        images = replace(pictures, read=lambda rows: pictures.read(rows).to(next(model.parameters()).dtype))
    size, largest, sums, chosen = inputs_per_pass(model, batch), Largest(k), torch.zeros(()), units
    for some in image_parts(images, size):
        x_BTF = _features(model, some, site, where, head)
        chosen = list(range(x_BTF.shape[-1])) if chosen is None else list(chosen)
        if not chosen:
            raise PrismaError(f"expected units of {site}; found none")
        for unit in chosen:
            expect_index(unit, x_BTF.shape[-1], "feature", site)
        picked = x_BTF[..., chosen]
        values = picked.mean(1) if pool == "mean" else picked.amax(1)
        largest.add(values.T)
        sums = sums + torch.stack([values.double(), values.double().square()]).sum(1).cpu()
    mean, square = sums / len(images)
    found = {"values": largest.values, "images": largest.images}
    return TopImages(
        metadata={
            "analysis": "top_images", "site": site, "units": chosen, "where": where, "head": head, "pool": pool,
            "data": len(images),
        },
        **{name: x.cpu() for name, x in found.items()},
        mean=mean.to(largest.values.dtype),
        spread=(square - mean.square()).clamp(min=0).sqrt().to(largest.values.dtype),
        maps=_maps(model, images, site, chosen or [], largest.images.cpu(), head, size) if where == "patches" else None,
    )  # fmt: skip


def _features(model: ViT, images: Tensor, site: str, where: str | int, head: int | None) -> Tensor:
    acts = record(model, images.to(next(model.parameters()).device), site, stop=True)[1]
    grid = TokenGrid.of(model.config)
    return exact(features_at(Activations(acts, {site: axes_of(site)}, grid), site, where, head))


def _maps(
    model: ViT, images: Images, site: str, units: Sequence[int], rows_UK: Tensor, head: int | None, size: int
) -> Tensor | None:
    """[unit, rank, row, column]: a second pass, over the images that were found alone."""
    grid = TokenGrid.of(model.config)
    if axes_of(site)[1] not in ("token", "patch") or grid.grid[0] > 1:
        return None
    kind = exact(next(model.parameters()))[:0].dtype
    maps = torch.zeros(*rows_UK.shape, grid.n_patches, dtype=kind)
    for some in rows_UK.unique().split(size):
        x_BTF = _features(model, images_at(images, some.tolist()), site, "patches", head).cpu()
        unit_, rank = torch.isin(rows_UK, some).nonzero(as_tuple=True)
        place = torch.searchsorted(some, rows_UK[unit_, rank].contiguous())
        maps[unit_, rank] = x_BTF[place, :, torch.tensor(list(units))[unit_]]
    return maps.unflatten(-1, grid.grid[1:])
