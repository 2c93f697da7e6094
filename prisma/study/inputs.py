"""The inputs of an analysis for one shard of a data set: images, corrupt images, the metric.

None of them depends on how the data set is divided into shards: the other image of a pair is the next one in the whole
data set, noise has its own seed for each image, and means are over the first images of the data set.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from prisma.analysis.patching.corruptions import CORRUPTIONS, OF_OBJECTS, derangement
from prisma.batching import inputs_per_pass
from prisma.data.counterfactuals import Counterfactuals, counterfactuals
from prisma.data.pictures import Pictures
from prisma.data.task import Task, coverage
from prisma.errors import PrismaError, nearest
from prisma.metrics import Metric, named_metric
from prisma.plain import uncompiled
from prisma.runs import run
from prisma.vit import ViT

T = TypeVar("T")
PAIRED = ("other", "swap")
"""Corruptions that use another image of the data set: the next one, or a random one."""
WITH_SIGMA = ("noise", "blur")
"""Corruptions whose strength is set by sigma."""


@dataclass(frozen=True, eq=False)
class ShardInputs:
    """What an analysis may need for some images of a data set; each property is computed on first use."""

    network: nn.Module  # a vision transformer; of an analysis that says so (`Analysis.networks`), any network
    pictures: Pictures
    rows: range  # image indices in the data set
    options: Mapping[str, Any]  # every option of the analysis, by name
    batch: int | None = None
    kept: dict[str, Any] = field(default_factory=dict)  # what all shards share, by name: see `once`

    @property
    def model(self) -> ViT:
        """The network as a vision transformer. Raises PrismaError: it is another one."""
        if not isinstance(uncompiled(self.network), ViT):
            raise PrismaError(f"expected a vision transformer of Prisma; found a {type(self.network).__name__}")
        return self.network  # type: ignore[return-value]

    def once(self, name: str, make: Callable[[], T]) -> T:
        """What all shards of an analysis share, made by the first that needs it."""
        if name not in self.kept:
            self.kept[name] = make()
        found: T = self.kept[name]
        return found

    def select_options(self, *names: str) -> dict[str, Any]:
        """The options with these names."""
        return {name: self.options[name] for name in names}

    @property
    def device(self) -> torch.device:
        return self.model.embed.prefix.device

    @property
    def seed(self) -> int:
        """The random seed of this shard."""
        return int(self.options["seed"]) + self.rows.start

    @cached_property
    def images(self) -> Tensor:
        return self._to_model(self.pictures.read(self.rows))

    @cached_property
    def reference(self) -> Tensor:
        """The first images of the data set, over which means are computed."""
        return self._to_model(self.pictures.reference)

    @cached_property
    def following_images(self) -> Tensor | None:
        """As many images as the shard has, which follow it in the data set (after the last comes the first).

        None if the shard is the whole data set; fewer if fewer images are outside the shard.
        """
        n, total = len(self.rows), len(self.pictures)
        rows = [(self.rows.stop + i) % total for i in range(min(n, total - n))]
        return self._to_model(self.pictures.read(rows)) if rows else None

    @property
    def labels(self) -> Tensor:
        """The class of each image.

        Raises:
            PrismaError: they are not known, or all images of the data set are of one class.
        """
        if self.pictures.labels is None:
            raise PrismaError(
                "expected images with labels, which this analysis needs; found none: use a task, or a folder whose "
                "subfolders are the model's classes"
            )
        if len(self.pictures.labels.unique()) < 2:
            raise PrismaError(
                "expected a data set with two classes or more, for of one alone it cannot be told whether it is read "
                f"or always answered; found one class in {len(self.pictures)} images"
            )
        return self.pictures.labels[self.rows.start : self.rows.stop].to(self.device)

    def training(self, n: int) -> tuple[Tensor, Tensor]:
        """The first n training images, and their labels.

        Raises:
            PrismaError: there are none.
        """
        if self.pictures.training is None:
            raise PrismaError("expected a task, whose training images this analysis needs; found a folder")
        images, labels = self.pictures.training(n)
        return self._to_model(images), labels.to(self.device)

    def counterfactuals(self, split: str, n: int | None = None) -> Counterfactuals:
        """Triples in which the factor of the options comes from another image; of test images those of this shard.

        Raises:
            PrismaError: there is no task, no factor in the options, or as `prisma.data.counterfactuals`.
        """
        factor = self.options["exchange"]
        if factor is None:
            raise PrismaError("expected --set exchange=FACTOR, what is exchanged between images; found none")
        rows = self.rows if split == "test" else None
        seed, transform = self.options["seed"], self.pictures.transform
        found = counterfactuals(self._task, factor, split, n, rows=rows, seed=seed, transform=transform)
        images, sources = self._to_model(found.images), self._to_model(found.sources)
        return Counterfactuals(images, sources, found.labels.to(self.device))

    def concept(self, training: int) -> tuple[Tensor, Tensor]:
        """The first training images, and which of them show the concept of the options [image], bool.

        Raises:
            PrismaError: there is no task, no concept in the options, or no such factor or value.
        """
        images, labels = self.training(training)
        name, _, value = (self.options["concept"] or "").partition(":")
        if not value:
            raise PrismaError(
                f"expected --set concept=FACTOR:VALUE, such as hue:red, or label:3; found {self.options['concept']!r}"
            )
        if name == "label":
            known, numbers = [str(i) for i in range(len(self._task.labels))], labels.cpu()
        else:
            factors = {factor.name: factor for factor in self._task.factors}
            if name not in factors:
                raise PrismaError(
                    f"expected a factor of {self._task.name}; found {name!r}; the nearest: "
                    f"{nearest(name, [*factors, 'label'])}"
                )
            numbers = self._task.splits["train"].factors[name][: len(labels)]
            known = list(factors[name].names) or [str(i) for i in range(int(numbers.max()) + 1)]
        if value not in known:
            raise PrismaError(f"expected a value of {name}; found {value!r}; the nearest: {nearest(value, known)}")
        return images, numbers == known.index(value)

    def pairs_of_numbers(self) -> tuple[Tensor, Tensor]:
        """All pictures and then all training images, and the two numbers [image, 2] that each shows.

        Raises:
            PrismaError: there is no task whose labels are the sum of its factors first and second, modulo the classes.
        """
        images, labels = self.training(len(self._task.splits["train"].labels))
        shown = len(self.pictures)
        test, train = (self._task.splits[split].factors for split in ("test", "train"))
        names = ("first", "second")
        known = [torch.cat([test[n][:shown], train[n]]) for n in names if n in test]
        right = torch.cat([self._task.splits["test"].labels[:shown], labels.cpu()])
        if len(known) < 2 or not torch.equal((known[0] + known[1]) % len(self._task.labels), right):
            raise PrismaError(
                "expected a task whose label is the sum of its factors first and second modulo the number of classes, "
                f"such as circle; found {self._task.name}"
            )
        return torch.cat([self._to_model(self.pictures.read(range(shown))), images]), torch.stack(known, 1)

    @property
    def _task(self) -> Task:
        if self.pictures.task is None:
            raise PrismaError("expected a task, whose images have known factors; found a folder")
        return self.pictures.task

    @property
    def object_masks(self) -> Tensor:
        """Where each image shows the object [image, height, width].

        Raises:
            PrismaError: the data set has no object masks.
        """
        return self._masks().to(self.device)

    @property
    def object_masks_or_none(self) -> Tensor | None:
        return None if self.pictures.masks is None else self.object_masks

    @cached_property
    def object_coverage(self) -> Tensor:
        """The fraction of each patch that the object covers [image, row, column].

        Raises:
            PrismaError: the data set has no object masks.
        """
        return coverage(self._masks(), self.model.config.patch_size).to(self.device)

    @property
    def object_coverage_or_none(self) -> Tensor | None:
        return None if self.pictures.masks is None else self.object_coverage

    @cached_property
    def corrupt(self) -> Tensor:
        """The corrupt image of each pair.

        Raises:
            PrismaError: no such corruption; sigma for a corruption that has none; a single image where a pair of images
                is needed; or no object masks for a corruption of the object.
        """
        name, sigma, n = self.options["corrupt"], self.options["sigma"], len(self.pictures)
        if name not in CORRUPTIONS:
            raise PrismaError(f"expected a corruption: {', '.join(CORRUPTIONS)}; found {name!r}")
        if sigma is not None and name not in WITH_SIGMA:
            raise PrismaError(f"expected sigma only with {' or '.join(WITH_SIGMA)}; found sigma={sigma} with {name}")
        if name in PAIRED:
            if n < 2:
                raise PrismaError(
                    f"expected 2 images or more, because the corruption {name} uses another image; found {n}"
                )
            order = derangement(n, self.options["seed"]) if name == "swap" else torch.arange(1, n + 1) % n
            return self._to_model(self.pictures.read(order[list(self.rows)].tolist()))
        masks = self._masks().to(self.device) if name in OF_OBJECTS else None
        return torch.cat([self._corrupt_image(name, i, masks) for i in range(len(self.rows))])

    def _corrupt_image(self, name: str, i: int, masks: Tensor | None) -> Tensor:
        """The corrupt version of one image [1, ...]."""
        options: dict[str, Any] = {}
        if name == "mean":
            options["reference"] = self.reference
        if name == "noise":
            options["seed"] = self.seed + i
        if self.options["sigma"] is not None:
            options["sigma"] = self.options["sigma"]
        one = slice(i, i + 1)
        return CORRUPTIONS[name](self.images[one], None if masks is None else masks[one], **options)

    @cached_property
    def metric(self) -> Metric:
        """The metric named in the options, for the target class or else the predicted class of each image.

        Raises:
            PrismaError: a model without classes, no such metric, or no such class.
        """
        if not self.model.config.n_classes:
            raise PrismaError(
                "expected a model with classes, because a metric needs them; found none; for a CLIP, use --prompts"
            )
        return named_metric(self.options["metric"], self._logits, self.options["target"])

    @property
    def classes(self) -> Tensor:
        """The target class, or else the predicted class, of each image [image]."""
        if self.options["target"] is None:
            return self._logits.argmax(-1)
        return torch.full((len(self.rows),), int(self.options["target"]), device=self.device)

    @property
    def _logits(self) -> Tensor:
        """Logits of the clean images [image, class]."""
        with torch.no_grad():
            return torch.cat(
                [run(self.model, chunk) for chunk in self.images.split(inputs_per_pass(self.model, self.batch))]
            )

    def _masks(self) -> Tensor:
        if self.pictures.masks is None:
            raise PrismaError(
                "expected images with object masks, which this analysis needs; found pictures without masks; the tasks "
                "sprites and sprites-neutral have masks"
            )
        return self.pictures.masks[self.rows.start : self.rows.stop]

    def _to_model(self, images: Tensor) -> Tensor:
        return images.to(self.model.embed.prefix)
