"""Class identifiability: from which share of an image's patches can its class be read, and from which stage on?

With the logit lens P of each token alone, the rank of the image's class c among C classes at token i, and three means
of it over an image's patches:

    rank_i = #{k : P_ik > P_ic}         0 is best
    rate   = mean [rank_i = 0]          by chance 1 / C
    score  = mean (1 - rank_i / C)      by chance 1 - (C - 1) / (2 C), and never 0
    mrr    = mean 1 / (1 + rank_i)      by chance (1 + 1/2 + ... + 1/C) / C

Source: Vilas et al. 2310.18969 (rate and score). What is readable need not be used: pair it with patching.

Shapes: B batch, S stage (0 is the embedding, s is after block s - 1), T token, P patch, C class.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from prisma.analysis.lens.logit_lens import read_alone, stages_of
from prisma.analysis.result import Result
from prisma.errors import PrismaError
from prisma.metrics import Rank
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
        "rank": ("image", "stage", "token"),
    }

    rank: Tensor  # of the image's class, 0 is best; at every token, prefix tokens first

    @property
    def _patches(self) -> Tensor:
        return self.rank[..., self.metadata["prefix"] :].double()

    @property
    def rate(self) -> Tensor:
        """Share of patches at which the class has the largest logit."""
        return (self._patches == 0).double().mean(-1)

    @property
    def score(self) -> Tensor:
        """Mean over patches of 1 - rank / C."""
        return (1 - self._patches / self.metadata["classes"]).mean(-1)

    @property
    def mrr(self) -> Tensor:
        """Mean over patches of 1 / (1 + rank)."""
        return (1 / (1 + self._patches)).mean(-1)

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
        `rank` [image, stage, token], whole numbers; `rate`, `score` and `mrr` [image, stage], from 0 to 1.

    Raises:
        PrismaError: the model has no classes, or the labels are not a class of the model for each image.

    Source: Vilas et al. 2310.18969.
    """
    if labels.shape != images.shape[:1]:
        raise PrismaError(f"expected a label for each of {len(images)} images; found {list(labels.shape)}")
    c = model.config
    rank = Rank(labels.repeat_interleave(c.n_tokens))
    stages = [read_alone(model, x_BTM, batch).flatten(0, 1) for x_BTM in stages_of(model, images, batch)]
    rank_BST = torch.stack([rank(x_NC).long().view(-1, c.n_tokens) for x_NC in stages], dim=1)
    n = c.n_classes
    chance = {"rate": 1 / n, "score": 1 - (n - 1) / (2 * n), "mrr": sum(1 / k for k in range(1, n + 1)) / n}
    metadata = {"analysis": "class_identifiability", "prefix": c.n_prefix, "classes": n, "chance": chance}
    return ClassIdentifiability(metadata=metadata, rank=rank_BST)
