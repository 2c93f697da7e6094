"""What flows from the tokens of the embedding to each token at the end, and to what the model reads out.

Shapes: B image, Q query (a token at the end), K key (a token of the embedding), H head.

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
from prisma.view.figures.maps import chosen_images, draw_chosen
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
"""`config.pool` -> which queries `readout` and `patches` speak for."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenMaps(Result):
    """`readout` is the row of what the model reads out: see `metadata["readout"]`, one of `READOUTS`."""

    AXES: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "patches": ("image", "time", "row", "column"),
        "readout": ("image", "key"),
        "map": ("image", "query", "key"),
    }
    patches: Tensor  # [image, (time,) row, column]: the readout's row over the patches alone; time for video only
    readout: Tensor  # [image, key]: from each token of the embedding to the readout
    map: Tensor | None = None  # [image, query, key]: from each token of the embedding to each token at the end

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
        """By default the maps over patches, a column for each image; of a video, for each of its times.

        Args:
            pictures: of the same images, [image, channel, (frame,) height, width] in [0, 1], to be drawn above.
            masks: [image, (frame,) height, width], true where the object is, to be outlined.
            images: which ones, by default the first six.

        Raises:
            PrismaError: an image that is not there, pictures or masks that do not fit, or too many panels.
        """
        chosen = chosen_images(len(self.patches), images)
        if array not in (None, "patches"):
            if array not in self.axes:
                return super().plot(array)  # which says what there is
            title, names = f"{self.metadata['analysis']}: {array}", [f"image {i}" for i in chosen]
            return draw(self.arrays[array][chosen], self.axes[array], title=title, names={"image": names})
        title = str(self.metadata["analysis"]).replace("_", " ")
        return draw_chosen({"map": self.arrays["patches"]}, pictures, masks, chosen, title=title)


def head_mean(pattern_BHQK: Tensor) -> Tensor:
    return pattern_BHQK.mean(1)


FUSIONS = {
    "mean": head_mean,
    "max": lambda pattern_BHQK: pattern_BHQK.amax(1),
    "min": lambda pattern_BHQK: pattern_BHQK.amin(1),
}
"""How the heads of a layer become one."""


def mixed(pattern_BHQK: Tensor, heads: str, residual: float, n_tokens: int) -> Tensor:
    """One layer: `residual` I + (1 - `residual`) A, where A is the fusion of its heads, rows scaled to sum to 1.

    A token whose heads agree on no key at all (`"min"`) keeps what it has.

    Returns:
        [image, query, key] of all tokens: attention over time leaves the class token as it is.
    """
    fused_BQK = FUSIONS[heads](pattern_BHQK)
    total_BQ1, own_KK = fused_BQK.sum(-1, keepdim=True), _identity(fused_BQK.shape[-1], fused_BQK)
    fused_BQK = torch.where(total_BQ1 > 0, fused_BQK / total_BQ1, own_KK)
    alone = n_tokens - fused_BQK.shape[-1]  # tokens that take no part
    mixed_BQK = _identity(n_tokens, fused_BQK).repeat(len(fused_BQK), 1, 1)
    mixed_BQK[:, alone:, alone:] = residual * own_KK + (1 - residual) * fused_BQK
    return mixed_BQK


def _identity(n: int, like: Tensor) -> Tensor:
    return torch.eye(n, dtype=like.dtype, device=like.device)


def check_mixing(heads: str, residual: float) -> None:
    """Raises PrismaError: no such fusion of heads, or a share that is none."""
    if heads not in FUSIONS:
        raise PrismaError(f"heads must be one of {', '.join(FUSIONS)}; found {heads!r}")
    if not 0 <= residual < 1:
        raise PrismaError(f"residual is a share of the stream, from 0 to below 1; found {residual}")


def readout_weights(config: ViTConfig) -> Tensor:
    """How much of each token the model's pooling reads, [token], summing to 1; not for attention pooling."""
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
    """The readout's row [image, key] of a map.

    Args:
        pooling_BHQK: how attention pooling reads the tokens at the end, [image, head, 1, pooled token]; else None.
    """
    if pooling_BHQK is None:
        return readout_weights(config).to(map_BQK) @ map_BQK
    row_BQK = head_mean(pooling_BHQK)
    return (row_BQK @ map_BQK[:, config.n_tokens - row_BQK.shape[-1] :])[:, 0]


def over_patches(config: ViTConfig, readout_BK: Tensor) -> Tensor:
    """[image, token] -> [image, row, column], or [image, time, row, column] for video."""
    grid = config.grid if config.frames > 1 else config.grid[1:]
    return readout_BK[:, config.n_prefix :].unflatten(1, grid)
