"""Linear classifiers by ridge regression, solved from sums over samples, in float64.

    W, b = argmin  sum over samples |W x + b - y|^2 + alpha |W|^2,     y = +1 for the sample's class, -1 for all others

Memory does not grow with the number of samples.
"""

import torch
from torch import Tensor


class RidgeSums:
    """What a ridge regression needs of its samples: sums, taken around the mean of the first ones."""

    def __init__(self, width: int, classes: int) -> None:
        self.width, self.classes = width, classes
        self.squares: Tensor | None = None

    def add(self, x_BTM: Tensor, labels_B: Tensor) -> None:
        """Take more samples [image, token, feature], with the class of each image."""
        x = x_BTM.double()
        if self.squares is None:
            self.centre, self.squares = x.mean((0, 1)), x.new_zeros(self.width, self.width)
            self.of_class, self.count = x.new_zeros(self.classes, self.width), x.new_zeros(self.classes)
        moved = x - self.centre
        self.squares += moved.flatten(0, 1).mT @ moved.flatten(0, 1)
        self.of_class.index_add_(0, labels_B, moved.sum(1))
        self.count.index_add_(0, labels_B, x.new_full((len(x),), x.shape[1]))

    def solve(self, alpha: float) -> tuple[Tensor, Tensor]:
        """W [class, d_model] and b [class]."""
        assert self.squares is not None, "there are images"
        n, mean = self.count.sum(), self.of_class.sum(0) / self.count.sum()
        target = 2 * self.count / n - 1  # the mean of +1 for its images and -1 for all others
        products = 2 * self.of_class - self.of_class.sum(0) - n * target[:, None] * mean
        covariance = self.squares - n * mean.outer(mean)
        weight = _solved(covariance + alpha * torch.eye(self.width).to(covariance), products.mT).mT
        return weight, target - weight @ (mean + self.centre)


def _solved(matrix: Tensor, right: Tensor) -> Tensor:
    """The solution with the smallest weights: without a penalty, directions that no sample has are left out."""
    return torch.linalg.pinv(matrix, hermitian=True) @ right
