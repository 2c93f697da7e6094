"""Head scores: what does each head attend to, and which heads attend to something the most?

The scores are those of `prisma.analysis.attention.score_functions`, or your own. Each is computed for every head and
every image; means and standard errors are over images.

Shapes: B image, S score, L layer, H head, Q query, K key, P patch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import torch
from einops import rearrange
from torch import Tensor

from prisma.analysis.attention.score_functions import (
    Score,
    ScoreContext,
    computable_scores,
    expect_computable,
    named_scores,
)
from prisma.analysis.attention.token_grid import TokenGrid, attention_scopes, image_passes, uniform_attention
from prisma.analysis.border import guarded, record
from prisma.analysis.result import Result
from prisma.analysis.statistics import standard_error
from prisma.config import ViTConfig
from prisma.errors import PrismaError, nearest
from prisma.view.figures.plots import draw
from prisma.vit import ViT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOWEST_LOG2 = -5
"""A picture draws every score below 2^-5 of chance as 2^-5 of chance."""


class RankedHead(NamedTuple):
    """One line of a ranking."""

    layer: int
    head: int
    score: float  # mean over images
    error: float  # standard error of the mean; NaN for one image
    chance: float  # the score of a head with uniform attention


@dataclass(frozen=True, kw_only=True, eq=False)
class HeadScores(Result):
    """What each head attends to, as shares of its attention, and what uniform attention would give.

    1 is a head whose whole attention falls on the keys of the score; compare with `chance` to see whether a number is
    large. NaN for an image without such keys (no object). `metadata["scores"]` has the names of the scores.
    """

    AXES: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "mean": ("score", "layer", "head"),
        "error": ("score", "layer", "head"),
        "scores": ("image", "score", "layer", "head"),
        "chance": ("image", "score"),
    }
    UNDEFINED: ClassVar[frozenset[str]] = frozenset({"scores", "chance"})

    scores: Tensor
    chance: Tensor

    @property
    def mean(self) -> Tensor:
        """[score, layer, head], over the images that have such keys."""
        return self.scores.nanmean(0)

    @property
    def error(self) -> Tensor:
        """Standard error of the mean over images, [score, layer, head]; NaN for one image."""
        return standard_error(self.scores)

    def top(self, score: str, k: int = 10) -> list[RankedHead]:
        """The `k` heads with the highest mean, from the highest down.

        Raises:
            PrismaError: that score was not computed, or no image has such keys.
        """
        names = list(self.metadata["scores"])
        if score not in names:
            raise PrismaError(f"the score {score!r} was not computed; the nearest that were: {nearest(score, names)}")
        index = names.index(score)
        mean_LH, error_LH = self.mean[index], self.error[index]
        if mean_LH.isnan().any():
            raise PrismaError(
                f"the score {score!r} is undefined: no image has the tokens that it measures attention to"
            )
        chance = self.chance[:, index].nanmean().item()
        order = mean_LH.flatten().argsort(descending=True, stable=True)[:k].tolist()
        places = [divmod(i, mean_LH.shape[1]) for i in order]
        return [RankedHead(at[0], at[1], mean_LH[at].item(), error_LH[at].item(), chance) for at in places]

    @property
    def names(self) -> dict[str, list[str]]:
        return {"score": list(self.metadata["scores"])}

    def plot(self, array: str | None = None) -> "Figure":
        """By default a heat map [layer, head] for every score: log2 of the mean over chance (1: twice, -1: half).

        `"mean"` draws the shares themselves.
        """
        if array is not None:
            return super().plot(array)
        chance_S = self.chance.nanmean(0)
        doubled_SLH = (
            (self.mean / chance_S[:, None, None]).log2().clamp(min=LOWEST_LOG2)
        )  # the log of 0 is minus infinity
        panels = [
            f"{name}, chance {chance:.2g}" for name, chance in zip(self.names["score"], chance_S.tolist(), strict=True)
        ]
        title = (
            f"{str(self.metadata['analysis']).replace('_', ' ')}: log2 of attention over chance (1: twice, -1: half)"
        )
        return draw(doubled_SLH, self.axes["mean"], title=title, names={"score": panels})


@guarded
@torch.no_grad()
def head_scores(
    model: ViT,
    images: Tensor,
    scores: Mapping[str, Score] | str | Sequence[str] | None = None,
    *,
    masks: Tensor | None = None,
    content: Tensor | None = None,
    attention: str = "attn",
    queries: str = "all",
    batch: int | None = None,
) -> HeadScores:
    """What does each head attend to: the class token, corners, neighbours, the object ...?

    Each number is the share of a head's attention, from 0 to 1, that falls on the keys of the score, for one image.
    Compare it with `chance`, the score of uniform attention. `.top("corner")` ranks the heads.

    Args:
        images: [image, channel, (frame,) height, width].
        scores: a name or names in `SCORES`, or your own scores by name; by default all that the model, the masks and
            the content allow.
        masks: for `object`: share of each patch that the object covers, [image, patch] or [image, (time,) row, column].
        content: for `induction`: what each patch shows, as whole numbers, [image, patch] or the same grid; equal
            numbers are equal content, 0 is no content. If `induction` is named and this is not given, patches are equal
            when all their pixels are equal, and a patch whose pixels are equal within each channel has no content.
        attention: `"attn"`; in a model with divided attention also `"time"`; with attention pooling also `"pool"`.
        queries: the queries that scores are averaged over: `"all"`, `"class"`, `"registers"` or `"patches"`.
        batch: images in one pass; by default as many as have patterns of about 256 MiB.

    Returns:
        `scores` [image, score, layer, head] and `chance` [image, score]; `mean` and `error` [score, layer, head]
        follow. Shares of attention, without a unit.

    Raises:
        PrismaError: a score does not exist or cannot be computed here, the model has no such attention or queries, or
            images, masks or content do not fit.
    """
    config = model.config
    sites = [f"{scope}.pattern" for scope in attention_scopes(config, attention)]
    queries_Q = _queries(config, attention, queries)
    masks = None if masks is None else _shares(_per_patch("masks", masks, config, images))
    content = None if content is None else _per_patch("content", content, config, images)
    chosen = None if scores is None else named_scores(scores)
    by_pixels = content is None and chosen is not None and any("content" in score.needs for score in chosen.values())
    parts: list[tuple[Tensor, Tensor]] = []
    for some in image_passes(model, torch.arange(len(images), device=images.device), batch):
        _, acts = record(model, images[some], sites, stop=True)
        patterns = [acts[site] for site in sites]
        context = ScoreContext(
            keys=TokenGrid.of(config, attention),
            uniform=uniform_attention(config, attention).to(patterns[0]),
            queries=queries_Q.to(images.device),
            coverage=_rows(masks, some),
            content=pixel_content(config, images[some]) if by_pixels else _rows(content, some),
        )
        chosen = chosen or computable_scores(context)
        parts.append(_scored(chosen, patterns, context))
    values, chance = (torch.cat(part) for part in zip(*parts, strict=True))
    metadata = {"analysis": "head_scores", "scores": list(chosen or ()), "attention": attention, "queries": queries}
    return HeadScores(metadata=metadata, scores=values, chance=chance)


def _scored(scores: Mapping[str, Score], patterns: Sequence[Tensor], context: ScoreContext) -> tuple[Tensor, Tensor]:
    """[image, score, layer, head], and the chance level of each score, [image, score]."""
    expect_computable(scores, context)
    found = [torch.stack([score(pattern, context) for pattern in patterns], dim=1) for score in scores.values()]
    chance = [score.chance(context).expand(len(patterns[0])) for score in scores.values()]
    return torch.stack(found, dim=1), torch.stack(chance, dim=1)


def pixel_content(config: ViTConfig, images: Tensor) -> Tensor:
    """[image, patch], whole numbers: equal where all pixels are equal; 0 where each channel is constant."""
    (t, h, w), (p, q), channels = config.grid, config.patch_sides, config.channels
    tubes = images.reshape(len(images), channels, config.frames, *config.image_sides)[..., : h * p, : w * q]
    pixels = rearrange(tubes, "b c (t f) (h p) (w q) -> b (t h w) c (f p q)", t=t, h=h, w=w, p=p, q=q)
    empty_BP = (pixels == pixels[..., :1]).all(-1).all(-1)
    ids = [x.flatten(1).unique(dim=0, return_inverse=True)[1] + 1 for x in pixels]
    return torch.stack(ids).masked_fill(empty_BP, 0)


def _queries(config: ViTConfig, attention: str, queries: str) -> Tensor:
    """[query], boolean."""
    if attention == "pool":
        if queries != "all":
            raise PrismaError(
                f"attention pooling has one query, which is not a token: queries must be 'all'; found {queries!r}"
            )
        return torch.ones(1, dtype=torch.bool)
    queries_Q = TokenGrid.of(config, attention).role(queries)
    if not queries_Q.any():
        raise PrismaError(f"expected query tokens that this model has; found {queries!r}, of which there are none")
    return queries_Q


def _shares(masks: Tensor) -> Tensor:
    if not ((masks >= 0) & (masks <= 1)).all():
        raise PrismaError("expected masks to be shares of a patch, from 0 to 1; found a number outside")
    return masks


def _per_patch(name: str, values: Tensor, config: ViTConfig, images: Tensor) -> Tensor:
    """Values [image, patch], from that shape or from a grid."""
    patches, t, grid = config.n_patches, config.grid[0], config.grid
    shapes = [(len(images), patches), (len(images), *grid)] + ([(len(images), *grid[1:])] if t == 1 else [])
    if tuple(values.shape) not in shapes:
        wanted = " or ".join(str(list(shape)) for shape in shapes)
        raise PrismaError(f"expected {name} with a number for each patch, {wanted}; found {list(values.shape)}")
    return values.reshape(len(images), patches).to(images.device)


def _rows(values_BP: Tensor | None, rows: Tensor) -> Tensor | None:
    return None if values_BP is None else values_BP[rows]
