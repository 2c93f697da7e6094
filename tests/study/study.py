"""A data set of noise images and a small model, for tests of analyses over a data set."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prisma import ViT
from prisma.data.pictures import Pictures
from prisma.data.task import Factor, Split, Task, data_hash
from prisma.data.transform import Transform
from prisma.study.catalog import options_of
from prisma.study.inputs import ShardInputs
from prisma.study.shards import DatasetAnalysis
from tests.variants import images_of, model_of


def noise(model: ViT, n: int = 5, *, masks: bool = True) -> Pictures:
    """Noise images, each with a random object mask."""
    images = images_of(model, n)
    sides = images.shape[-2:]
    labels, training = torch.arange(n) % 5, images_of(model, 48, 3)
    objects = torch.rand(n, *sides, generator=torch.Generator().manual_seed(2)) > 0.6

    def read(rows: Sequence[int]) -> Tensor:
        return images[torch.tensor(list(rows))]

    return Pictures(
        tuple(f"{i}.png" for i in range(n)),
        "a hash",
        read,
        objects if masks else None,
        labels,
        lambda n: (training[:n], torch.arange(48)[:n] % 5),
        _task(images, training),
        again=lambda transform, shape: noise(model, n, masks=masks),
    )


def _task(images: Tensor, training: Tensor) -> Task:
    """Two factors, of which the label follows; and two numbers, whose sum it is."""

    def split(x: Tensor) -> Split:
        label, first = torch.arange(len(x)) % 5, torch.arange(len(x)) // 5 % 5
        factors = {"shape": label // 2, "hue": torch.arange(len(x)) % 2}
        return Split(x, label, factors=factors | {"first": first, "second": (label - first) % 5})

    sides = (images.shape[2], images.shape[3])
    return Task(
        name="noise",
        summary="noise",
        source="noise",
        labels=tuple("abcde"),
        transform=Transform(size=sides, mean=(0.0,), std=(1.0,)),
        make=lambda: (split(training), split(images)),
        sha256=data_hash(split(training), split(images)),
        factors=(Factor("shape", "the shape", ("x", "y", "z")), Factor("hue", "the hue", count=2)),
        rule=lambda factors: (2 * factors["shape"] + factors["hue"]) % 5,
    )


def job_of(
    name: str, out: Path, shard_size: int = 2, n: int = 5, variant: str = "base", **given: str
) -> DatasetAnalysis:
    """An analysis of a model of this variant over noise images."""
    model = model_of(variant)
    return DatasetAnalysis(name, model, noise(model, n), options_of(name, given), out, shard_size)


def inputs_of(
    n: int = 5, rows: range | None = None, variant: str = "base", *, masks: bool = True, **options: Any
) -> Any:
    """The inputs of an analysis of pairs, for some rows of noise images."""
    model = model_of(variant)
    known = {"metric": "logit", "target": None, "corrupt": "other", "sigma": None, "seed": 0}
    return ShardInputs(model, noise(model, n, masks=masks), rows or range(n), known | options)
