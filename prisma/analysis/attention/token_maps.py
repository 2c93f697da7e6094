"""Maps of tokens: how much each token of the embedding contributes to each final token, and to the readout.

Shapes: B image, Q query (a token of the final residual stream), K key (a token of the embedding), H head.

Base of attention rollout, attention flow and relevance.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from prisma.analysis.attention.token_grid import TokenGrid
from prisma.analysis.result import Result
from prisma.config import ViTConfig
from prisma.errors import PrismaError
from prisma.view.figures.maps import chosen_images, draw_images
from prisma.view.figures.plots import draw

if TYPE_CHECKING:
    from matplotlib.figure import Figure

READOUTS = {
    "class": "the class token",
    "distilled": "mean of the class token and the distillation token",
    "mean": "mean over the pooled tokens",
    "class_mean": "mean of the class token and of the mean over the patches",
    "attention": "the query of attention pooling",
}
"""`config.pool` -> the queries whose rows make up `readout` and `patches`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenMaps(Result):
    """How much each token of the embedding contributes to what the model reads out, and to each final token.

    `readout` is the row of the map that belongs to the model's pooling; `metadata["readout"]` says which queries that
    is, in words (one of `READOUTS`). `patches` is the same row without prefix tokens, laid out as the image is.
    """

    AXES: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "patches": ("image", "time", "row", "column"),
        "readout": ("image", "key"),
        "map": ("image", "query", "key"),
    }
    patches: Tensor  # [image, (time,) row, column]: the readout's row over the patches alone; time for video only
    readout: Tensor  # [image, key]: from each token of the embedding to the readout
    map: Tensor | None = None  # [image, query, key]: from each token of the embedding to each final token

    @property
    def axes(self) -> dict[str, tuple[str, ...]]:
        image = {"patches": ("image", "row", "column")} if self.patches.ndim == 3 else {}
        return {**super().axes, **image}

    def plot(
        self,
        array: str | None = None,
        *,
        pictures: Tensor | None = None,
        masks: Tensor | None = None,
        images: Sequence[int] | None = None,
    ) -> "Figure":
        """By default the maps over patches: a column for each image, or for each time of a video.

        Args:
            pictures: the same images, [image, channel, (frame,) height, width] in [0, 1], drawn above the maps.
            masks: [image, (frame,) height, width], true where the object is: its outline is drawn.
            images: indices of the images to draw, by default the first six.

        Raises:
            PrismaError: an image that does not exist, pictures or masks that do not fit, or too many panels.
        """
        chosen = chosen_images(len(self.patches), images)
        if array not in (None, "patches"):
            if array not in self.axes:
                return super().plot(array)  # whose error lists the arrays
            title, names = f"{self.metadata['analysis']}: {array}", [f"image {i}" for i in chosen]
            return draw(self.arrays[array][chosen], self.axes[array], title=title, names={"image": names})
        title = str(self.metadata["analysis"]).replace("_", " ")
        return draw_images({"map": self.arrays["patches"]}, pictures, masks, chosen, title=title)


def head_mean(pattern_BHQK: Tensor) -> Tensor:
    """The mean over heads, [image, query, key]."""
    return pattern_BHQK.mean(1)


FUSIONS = {
    "mean": head_mean,
    "max": lambda pattern_BHQK: pattern_BHQK.amax(1),
    "min": lambda pattern_BHQK: pattern_BHQK.amin(1),
}
"""Name -> how the heads of a layer are combined into one pattern."""


def mixed(pattern_BHQK: Tensor, heads: str, residual: float, n_tokens: int) -> Tensor:
    """One layer: `residual` I + (1 - `residual`) A, where A combines its heads, with rows scaled to sum to 1.

    With `"min"` the heads may share no key: such a token keeps what it has.

    Returns:
        [image, query, key] over all tokens: attention over time leaves the class token unchanged.
    """
    fused_BQK = FUSIONS[heads](pattern_BHQK)
    total_BQ1, own_KK = fused_BQK.sum(-1, keepdim=True), _identity(fused_BQK.shape[-1], fused_BQK)
    fused_BQK = torch.where(total_BQ1 > 0, fused_BQK / total_BQ1, own_KK)
    first = n_tokens - fused_BQK.shape[-1]  # prefix tokens before it are not read by attention over time
    mixed_BQK = _identity(n_tokens, fused_BQK).repeat(len(fused_BQK), 1, 1)
    mixed_BQK[:, first:, first:] = residual * own_KK + (1 - residual) * fused_BQK
    return mixed_BQK


def _identity(n: int, like: Tensor) -> Tensor:
    return torch.eye(n, dtype=like.dtype, device=like.device)


def check_mixing(heads: str, residual: float) -> None:
    """Raises PrismaError: no such way to combine heads, or `residual` is outside [0, 1)."""
    if heads not in FUSIONS:
        raise PrismaError(f"expected heads to be one of {', '.join(FUSIONS)}; found {heads!r}")
    if not 0 <= residual < 1:
        raise PrismaError(f"expected residual to be a share of the stream, at least 0 and below 1; found {residual}")


def readout_weights(config: ViTConfig) -> Tensor:
    """The weight of each token in the model's pooling, [token], summing to 1; not for attention pooling."""
    tokens, name = TokenGrid.of(config), "all" if config.pool_prefix else "patches"
    mean_T = tokens.role(name).double() / tokens.role(name).sum()
    token_T = torch.arange(tokens.n_tokens)
    pools = {
        "class": (token_T == 0).double(),
        "distilled": (token_T < 2).double() / 2,
        "mean": mean_T,
        "class_mean": ((token_T == 0) + mean_T) / 2,
    }
    return pools[config.pool]


def readout_row(config: ViTConfig, pooling_BHQK: Tensor | None, map_BQK: Tensor) -> Tensor:
    """The row [image, key] of a map that belongs to the model's pooling.

    Args:
        pooling_BHQK: the pattern of attention pooling, [image, head, 1, pooled token]; None for other kinds of pooling.
    """
    if pooling_BHQK is None:
        return readout_weights(config).to(map_BQK) @ map_BQK
    row_BQK = head_mean(pooling_BHQK)
    return (row_BQK @ map_BQK[:, config.n_tokens - row_BQK.shape[-1] :])[:, 0]


def over_patches(config: ViTConfig, readout_BK: Tensor) -> Tensor:
    """[image, token] -> [image, row, column], or [image, time, row, column] for video."""
    grid = config.grid if config.frames > 1 else config.grid[1:]
    return readout_BK[:, config.n_prefix :].unflatten(1, grid)
