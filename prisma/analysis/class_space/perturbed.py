"""What the two perturbations share: the class at every token of the last stage, with and without the change.

Shapes: B image, T token.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from prisma.analysis.border import expect_finite_run
from prisma.analysis.class_space.class_projection import Projection
from prisma.analysis.class_space.passes import recorded, stage_sites, stages
from prisma.analysis.class_space.ranks import first_share, rank_and_ties
from prisma.analysis.class_space.token_kinds import TokenResult
from prisma.analysis.statistics import mean_interval
from prisma.errors import PrismaError
from prisma.metrics import above_and_tied, top_share
from prisma.runs import Edits
from prisma.view.figures.charts import draw_bars
from prisma.vit import ViT

if TYPE_CHECKING:
    from matplotlib.figure import Figure


COMPAT = "vilas2023"
"""What a number is computed like, where the published one is to be reproduced."""


def expect_compat(compat: str | None) -> None:
    """Raise PrismaError unless nothing published is asked for, or what is known."""
    if compat not in (None, COMPAT):
        raise PrismaError(f"expected compat to be {COMPAT} or none; found {compat!r}")


@dataclass(frozen=True, kw_only=True, eq=False)
class Perturbed(TokenResult):
    """The class at every token of the last stage, in the changed run and in the run as it is (`clean`).

    `rate` and `clean_rate` are shares of the same tokens of an image: the patches that are left, and the class token
    too if `metadata["with_class_token"]`. `correct` is whether the model's own answer is right. With
    `metadata["compat"]`, `rate` includes the class token, `clean_rate` does not, and the mean of the latter is over all
    tokens of all images at once, as published.
    """

    AXES: ClassVar[Mapping[str, tuple[str, ...]]] = {
        **dict.fromkeys(("rate", "clean_rate", "correct", "clean_correct"), ("image",)),
        **dict.fromkeys(("first", "clean_first", "rank", "clean_rank"), ("image", "token")),
        "coverage": ("image", "patch"),
    }
    UNDEFINED: ClassVar[frozenset[str]] = frozenset(AXES) - {"coverage"}

    first: Tensor  # whether the image's class comes first at this token (1 / n of n that tie); NaN: it was removed
    rank: Tensor  # how many classes are above it, ties at their mean
    correct: Tensor  # of the model's own answer
    clean_first: Tensor
    clean_rank: Tensor
    clean_correct: Tensor

    @property
    def rate(self) -> Tensor:
        """Share of an image's tokens at which the class comes first; NaN for an image of which none is left."""
        return self._counted(self.first, self._compat or self.metadata["with_class_token"]).nanmean(1)

    @property
    def clean_rate(self) -> Tensor:
        """The same in the run as it is, over the same tokens."""
        return self._clean_counted().nanmean(1)

    @property
    def _compat(self) -> bool:
        return self.metadata.get("compat") is not None

    def _clean_counted(self) -> Tensor:
        return self._counted(self.clean_first, not self._compat and self.metadata["with_class_token"])

    def _counted(self, values: Tensor, class_token: bool) -> Tensor:
        """The values [image, token] of the tokens that a rate is over; NaN at all others."""
        counted = torch.arange(values.shape[1], device=values.device) >= self.metadata["prefix"]
        if class_token and self.metadata["class_token"]:
            counted[0] = True
        return values.masked_fill(self.first.isnan() | ~counted, torch.nan)

    def figures(self) -> dict[str, tuple[float, float]]:
        """Name -> (mean over images in the run as it is, in the changed run): of the rate and of the accuracy."""
        pairs = {"rate": (self.clean_rate, self.rate), "accuracy": (self.clean_correct, self.correct)}
        found = {name: (x.double().nanmean().item(), y.double().nanmean().item()) for name, (x, y) in pairs.items()}
        if self._compat:
            found["rate"] = (self._clean_counted().double().nanmean().item(), found["rate"][1])
        return found

    def interval(self, of: str = "rate", level: float = 0.95) -> Tensor:
        """Bootstrap interval over images [2] of the mean of an array by image, or of its change: "rate_change".

        Raises:
            PrismaError: there is no such array.
        """
        known = {name: getattr(self, name) for name in ("rate", "clean_rate", "correct", "clean_correct")}
        known |= {"rate_change": self.rate - self.clean_rate, "correct_change": self.correct - self.clean_correct}
        if of not in known:
            raise PrismaError(f"expected one of {', '.join(known)}; found {of!r}")
        return mean_interval(known[of], level=level)

    def plot(self, array: str | None = None) -> "Figure":
        """Bars with their intervals: rate and accuracy, as it is and changed; or one array."""
        if array is not None:
            return super().plot(array)
        bars = {f"{name}, {run}": value for name, pair in self.figures().items()
                for run, value in zip(("as it is", "changed"), pair, strict=True)}  # fmt: skip
        ends = [self.interval(of) for of in ("clean_rate", "rate", "clean_correct", "correct")]
        spread = torch.stack([(high - low) / 2 for low, high in ends])
        title = str(self.metadata["analysis"]).replace("_", " ")
        return draw_bars(torch.tensor(list(bars.values())), list(bars), spread=spread, title=title)


@dataclass
class LastStage:
    """Collects the class at every token of the last stage, of images that come in any order."""

    images: int
    tokens: int
    first: Tensor = field(init=False)
    rank: Tensor = field(init=False)
    correct: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self.first, self.rank = (torch.full((self.images, self.tokens), torch.nan) for _ in range(2))
        self.correct = torch.full((self.images,), torch.nan)

    def add(self, rows: Tensor, places_BT: Tensor, logits_BTC: Tensor, answer_BC: Tensor, label_B: Tensor) -> None:
        """The logits of some tokens of some images, and the model's answers."""
        rank, tied = rank_and_ties(expect_finite_run(logits_BTC), label_B)
        at = rows.cpu()[:, None], places_BT.cpu()
        self.rank[at], self.first[at] = rank.float().cpu(), first_share(rank, tied).float().cpu()
        self.correct[rows.cpu()] = top_share(*above_and_tied(expect_finite_run(answer_BC), label_B)).float().cpu()

    def of(self, some_B: Tensor) -> "LastStage":
        """Of some of the images (boolean) alone; the others have no numbers."""
        for values in (self.first, self.rank, self.correct):
            values[~some_B.cpu()] = torch.nan
        return self

    def arrays(self, prefix: str = "") -> dict[str, Tensor]:
        return {f"{prefix}{name}": getattr(self, name) for name in ("first", "rank", "correct")}


def last_stage(
    model: ViT,
    images: Tensor,
    labels: Tensor,
    projection: Projection,
    batch: int | None,
    edit: Edits | None = None,
) -> LastStage:
    """The class at every token of the last stage of a run with edits."""
    found, every = LastStage(len(images), model.config.n_tokens), torch.arange(model.config.n_tokens)
    for rows, logits, acts in recorded(model, images, stage_sites(model)[-1:], batch, edit=edit):
        last_BTM = stages(model, images[rows], acts, last=True)[0]
        chosen = torch.arange(len(images))[rows]
        found.add(chosen, every.expand(len(chosen), -1), projection(last_BTM), logits, labels[rows])
    return found
