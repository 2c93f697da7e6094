"""Parts that tables are made of."""

import pytest
import torch
from torch import nn

from prisma.attention import rotate
from prisma.pretrained import parts
from prisma.pretrained.rules import Context, UnsupportedModelError


def test_interleaved_pairs_turn_as_halves_do() -> None:
    """Rotating reordered rows by the reordered table is the source's rotation, reordered."""
    x, angle = torch.randn(2, 5, 3, 8, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64)
    cos, sin = (f(angle).repeat_interleave(2, -1) for f in (torch.cos, torch.sin))
    pairs = (
        torch.view_as_complex(x.unflatten(-1, (4, 2)).contiguous())
        * torch.polar(torch.ones_like(angle), angle)[:, None]
    )
    theirs = torch.view_as_real(pairs).flatten(-2)
    table = parts.rotation_table(cos, sin, interleaved=True)
    order = parts.halves(8)
    assert table.shape == (2, 5, 1, 8)
    assert torch.allclose(rotate(x[..., order], table), theirs[..., order])


def test_a_table_for_each_head() -> None:
    cos, sin = torch.randn(2, 3, 5, 8)
    table = parts.rotation_table(cos, sin, interleaved=False)
    assert torch.equal(table[0].transpose(0, 1), cos)
    assert torch.equal(table[1].transpose(0, 1), sin)


def test_rows_of_heads() -> None:
    rows = torch.arange(12)
    assert parts.heads_in_halves(rows, 4).tolist() == [0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11]
    assert parts.repeated_heads(torch.arange(4), 2, 4).tolist() == [0, 1, 0, 1, 2, 3, 2, 3]


def test_norms_must_agree() -> None:
    assert parts.norm([nn.LayerNorm(3, eps=1e-5), nn.Identity(), nn.LayerNorm(9, eps=1e-5)]) == ("layer", 1e-5)
    assert parts.norm([nn.RMSNorm(3, eps=1e-6)]) == ("rms", 1e-6)
    with pytest.raises(UnsupportedModelError, match="norms that differ"):
        parts.norm([nn.LayerNorm(3, eps=1e-5), nn.LayerNorm(3, eps=1e-6)])
    with pytest.raises(UnsupportedModelError, match="the norm BatchNorm1d is not supported"):
        parts.norm([nn.BatchNorm1d(3)])


@pytest.mark.parametrize(
    ("module", "name"), [(nn.GELU(), "gelu"), (nn.GELU(approximate="tanh"), "gelu_tanh"), (nn.SiLU(), "silu")]
)
def test_activations(module: nn.Module, name: str) -> None:
    assert parts.activation(module) == name


def test_an_activation_that_we_lack() -> None:
    with pytest.raises(UnsupportedModelError, match="the activation Mish is not supported"):
        parts.activation(nn.Mish())


def test_facts_of_one_layer_or_all() -> None:
    layers = [torch.zeros(1), torch.ones(1)]
    assert parts.fixed("x")(Context(None, 1, {"x": layers})) is layers[1]
    assert parts.fixed("x")(Context(None, 1, {"x": layers[0]})) is layers[0]


@pytest.mark.parametrize(
    ("sides", "patches", "rest"),
    [((8, 8), 4, False), ((8, 9), 4, True), ((6, 4), (3, 4), False), ((7, 4), (3, 4), True)],
)
def test_torn_patches(sides: tuple[int, int], patches: int | tuple[int, int], rest: bool) -> None:
    assert parts.torn(sides, patches) is rest
