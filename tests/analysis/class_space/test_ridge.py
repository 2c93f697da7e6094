"""Ridge classifiers from sums: those of the whole matrix of samples, in whatever parts it comes."""

import torch

from prisma.analysis.class_space.ridge import RidgeSums


def test_sums_give_the_regression_of_all_samples() -> None:
    torch.manual_seed(0)
    x, labels = torch.randn(30, 2, 5).double() + 7, torch.arange(30) % 3
    sums = RidgeSums(5, 3)
    for rows in (slice(0, 11), slice(11, 30)):
        sums.add(x[rows], labels[rows])
    weight, bias = sums.solve(0.7)
    flat, target = x.flatten(0, 1), 2.0 * (labels.repeat_interleave(2)[:, None] == torch.arange(3)) - 1
    centred, moved = flat - flat.mean(0), target.double() - target.double().mean(0)
    expected = torch.linalg.solve(centred.mT @ centred + 0.7 * torch.eye(5).double(), centred.mT @ moved).mT
    torch.testing.assert_close(weight, expected)
    torch.testing.assert_close(bias, target.double().mean(0) - expected @ flat.mean(0))
