"""What an analysis of a data set is given of one shard: images, pairs, the metric.

None of it depends on which images share a shard: the other image of a pair is the next of the whole data set, noise
has a seed of its own for each image, and means are of the data set's first images.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from prisma.analysis.patching.corruptions import CORRUPTIONS, derangement
from prisma.batching import inputs_per_pass
from prisma.data.pictures import Pictures
from prisma.data.task import coverage
from prisma.errors import PrismaError
from prisma.metrics import Metric, named_metric
from prisma.runs import run
from prisma.vit import ViT

PAIRED = ("other", "swap")
"""Corruptions that take another image of the data set: the next one, or one that is drawn."""
STRONG = ("noise", "blur")
"""Corruptions that have a strength, sigma."""


@dataclass(frozen=True, eq=False)
class ShardInputs:
    """Some rows of a data set, for one analysis. What it does not ask for is not computed."""

    model: ViT
    pictures: Pictures
    rows: range
    options: Mapping[str, Any]  # of the analysis, by name
    batch: int | None = None

    def chosen(self, *names: str) -> dict[str, Any]:
        """Some of the options."""
        return {name: self.options[name] for name in names}

    @property
    def device(self) -> torch.device:
        return self.model.embed.patch.weight.device

    @property
    def seed(self) -> int:
        """For what is drawn for a whole shard."""
        return int(self.options["seed"]) + self.rows.start

    @cached_property
    def images(self) -> Tensor:
        return self._to_model(self.pictures.read(self.rows))

    @cached_property
    def reference(self) -> Tensor:
        """The first images of the data set: means are of these."""
        return self._to_model(self.pictures.reference)

    @cached_property
    def others(self) -> Tensor | None:
        """The images that follow in the data set, as many, none of this shard; None if there are none."""
        n, of = len(self.rows), len(self.pictures)
        rows = [(self.rows.stop + i) % of for i in range(min(n, of - n))]
        return self._to_model(self.pictures.read(rows)) if rows else None

    @cached_property
    def coverage(self) -> Tensor:
        """The share of each patch that is object [image, row, column].

        Raises:
            PrismaError: it is not known where the objects are.
        """
        return coverage(self._masks(), self.model.config.patch_size).to(self.device)

    @property
    def coverage_if_known(self) -> Tensor | None:
        return None if self.pictures.masks is None else self.coverage

    @cached_property
    def corrupt(self) -> Tensor:
        """The corrupt image of each pair.

        Raises:
            PrismaError: no such corruption, another image of a data set that has one, or an object of no known place.
        """
        name, sigma, n = self.options["corrupt"], self.options["sigma"], len(self.pictures)
        if name not in CORRUPTIONS:
            raise PrismaError(f"expected a corruption of {', '.join(CORRUPTIONS)}; found {name!r}")
        if sigma is not None and name not in STRONG:
            raise PrismaError(f"sigma is of {' and '.join(STRONG)}; found sigma={sigma} of {name}")
        if name in PAIRED:
            if n < 2:
                raise PrismaError(f"the corruption {name} takes another image and needs at least 2; found {n}")
            order = derangement(n, self.options["seed"]) if name == "swap" else torch.arange(1, n + 1) % n
            return self._to_model(self.pictures.read(order[list(self.rows)].tolist()))
        where = self._masks().to(self.device) if name == "object" else None
        return torch.cat([self._corrupted(name, i, where) for i in range(len(self.rows))])

    def _corrupted(self, name: str, i: int, where: Tensor | None) -> Tensor:
        """One image [1, ...]."""
        options: dict[str, Any] = {}
        if name == "mean":
            options["reference"] = self.reference
        if name == "noise":
            options["seed"] = self.seed + i
        if self.options["sigma"] is not None:
            options["sigma"] = self.options["sigma"]
        some = slice(i, i + 1)
        return CORRUPTIONS[name](self.images[some], None if where is None else where[some], **options)

    @cached_property
    def metric(self) -> Metric:
        """The metric of the options, for the class of the options or else the model's own answer to each image.

        Raises:
            PrismaError: a model without classes, no such metric, or no such class.
        """
        if not self.model.config.n_classes:
            raise PrismaError("a metric needs a model with classes; found none: a CLIP gets classes from --prompts")
        return named_metric(self.options["metric"].replace("-", "_"), self._logits, self.options["target"])

    @property
    def _logits(self) -> Tensor:
        """Of the images as they are [image, class]."""
        with torch.no_grad():
            return torch.cat(
                [run(self.model, some) for some in self.images.split(inputs_per_pass(self.model, self.batch))]
            )

    def _masks(self) -> Tensor:
        if self.pictures.masks is None:
            raise PrismaError(
                "this analysis needs to know where the object is; found pictures without masks: the tasks sprites and "
                "sprites-neutral have them"
            )
        return self.pictures.masks[self.rows.start : self.rows.stop]

    def _to_model(self, images: Tensor) -> Tensor:
        return images.to(self.model.embed.patch.weight)
