"""A data set of noise images and a small model, for tests of analyses over a data set."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prisma import ViT
from prisma.data.pictures import Pictures
from prisma.study.catalog import options_of
from prisma.study.inputs import ShardInputs
from prisma.study.shards import DatasetAnalysis
from tests.variants import images_of, model_of


def noise(model: ViT, n: int = 5, *, masks: bool = True) -> Pictures:
    """Noise images, each with a random object mask."""
    images = images_of(model, n)
    sides = images.shape[-2:]
    labels, training = torch.arange(n) % 5, images_of(model, 8, 3)
    objects = torch.rand(n, *sides, generator=torch.Generator().manual_seed(2)) > 0.6

    def read(rows: Sequence[int]) -> Tensor:
        return images[torch.tensor(list(rows))]

    return Pictures(
        tuple(f"{i}.png" for i in range(n)),
        "a hash",
        read,
        objects if masks else None,
        labels,
        lambda n: (training[:n], torch.arange(8)[:n] % 5),
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
