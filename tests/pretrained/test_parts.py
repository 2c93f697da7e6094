"""Parts of modules are recognised by their class, and unknown ones are refused."""

import pytest
from torch import nn

from prisma.errors import UnsupportedModelError
from prisma.pretrained import parts


def test_norms_must_agree() -> None:
    assert parts.norm([nn.LayerNorm(3, eps=1e-5), nn.Identity(), nn.LayerNorm(9, eps=1e-5)]) == ("layer", 1e-5)
    assert parts.norm([nn.RMSNorm(3, eps=1e-6)]) == ("rms", 1e-6)
    with pytest.raises(UnsupportedModelError, match="expected norms of one kind and one eps"):
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


@pytest.mark.parametrize(
    ("sides", "patches", "rest"),
    [((8, 8), 4, False), ((8, 9), 4, True), ((6, 4), (3, 4), False), ((7, 4), (3, 4), True)],
)
def test_whether_the_edge_is_cut(sides: tuple[int, int], patches: int | tuple[int, int], rest: bool) -> None:
    assert parts.has_cut_edge(sides, patches) is rest


def test_a_side_is_a_square() -> None:
    assert parts.sides(8) == parts.sides((8, 8)) == parts.sides([8, 8]) == (8, 8)
    assert parts.sides([4, 6]) == (4, 6)


def test_the_first_part_that_exists() -> None:
    module = nn.Sequential(nn.Linear(1, 1), nn.GELU())
    assert parts.first_part(module, "2", "1", "0") is module[1]
    assert parts.first_part(module, "2") is None
