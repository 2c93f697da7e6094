"""Deletion and insertion: does the target follow a map? Patches are removed, or put in, in the order of the map.

    deletion    begins with the whole image and removes the most important patch first; a good map falls at once
    insertion   begins with none and puts in the most important first; a good map rises at once

Read from its other end, insertion removes the least important patch first. Both ends belong to a curve: no patch
absent, and all of them. An image with absent patches is unlike any of the training, so a curve alone says little: it is
compared with a random order of the same patches of the same image.

Sources: Petsiuk et al. 1806.07421 (deletion, insertion); Samek et al. 1509.06321 (against random orders); Chefer et al.
2012.09838 and Vilas et al. 2310.18969 (token removal).

Shapes: B image, P patch, K point.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from prisma.analysis.attribution.attribute import baseline_of, predicted_logits
from prisma.analysis.attribution.games import Game, TokenGame, absence_of
from prisma.analysis.attribution.questions import as_target, name_of
from prisma.analysis.border import guarded
from prisma.analysis.readings import Reading
from prisma.analysis.result import Effect
from prisma.errors import PrismaError, quoted
from prisma.metrics import Metric, Target
from prisma.view.figures.charts import draw_stages
from prisma.vit import ViT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CURVES = ("deletion", "insertion")
OTHER = 1_000_003
"""How far apart the seeds of the random orders of an image are: more than there are images."""


@dataclass(frozen=True, kw_only=True, eq=False)
class MapCurves(Effect):
    """The target along the order of a map, and along random orders of the same images.

    `per_image` is how much better than random: the area between the two curves, on an axis from 0 to 1 of the share of
    the patches, in the target's unit; positive is better for both kinds. `effect`, `stderr` and `interval()` are its
    mean over images.
    """

    AXES: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "curve": ("image", "point"),
        "random": ("image", "point"),
        "share": ("point",),
        "per_image": ("image",),
    }

    curve: Tensor  # [image, point]
    random: Tensor  # [image, point]: the mean over the random orders

    @property
    def share(self) -> Tensor:
        """[point]: the share of the patches that are removed (deletion) or present (insertion)."""
        return torch.tensor(self.metadata["moved"], dtype=torch.float64) / self.metadata["moved"][-1]

    @property
    def per_image(self) -> Tensor:
        """[image]: how much better than a random order, positive for both kinds."""
        sign = -1 if self.metadata["curve"] == "deletion" else 1
        return sign * (area(self.curve, self.share) - area(self.random, self.share))

    @property
    def _figures(self) -> Mapping[str, Callable[[Tensor], Tensor]]:
        areas = {"area": area(self.curve, self.share), "random_area": area(self.random, self.share)}
        return {**super()._figures, **{name: lambda rows, x=x: x[rows].mean(0) for name, x in areas.items()}}  # type: ignore[misc]

    def plot(self, array: str | None = None) -> "Figure":
        """The mean of both curves over images; points are equally far from each other."""
        if array is not None:
            return super().plot(array)
        lines = {"map": self.curve, "random order": self.random}
        return draw_stages(lines, title=f"{self.metadata['curve']} of patches", axis="point")


def area(curves: Tensor, share: Tensor) -> Tensor:
    """Area under curves [..., point] over the share, by trapezoids: the mean of the curve."""
    return torch.trapezoid(curves.double(), share.double().to(curves.device), dim=-1)


@guarded
def map_curves(
    model: ViT,
    images: Tensor,
    maps: Tensor,
    target: Metric | Reading | Target | None = None,
    *,
    curve: str = "deletion",
    absent: str | None = None,
    baseline: Tensor | None = None,
    points: int | None = None,
    orders: int = 1,
    seed: int = 0,
    batch: int | None = None,
) -> MapCurves:
    """Does the target follow this map, more than a random order of the patches?

    `effect` above 0, with an interval that leaves out 0: patches that the map calls important change the target more
    than others. It says nothing about patches that the model does not need because others say the same.

    With `absent="dropped"` a curve of all points costs about half a forward for each token: runs get shorter as patches
    leave, and runs of the same length of different images share a pass.

    Args:
        maps: [image, token], with or without the tokens before the patches; or [image, (time,) row, column]. Larger is
            more important. Patches that tie are in a random order.
        target: as in `prisma.attribute`; by default the logit of each image's predicted class.
        curve: "deletion" or "insertion".
        absent, baseline: what an absent patch is, as in `prisma.attribute`.
        points: how many points, both ends included; by default one for each patch, and one more.
        orders: random orders of each image.
        seed: of the random orders and of ties.
        batch: runs in one pass.

    Returns:
        `curve` and `random` [image, point], `share` [point], `per_image` [image].

    Raises:
        PrismaError: maps that do not fit the images, no such curve, fewer than 2 points or more than patches and one,
            or what `prisma.attribute` refuses.
    """
    if curve not in CURVES:
        raise PrismaError(f"expected {' or '.join(CURVES)}; found {quoted(str(curve))}")
    kind = absence_of(model.config, absent, baseline)
    with torch.inference_mode(False):
        asked = as_target(model, target, None if target is not None else predicted_logits(model, images, batch))
        fill, _ = baseline_of(images, baseline, many=False)
        game = TokenGame(model, images, fill, asked, batch, kind)
        scores_BP = over_patches_of(game, maps)
        counts = points_of(game.n_patches, points)
        of_maps = curve_of(game, order_of(scores_BP, seed), curve, counts)
        random = random_curve(game, curve, counts, orders, seed)
    metadata: dict[str, Any] = {
        "analysis": "map_curves",
        "curve": curve,
        "absent": game.absent,
        "target": name_of(asked),
    }
    metadata |= {"moved": counts.tolist(), "orders": orders, "seed": seed}
    return MapCurves(metadata=metadata, curve=of_maps, random=random)


def over_patches_of(game: TokenGame, maps: Tensor) -> Tensor:
    """Maps of any of the shapes that are allowed, as [image, patch]."""
    n, grid = len(game.images), game.config.grid if game.config.grid[0] > 1 else game.config.grid[1:]
    allowed = [[n, game.config.n_tokens], [n, game.n_patches], [n, *grid]]
    if list(maps.shape) not in allowed:
        raise PrismaError(f"expected maps {', '.join(map(str, allowed))}; found {list(maps.shape)}")
    return maps.flatten(1)[:, -game.n_patches :]


def points_of(patches: int, points: int | None) -> Tensor:
    """How many patches have moved at each point, both ends included."""
    if points is not None and not 2 <= points <= patches + 1:
        raise PrismaError(f"expected from 2 to {patches + 1} points; found {points}")
    return torch.linspace(0, patches, patches + 1 if points is None else points).round().long()


def order_of(scores_BP: Tensor, seed: int) -> Tensor:
    """The patches of each image, the most important first; those that tie in a random order, of seed + image."""
    mixed = drawn_for_each(scores_BP.shape, seed).argsort(1).to(scores_BP.device)
    return mixed.gather(1, scores_BP.gather(1, mixed).argsort(dim=1, descending=True, stable=True))


def drawn_for_each(shape: Sequence[int], seed: int) -> Tensor:
    """Numbers in [0, 1] of this shape; those of image i are of the seed + i, so they depend on no other image."""
    seeds = [torch.Generator().manual_seed(seed + image) for image in range(shape[0])]
    return torch.stack([torch.rand(tuple(shape[1:]), generator=one) for one in seeds])


def curve_of(game: Game, order_BP: Tensor, kind: str, counts_K: Tensor) -> Tensor:
    """The target [image, point] when the first patches of each order are absent (deletion) or alone present."""
    place_BP = order_BP.argsort(1)
    moved_BKP = place_BP[:, None] < counts_K.to(place_BP.device)[:, None]
    present_BKP = ~moved_BKP if kind == "deletion" else moved_BKP
    rows = torch.arange(len(order_BP), device=order_BP.device)[:, None].expand(present_BKP.shape[:2])
    swapped = present_BKP.transpose(0, 1)  # runs of the same length next to each other
    values = game.of_runs(rows.T.flatten(), swapped.flatten(0, 1))
    return values.unflatten(0, swapped.shape[:2]).T


def random_curve(game: Game, kind: str, counts_K: Tensor, orders: int, seed: int) -> Tensor:
    """The mean over random orders [image, point]."""
    if orders < 1:
        raise PrismaError(f"expected at least one random order; found {orders}")
    nothing = torch.zeros(len(game.images), game.n_patches, device=game.images.device)
    drawn = [curve_of(game, order_of(nothing, seed + OTHER * (i + 1)), kind, counts_K) for i in range(orders)]
    return torch.stack(drawn).mean(0)
