"""Class identifiability: from which share of an image's patches can its class be read, and from which stage on?

With the logit lens P of each token alone, the rank of the image's class c among C classes at token i, and three means
of it over an image's patches:

    rank_i = #{k : P_ik > P_ic}         0 is best
    rate   = mean [rank_i = 0]          by chance 1 / C
    score  = mean (1 - rank_i / C)      by chance 1 - (C - 1) / (2 C), and never 0
    mrr    = mean 1 / (1 + rank_i)      by chance (1 + 1/2 + ... + 1/C) / C

Where classes have the same logit, each is the mean over all orders of those that tie, so that constant logits have
exactly the numbers of chance.

Source: Vilas et al. 2310.18969 (rate and score). What is readable need not be used: pair it with patching.

Shapes: B batch, S stage (0 is the embedding, s is after block s - 1), T token, P patch, C class.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from prisma.analysis.border import expect_finite_run, guarded
from prisma.analysis.lens.logit_lens import read_alone, stages_of
from prisma.analysis.result import Result
from prisma.errors import PrismaError
from prisma.metrics import above_and_tied, top_share
from prisma.view.figures.charts import draw_stages
from prisma.view.figures.plots import draw
from prisma.vit import ViT

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassIdentifiability(Result):
    """How well the class can be read from an image's patches, at each stage.

    `rate` is the share of patches that would answer the class: 0 at first, and larger where the class has become
    readable. Compare with `metadata["chance"]`, the scores of random answers.
    """

    AXES: ClassVar[Mapping[str, tuple[str, ...]]] = {
        **dict.fromkeys(("rate", "score", "mrr"), ("image", "stage")),
        **dict.fromkeys(("rank", "tied"), ("image", "stage", "token")),
    }

    rank: Tensor  # of the image's class, 0 is best, ties at their mean; at every token, prefix tokens first
    tied: Tensor | None = None  # how many classes have its logit, itself included; None: it is alone everywhere

    @property
    def _patches(self) -> tuple[Tensor, Tensor]:
        """Of every patch, how many classes are above the image's, and how many are level with it, itself included."""
        patches = slice(self.metadata["prefix"], None)
        rank = self.rank[..., patches].double()
        tied = torch.ones_like(rank) if self.tied is None else self.tied[..., patches].double()
        return rank - (tied - 1) / 2, tied

    @property
    def rate(self) -> Tensor:
        """Share of patches at which the class has the largest logit; of n classes that share it, each has 1 / n."""
        return top_share(*self._patches).mean(-1)

    @property
    def score(self) -> Tensor:
        """Mean over patches of 1 - rank / C."""
        above, tied = self._patches
        return (1 - (above + (tied - 1) / 2) / self.metadata["classes"]).mean(-1)

    @property
    def mrr(self) -> Tensor:
        """Mean over patches of 1 / (1 + rank), and over the ranks that tied classes share."""
        above, tied = self._patches
        reciprocal = 1 / torch.arange(1, self.metadata["classes"] + 1).to(tied)
        total = torch.cat([tied.new_zeros(1), reciprocal.cumsum(0)])
        return ((total[(above + tied).long()] - total[above.long()]) / tied).mean(-1)

    def plot(self, array: str | None = None) -> "Figure":
        """Means over images by stage, with chance: `rate`, `score` and `mrr`, or one of them; "rank" is a heat map."""
        title = str(self.metadata["analysis"]).replace("_", " ")
        if array == "rank":
            title += ": rank of the class, mean over images"
            return draw(self.rank.double().mean(0), ("stage", "token"), title=title)
        chance = self.metadata["chance"]
        if array is not None and array not in chance:
            return super().plot(array)  # whose error lists the arrays
        lines = {name: x for name, x in self.arrays.items() if name in chance and array in (None, name)}
        return draw_stages(lines, chance=chance, title=f"{title}, mean over patches")


@guarded
@torch.no_grad()
def class_identifiability(
    model: ViT, images: Tensor, labels: Tensor, *, batch: int | None = None
) -> ClassIdentifiability:
    """From which share of the patches can the class be read, and from which stage on?

    Every token alone is given to the model's own readout, and the rank of the image's class is what it answers: rank 0
    is the class itself. `rate` is the share of patches with rank 0; far above `metadata["chance"]` means that the class
    is written all over the image, near chance that it is only in other tokens (the class token) or not there yet.

    Args:
        images: [batch, channel, (frame,) height, width].
        labels: [batch], whole numbers.
        batch: images in one pass; by default as many as have about 256 MiB of activations.

    Returns:
        `rank` [image, stage, token], and where classes tie also `tied`; `rate`, `score` and `mrr` [image, stage], from
        0 to 1.

    Raises:
        PrismaError: the model has no classes, or the labels are not a class of the model for each image.

    Source: Vilas et al. 2310.18969.
    """
    if labels.shape != images.shape[:1]:
        raise PrismaError(f"expected a label for each of {len(images)} images; found {list(labels.shape)}")
    c = model.config
    label_N = labels.repeat_interleave(c.n_tokens)
    stages = [read_alone(model, x_BTM, batch).flatten(0, 1) for x_BTM in stages_of(model, images, batch)]
    counts = [above_and_tied(expect_finite_run(x_NC), label_N) for x_NC in stages]
    above, tied = (torch.stack([x.view(-1, c.n_tokens) for x in x_S], dim=1) for x_S in zip(*counts, strict=True))
    n = c.n_classes
    chance = {"rate": 1 / n, "score": 1 - (n - 1) / (2 * n), "mrr": sum(1 / k for k in range(1, n + 1)) / n}
    metadata = {"analysis": "class_identifiability", "prefix": c.n_prefix, "classes": n, "chance": chance}
    return ClassIdentifiability(metadata=metadata, rank=above + (tied - 1) / 2, tied=tied if (tied > 1).any() else None)
