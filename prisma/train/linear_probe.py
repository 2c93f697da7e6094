"""How much of a task can be read from a model's features by a linear map? The features stay as they are.

The map is ridge regression on the classes as columns of 0 and 1, in closed form and in float64, so that it needs no
schedule, no seed and no luck. How strong the ridge is follows from the training images alone: the last fifth of them
judges maps that were fitted on the others.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from prisma.data.task import Task
from prisma.metrics import above_and_tied, top_share
from prisma.runs import record
from prisma.vit import ViT

RIDGES = tuple(10.0**power for power in range(-7, 3))
"""Weights of the penalty, for features with a standard deviation of 1, in the mean over images."""


@dataclass(frozen=True)
class LinearProbe:
    """How well a linear map of features names the class of an image."""

    accuracy: float  # on the test images
    n: int  # of them
    ridge: float  # the weight of the penalty


def linear_probe(model: ViT | None, data: Task, site: str = "pooled", images: int = 10_000) -> LinearProbe:
    """Fit a linear map from a model's features to the classes of a task, and try it on the test images.

    Read the accuracy beside that of other features: of the same model with random weights, and of the pixels.

    Args:
        model: None: the features are the normalised pixels.
        site: where the features are read; of tokens, the mean.
        images: at most so many images of each split.

    Raises:
        PrismaError: no such site.
    """
    (train, labels), (test, wanted) = (data.inputs(split, images) for split in ("train", "test"))
    x, x_test = (_features(model, some, site) for some in (train, test))
    mean, deviation = x.mean(0), x.std(0, correction=0)
    x, x_test = ((some - mean) / torch.where(deviation > 0, deviation, 1.0) for some in (x, x_test))
    kept, n = len(x) - len(x) // 5, len(data.labels)
    maps = {ridge: ridge_map(x[:kept], labels[:kept], n, ridge) for ridge in RIDGES}
    best = max(RIDGES, key=lambda ridge: (_accuracy(maps[ridge], x[kept:], labels[kept:]), ridge))
    return LinearProbe(_accuracy(ridge_map(x, labels, n, best), x_test, wanted), len(wanted), best)


def ridge_map(x: Tensor, labels: Tensor, n_classes: int, ridge: float) -> Tensor:
    """The map [feature + 1, class] with the least mean squared error plus `ridge` times its squares.

    The last row, which is not penalised, is the bias.

    Args:
        x: features [image, feature], float64; labels: [image].
    """
    wanted = torch.nn.functional.one_hot(labels, n_classes).to(x.dtype)
    mean, share = x.mean(0), wanted.mean(0)
    inner = (x - mean).T @ (x - mean) / len(x) + ridge * torch.eye(x.shape[1], dtype=x.dtype)
    weights = torch.linalg.solve(inner, (x - mean).T @ (wanted - share) / len(x))
    return torch.cat([weights, (share - mean @ weights)[None]])


def _accuracy(weights: Tensor, x: Tensor, labels: Tensor) -> float:
    scores = x @ weights[:-1] + weights[-1]
    return float(top_share(*above_and_tied(scores, labels)).double().mean())


def _features(model: ViT | None, images: Tensor, site: str) -> Tensor:
    """[image, feature], float64."""
    if model is None:
        return images.flatten(1).double()
    found = []
    with torch.no_grad():
        for some in images.split(1024):
            _, acts = record(model, some, site, stop=True)
            found.append(acts[site].double())
    x = torch.cat(found)
    return x.mean(1) if x.ndim == 3 else x
