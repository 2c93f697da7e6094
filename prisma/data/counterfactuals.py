"""Triples for interchange interventions: a base image, a source image, and the label of a counterfactual image.

The counterfactual image would have one factor's value from the source and all others from the base. It is never drawn:
its label follows from the task's rule. A source is chosen so that the three labels tell what an intervention did:

    base's own label, source's own label, counterfactual label      all three differ

so a run that is not changed, and one in which everything is exchanged, are both wrong. (Where the label is the factor
itself, the source's label is the counterfactual one, and only the base's differs.)

Source: Geiger et al. 2106.02997 (causal abstractions); Geiger et al. 2303.02536.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from prisma.data.task import Task
from prisma.data.transform import Transform
from prisma.errors import PrismaError, nearest

TRIES = 64
"""Sources that are tried for each base."""


@dataclass(frozen=True)
class Counterfactuals:
    """Base images, source images and counterfactual labels, one triple in each row."""

    images: Tensor  # [n, channel, height, width], normalised: the base of each triple
    sources: Tensor  # the same of the sources
    labels: Tensor  # [n], int64


def counterfactuals(
    task: Task,
    factor: str,
    split: str = "test",
    n: int | None = None,
    *,
    rows: Sequence[int] | None = None,
    seed: int = 0,
    transform: Transform | None = None,
) -> Counterfactuals:
    """Triples in which a factor's value would come from the source: one for each of some images of a split.

    Args:
        factor: one of the task's factors, on which its labels depend.
        n: so many images, chosen at random, for a split may be in the order of its classes; by default all.
        rows: which images instead, by their index. The source of an image does not depend on which others are there.
        seed: of the choice of images, and of sources, each of which may be any image of the split.
        transform: the model's, where it is not the task's own.

    Raises:
        PrismaError: the task's labels do not follow from factors, there is no such factor, or the labels do not depend
            on it; or no images.
    """
    if task.rule is None:
        raise PrismaError(f"expected a task whose labels follow from its factors; found {task.name}")
    known = [each.name for each in task.factors]
    if factor not in known:
        raise PrismaError(f"expected a factor of {task.name}; found {factor!r}; the nearest: {nearest(factor, known)}")
    data, chosen, random = task.splits[split], transform or task.transform, torch.Generator().manual_seed(seed)
    total = len(data.labels)
    count = total if n is None else n
    if not 1 <= count <= total:
        raise PrismaError(f"expected 1 to {total:,} triples of the {split} images of {task.name}; found {count:,}")
    tried = torch.randint(total, (TRIES, total), generator=random)
    some = torch.randperm(total, generator=random)[:count].sort().values
    base = some if rows is None else torch.as_tensor(list(rows), dtype=torch.long)
    tried, own = tried[:, base], task.rule(data.factors)
    labels = torch.stack([_labels(task, data.factors, factor, base, source) for source in tried])
    itself = bool((own[tried] == labels).all())  # the label is the factor
    useful = (labels != own[base]) & ((labels != own[tried]) | itself)
    if not useful.any(0).all():
        raise PrismaError(
            f"expected labels of {task.name} that depend on {factor}; found none of {len(tried)} sources that changes "
            f"the label of image {int(base[(~useful.any(0)).nonzero()[0]])}"
        )
    first = useful.int().argmax(0)[None]
    source = tried.gather(0, first)[0]
    images, sources = (chosen.normalise(data.images[x]) for x in (base, source))
    return Counterfactuals(images, sources, labels.gather(0, first)[0])


def _labels(task: Task, factors: Mapping[str, Tensor], factor: str, base: Tensor, source: Tensor) -> Tensor:
    """The label of each base with the factor's value of its source."""
    assert task.rule is not None, "it was looked at before"
    return task.rule({name: x[source if name == factor else base] for name, x in factors.items()})
