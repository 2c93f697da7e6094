import pytest
import torch

from prisma.train import Recipe
from prisma.train.initial import initial_model


@pytest.mark.parametrize(("init", "factor"), [("fan_in", 1.0), ("kaiming", 2.0)])
def test_the_spread_of_the_first_matrices(tiny: Recipe, init: str, factor: float) -> None:
    wide = tiny.override({"d_model": "256", "d_mlp": "512"}).model
    weights = initial_model(wide, 0, init).state_dict()
    for part in ("blocks.0.attn.qkv", "blocks.0.mlp.pre", "blocks.0.mlp.out"):
        matrix = weights[f"{part}.weight"]
        assert matrix.var().item() * matrix.shape[1] == pytest.approx(factor, rel=0.1)
        assert not weights[f"{part}.bias"].any()
    patch, bias = weights["embed.patch.weight"], weights["embed.patch.bias"]
    assert bool(bias.any()) == (init == "kaiming")
    if init == "kaiming":
        assert patch.abs().max() <= patch.shape[1] ** -0.5
        assert patch.var().item() * patch.shape[1] == pytest.approx(1 / 3, rel=0.1)
    assert weights["embed.prefix"].std().item() == pytest.approx(0.02, rel=0.3)


def test_a_seed_gives_the_same_weights_and_leaves_torch_s_own_alone(tiny: Recipe) -> None:
    torch.manual_seed(7)
    state = torch.random.get_rng_state()
    first, second, other = (initial_model(tiny.model, seed, "kaiming").state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["readout.head.weight"], other["readout.head.weight"])
    assert torch.equal(torch.random.get_rng_state(), state)
