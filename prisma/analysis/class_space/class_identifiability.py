"""Class identifiability: from which share of an image's patches can its class be read, and from which stage on?

With the class projection P of each token, the rank of the image's class c among C classes at token i, and four figures
of it:

    rank_i  = #{k : P_ik > P_ic}       0 is best
    rate    = mean [rank_i = 0]        over an image's patches; by chance 1 / C
    any     = [some rank_i = 0]        by chance 1 - (1 - 1 / C)^patches, were they independent; less if alike
    score_i = 1 - rank_i / C           by chance 1 - (C - 1) / (2 C), and never 0
    mrr     = mean 1 / (1 + rank_i)    over an image's patches; by chance (1 + 1/2 + ... + 1/C) / C

Where classes have the same logit, each is the mean over all orders of those that tie (`ranks`).

Tokens of one image are not independent of each other, so every interval and every test is over images.

Source: Vilas et al. 2310.18969 (rate and score). What is readable need not be used: pair it with patching.

Shapes: B batch, S stage (0 is the embedding, s is after block s - 1), T token, P patch, C class.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from prisma.analysis.border import expect_finite_run, guarded
from prisma.analysis.class_space.causes import effects_by_layer
from prisma.analysis.class_space.class_projection import Projection
from prisma.analysis.class_space.class_values import random_control
from prisma.analysis.class_space.passes import Pass, read_all, stage_sites, stages, stream_numbers
from prisma.analysis.class_space.ranks import (
    by_chance,
    expect_labels,
    first_share,
    rank_and_ties,
    reciprocal_rank,
    score_of,
)
from prisma.analysis.class_space.token_kinds import TokenResult, coverage_of, kinds_metadata
from prisma.analysis.result import Effect
from prisma.analysis.statistics import mean_interval, wilcoxon
from prisma.errors import PrismaError
from prisma.view.figures.charts import draw_stages
from prisma.view.figures.plots import draw
from prisma.vit import ViT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURES = ("rate", "score", "mrr")
ANY = "any"
"""The figure of an image that one token or more has rank 0."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassIdentifiability(TokenResult):
    """How well the class can be read from each token of an image, at each stage.

    `rate` is the share of patches that would answer the class: near `metadata["chance"]` at first, and larger where the
    class has become readable. `of` has the same for every kind of token, `p_value` compares with random weights.
    """

    AXES: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "rate": ("image", "stage"),
        "score": ("stage", "image", "token"),
        "mrr": ("image", "stage"),
        **dict.fromkeys(("any_patch", "control_any_patch"), ("image", "stage")),
        **dict.fromkeys(("rank", "tied", "control_rank", "control_tied"), ("image", "stage", "token")),
        "coverage": ("image", "patch"),
    }

    rank: Tensor  # of the image's class, 0 is best, ties at their mean; at every token, prefix tokens first
    tied: Tensor | None = None  # how many classes have its logit, itself included; None: it is alone everywhere
    control_rank: Tensor | None = None  # the same of the model with random weights
    control_tied: Tensor | None = None

    @property
    def rate(self) -> Tensor:
        """Share of patches at which the class has the largest logit; of n classes that share it, each has 1 / n."""
        return self._over_patches("rate")

    @property
    def score(self) -> Tensor:
        """1 - rank / C of every token."""
        return self.of_tokens("score").movedim(1, 0)

    @property
    def mrr(self) -> Tensor:
        """Mean over patches of 1 / (1 + rank), and over the ranks that tied classes share."""
        return self._over_patches("mrr")

    @property
    def any_patch(self) -> Tensor:
        """Whether the class comes first at one patch or more: the mean over images is the share of such images.

        With many patches that happens by chance: `metadata["chance_any_patch"]`, if patches were independent of each
        other. They are not, so compare with `control_any_patch`.
        """
        return self.of("patches", ANY)

    @property
    def control_any_patch(self) -> Tensor | None:
        """The same of the model with random weights; None without a control."""
        return None if self.control_rank is None else self.of("patches", ANY, control=True)

    def of_tokens(self, figure: str = "rate", *, control: bool = False) -> Tensor:
        """[image, stage, token]: whether the class comes first there ("rate"), its "score", or its reciprocal rank.

        Args:
            control: of the model with random weights.

        Raises:
            PrismaError: another figure, or there is no control.
        """
        if figure not in FIGURES:
            raise PrismaError(f"expected {', '.join(FIGURES)}; found {figure!r}")
        rank, tied = (self.control_rank, self.control_tied) if control else (self.rank, self.tied)
        if rank is None:
            raise PrismaError("expected a result with a control; found none: use class_identifiability(control=True)")
        if figure == "rate":
            return first_share(rank, tied)
        n = self.metadata["classes"]
        return score_of(rank, n) if figure == "score" else reciprocal_rank(rank, tied, n)

    def of(self, kind: str, figure: str = "rate", *, control: bool = False) -> Tensor:
        """[image, stage]: the mean over the tokens of one kind; NaN for an image without them.

        Args:
            kind: "class", "registers" or "patches"; with masks also "object" and "context".
            figure: as in `of_tokens`; or "any", whether one token of the kind or more has rank 0.
        """
        of_any = figure == ANY
        found = self.by_kind(self.of_tokens("rate" if of_any else figure, control=control), of_any=of_any)
        if kind not in found:
            raise PrismaError(f"expected a kind of token that is here, {', '.join(found)}; found {kind!r}")
        return found[kind]

    def interval(self, kind: str = "patches", figure: str = "rate", level: float = 0.95) -> Tensor:
        """Bootstrap interval over images [2, stage] of the mean over images: its lower and its upper end."""
        return mean_interval(self.of(kind, figure), level=level)

    def p_value(self, kind: str = "patches", figure: str = "score") -> Tensor:
        """[stage]: how likely so large a difference from random weights is if there is none (Wilcoxon, over images).

        A value near 0 says that the trained model's figure is larger; 1/2 that nothing is known. One-sided.

        Raises:
            PrismaError: there is no control.
        """
        return wilcoxon(self.of(kind, figure) - self.of(kind, figure, control=True))

    def _over_patches(self, figure: str) -> Tensor:
        return self.of_tokens(figure)[..., self.metadata["prefix"] :].mean(-1)

    def plot(self, array: str | None = None, *, by_kind: bool = False, cause: Effect | None = None) -> "Figure":
        """Means over images by stage, with chance: `rate`, `score` and `mrr`, or one of them; "rank" is a heat map.

        Args:
            by_kind: a line for each kind of token, of `array` (by default the rate).
            cause: draw the effects of a causal analysis beside, for what can be read need not be used: those of
                `causal_tracing` with `axis="role"`, or of any analysis with a row for each layer.
        """
        title, chance = str(self.metadata["analysis"]).replace("_", " "), self.metadata["chance"]
        if array == "rank":
            title += ": rank of the class, mean over images"
            return draw(self.rank.double().mean(0), ("stage", "token"), title=title)
        if array == "any_patch":
            lines = {"any_patch": self.any_patch}
            lines |= {} if (random := self.control_any_patch) is None else {"random weights": random}
            return draw_stages(lines, level=self.metadata["chance_any_patch"], title=f"{title}: one patch or more")
        if array is not None and array not in chance:
            return super().plot(array)  # whose error lists the arrays
        if by_kind or cause is not None:
            figure = array or "rate"
            lines = self.by_kind(self.of_tokens(figure))
            return draw_stages(lines, level=chance[figure], title=f"{title}: {figure}", beside=effects_by_layer(cause))
        lines = {name: self._over_patches(name) for name in FIGURES if array in (None, name)}
        return draw_stages(lines, chance=chance, title=f"{title}, mean over patches")


@guarded
@torch.no_grad()
def class_identifiability(
    model: ViT,
    images: Tensor,
    labels: Tensor,
    *,
    masks: Tensor | None = None,
    norm: str = "final",
    bias: bool = True,
    control: bool = False,
    seed: int = 0,
    batch: int | None = None,
) -> ClassIdentifiability:
    """From which tokens can the class be read, and from which stage on?

    Every token alone is projected onto the classes, and the rank of the image's class is what it answers: rank 0 is the
    class itself. `rate` is the share of patches with rank 0; far above `metadata["chance"]` means that the class is
    written all over the image, near chance that it is only in other tokens (the class token) or not there yet.

    Args:
        images: [batch, channel, (frame,) height, width].
        labels: [batch], whole numbers.
        masks: of the objects, for tokens of the kinds "object" and "context": [batch, height, width] of the images'
            size, or the share of each patch [batch, row, column].
        norm, bias: how a token is projected, as in `class_space.project`.
        control: also of the model with random weights (of `seed`), for `p_value`. It takes as long again.
        batch: images in one pass; by default as many as have about 256 MiB of activations.

    Returns:
        `rank` [image, stage, token], and where classes tie also `tied`; `score` [stage, image, token]; `rate`, `mrr`
        and `any_patch` [image, stage], from 0 to 1.

    Raises:
        PrismaError: the model has no classes, the labels are not a class of the model for each image, or the masks do
            not fit the images.

    Source: Vilas et al. 2310.18969.
    """
    ranks = RankReader(model, images, labels, masks=masks, norm=norm, bias=bias)
    read_all(model, images, [ranks], batch)
    if not control:
        return ranks.result()
    other = RankReader(random_control(model, seed), images, labels, norm=norm, bias=bias)
    read_all(other.model, images, [other], batch)
    return ranks.result(other)


class RankReader:
    """The rank of the image's class at every token and stage, from one pass after another."""

    def __init__(
        self,
        model: ViT,
        images: Tensor,
        labels: Tensor,
        *,
        masks: Tensor | None = None,
        norm: str = "final",
        bias: bool = True,
    ) -> None:
        self.model, self.labels = model, expect_labels(model, images, labels)
        self.projection = Projection(model, norm, bias)
        self.coverage = None if masks is None else coverage_of(model.config, images, masks)
        self.sites = stream_numbers(model, stage_sites(model))
        self.found: list[tuple[Tensor, ...]] = []

    def add(self, one: Pass) -> None:
        streams, plain = stages(self.model, one.images, one.acts), self.projection.is_plain and bool(self.sites)
        each: list[str | Tensor] = list(self.sites) if plain else list(streams)
        of_stages = []
        for x in each:
            logits_BTC = one.projected(x) if isinstance(x, str) else expect_finite_run(self.projection(x, streams[-1]))
            of_stages.append(rank_and_ties(logits_BTC, self.labels[one.rows]))
        self.found.append(tuple(torch.stack(x, dim=1) for x in zip(*of_stages, strict=True)))

    def ranks(self) -> tuple[Tensor, Tensor | None]:
        """Rank and ties [image, stage, token]; no ties where there are none."""
        rank, tied = (torch.cat(x) for x in zip(*self.found, strict=True))
        return rank, tied if (tied > 1).any() else None

    def result(self, control: "RankReader | None" = None) -> ClassIdentifiability:
        arrays: dict[str, Any] = dict(zip(("rank", "tied"), self.ranks(), strict=True)) | {"coverage": self.coverage}
        if control is not None:
            arrays |= dict(zip(("control_rank", "control_tied"), control.ranks(), strict=True))
        n, projected = self.model.config.n_classes, {"norm": self.projection.norm, "bias": self.projection.bias}
        settings = {**projected, "control": control is not None, "classes": n, "chance": by_chance(n)}
        settings["chance_any_patch"] = 1 - (1 - 1 / n) ** self.model.config.n_patches
        metadata = {"analysis": "class_identifiability", **kinds_metadata(self.model.config), **settings}
        return ClassIdentifiability(metadata=metadata, **arrays)
