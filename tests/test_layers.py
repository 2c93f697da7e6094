"""Activations and norms equal obvious slow ones."""

import pytest
import torch

from prisma import ViTConfig
from prisma.layers import ACTIVATIONS, make_norm
from tests.twin import ACTIVATIONS as SLOW
from tests.variants import config_of


def test_activations_are_those_a_config_may_name_and_equal_the_slow_ones() -> None:
    assert set(ACTIVATIONS) == set(ViTConfig.CHOICES["activation"])
    x = torch.linspace(-6, 6, 101, dtype=torch.float64)
    for name, activation in ACTIVATIONS.items():
        torch.testing.assert_close(activation(x), SLOW[name](x), rtol=0, atol=1e-14)


@pytest.mark.parametrize("kind", ["layer", "rms"])
def test_a_norm_has_the_kind_and_the_eps_of_the_config(kind: str) -> None:
    norm = make_norm(config_of("base", norm_kind=kind, norm_eps=0.3), 7)
    x = torch.randn(2, 7, generator=torch.Generator().manual_seed(0))
    centred = x - x.mean(-1, keepdim=True) if kind == "layer" else x
    torch.testing.assert_close(norm(x), centred / (centred.square().mean(-1, keepdim=True) + 0.3).sqrt())
