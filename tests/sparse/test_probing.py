"""k-sparse probing."""

import pytest
import torch

from prisma.errors import PrismaError
from prisma.sparse.probing import f_statistic, k_sparse_accuracy


def test_f_is_that_of_an_analysis_of_variance() -> None:
    from scipy.stats import f_oneway

    z, labels = torch.randn(30, 4, generator=torch.Generator().manual_seed(0)), torch.arange(30) % 3
    z[:, 3] = 1
    wanted = [f_oneway(*(z[labels == c, j].double().numpy() for c in range(3))).statistic for j in range(3)]
    assert f_statistic(z, labels).tolist() == pytest.approx([*wanted, 0])


def test_the_latents_that_tell_classes_apart_are_found() -> None:
    labels, generator = torch.arange(200) % 3, torch.Generator().manual_seed(0)
    z = torch.randn(200, 10, generator=generator)
    z[:, 7], z[:, 2] = z[:, 7] * 0.1 + 5 * (labels == 1), z[:, 2] * 0.1 + 5 * (labels == 2)
    assert k_sparse_accuracy(z[:100], labels[:100], z[100:], labels[100:], 2) == 1
    assert 0.5 < k_sparse_accuracy(z[:100], labels[:100], z[100:], labels[100:], 1) < 0.8
    with pytest.raises(PrismaError, match="expected k from 1 to the number of latents, 10; found 11"):
        k_sparse_accuracy(z, labels, z, labels, 11)
    with pytest.raises(PrismaError, match="expected labels of at least two classes; found one"):
        k_sparse_accuracy(z, 0 * labels, z, labels, 1)
