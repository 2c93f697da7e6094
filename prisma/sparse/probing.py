"""k-sparse probing: how well do the k best latents alone tell the classes apart? (Gurnee et al. 2305.01610)

Of several benchmarks of sparse coders it is the most reliable (2605.18229). Latents are ranked on the training images
by the F statistic of an analysis of variance, and a logistic regression on the k first ones is measured on test images.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from prisma.errors import PrismaError

DECAY = 1e-3  # of the weights of the regression


def f_statistic(z: Tensor, labels: Tensor) -> Tensor:
    """[latent]: variance between classes over variance within, of latents [n, m]; 0 for a latent that is constant."""
    z = z.double()
    classes, places = labels.unique(return_inverse=True)
    counts = places.bincount().double()
    means = (
        torch.zeros(len(classes), z.shape[1], dtype=z.dtype, device=z.device).index_add_(0, places, z) / counts[:, None]
    )
    between = (counts[:, None] * (means - z.mean(0)).square()).sum(0) / max(len(classes) - 1, 1)
    within = (z - means[places]).square().sum(0) / max(len(z) - len(classes), 1)
    return torch.where(within > 0, between / within.clamp_min(1e-300), torch.where(between > 0, torch.inf, 0.0))


def k_sparse_accuracy(z: Tensor, labels: Tensor, test_z: Tensor, test_labels: Tensor, k: int) -> float:
    """The share of test images that a regression on the k best latents gets right.

    Args:
        z, labels: [n, m] and [n] of training images.
        test_z, test_labels: of other images.

    Raises:
        PrismaError: fewer than two classes, or k is not from 1 to the number of latents.
    """
    if not 1 <= k <= z.shape[1]:
        raise PrismaError(f"expected k from 1 to the number of latents, {z.shape[1]}; found {k}")
    if len(labels.unique()) < 2:
        raise PrismaError("expected labels of at least two classes; found one")
    best = f_statistic(z, labels).topk(k).indices
    n = int(max(labels.max(), test_labels.max())) + 1
    logits = regression(z[:, best], labels, n)(test_z[:, best])
    return (logits.argmax(1) == test_labels).double().mean().item()


@torch.enable_grad()
def regression(x: Tensor, labels: Tensor, classes: int = 2) -> Callable[[Tensor], Tensor]:
    """A logistic regression of labels [n] on features [n, k]: features of images -> logits [image, class].

    Its weights are for features that are standardised, with a small decay; what it answers to takes them as they are.
    """
    x = x.detach().double()
    mean, spread = x.mean(0), x.std(0).clamp_min(1e-12)
    scaled = (x - mean) / spread
    weight = torch.zeros(x.shape[1], classes, dtype=x.dtype, device=x.device, requires_grad=True)
    bias = torch.zeros(classes, dtype=x.dtype, device=x.device, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> float:
        optimizer.zero_grad()
        value = F.cross_entropy(scaled @ weight + bias, labels) + DECAY * weight.square().sum()
        value.backward()
        return value.item()

    optimizer.step(closure)
    w, b = weight.detach(), bias.detach()
    return lambda features: (features.double() - mean) / spread @ w + b
