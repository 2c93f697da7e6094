"""Weights as they compute: kernels, groups, batch norm, pruning, and what no weight shows."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, prune

from prisma.analysis.modularity.layer_weights import expect_computed, expect_no_hook, gains, is_pruned, strengths
from prisma.errors import PrismaError


def test_a_kernel_counts_with_the_sum_of_its_absolute_weights() -> None:
    conv = nn.Conv2d(3, 4, (3, 2))
    expected = [[conv.weight[i, j].abs().sum().item() for j in range(3)] for i in range(4)]
    assert torch.allclose(strengths(conv, "conv"), torch.tensor(expected, dtype=torch.float64))


def test_a_channel_of_a_grouped_convolution_reads_its_own_group() -> None:
    conv = nn.Conv2d(6, 4, 3, groups=2)
    found = strengths(conv, "conv")
    basis = torch.eye(6)[:, :, None, None].expand(6, 6, 3, 3)  # one channel at a time
    reads = (conv(basis) - conv(torch.zeros(1, 6, 3, 3))).flatten(2).abs().sum(2).T > 0
    assert found.shape == (4, 6) and torch.equal(found > 0, reads)


def test_the_gain_of_batch_norm_is_that_of_inference() -> None:
    norm = nn.BatchNorm1d(5).eval()
    nn.init.normal_(norm.weight), nn.init.uniform_(norm.running_var, 0.1, 3)
    found = gains(norm, "norm")
    assert found is not None
    assert torch.allclose((norm(torch.ones(1, 5)) - norm(torch.zeros(1, 5)))[0].abs().double(), found, atol=1e-6)
    assert gains(nn.BatchNorm1d(5, affine=False, track_running_stats=False), "norm") is None
    scaled = gains(nn.LayerNorm(4), "norm")
    assert scaled is not None and scaled.tolist() == [1.0] * 4


def test_pruned_weights_are_those_of_the_mask_even_before_a_run() -> None:
    layer = nn.Linear(4, 3)
    prune.random_unstructured(layer, "weight", 0.5)
    with torch.no_grad():
        layer.weight_orig.fill_(2)  # type: ignore[operator]
    assert is_pruned(nn.Sequential(layer)) and not is_pruned(nn.Linear(2, 2))
    assert torch.equal(strengths(layer, "layer"), 2 * layer.weight_mask.double())  # type: ignore[operator]


def test_a_parametrized_weight_is_what_it_computes() -> None:
    layer = parametrizations.orthogonal(nn.Linear(4, 4))
    assert torch.allclose(strengths(layer, "layer"), layer.weight.abs().double())


def test_what_no_weight_shows_is_one_sentence() -> None:
    layer = nn.Linear(2, 2)
    layer.register_forward_hook(lambda module, args, output: 2 * output)
    with pytest.raises(PrismaError, match=r"expected 0 to compute what its weights say; found a hook, .*: remove it"):
        expect_no_hook(layer, "0")
    wrong = nn.Linear(2, 2)
    wrong.weight.data[0, 1] = torch.nan
    with pytest.raises(PrismaError, match=r"expected finite weights; found nan in fc.weight"):
        strengths(wrong, "fc")


class Padded(nn.Conv2d):
    """As TensorFlow pads."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, (0, 1, 0, 1)))


class Standardised(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight / self.weight.norm(), self.bias)


class Doubled(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def test_a_layer_with_a_forward_of_its_own_is_tried() -> None:
    for layer in (Padded(4, 6, 3, groups=2, dilation=2), nn.Linear(3, 2), nn.Conv1d(2, 3, 2, stride=2)):
        expect_computed(layer, "x")
    for layer in (Standardised(2, 3, 3), Doubled(3, 4)):
        with pytest.raises(
            PrismaError, match=rf"expected x to compute what its weights say; found a {type(layer).__name__}"
        ):
            expect_computed(layer, "x")
