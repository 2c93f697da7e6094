"""The proof proves: random weights leave nothing at 0 or 1, and a planted error of any kind is found."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from prisma.config import TextConfig, ViTConfig
from prisma.errors import PrismaError
from prisma.pretrained.families import family_of
from prisma.pretrained.family import Family
from prisma.pretrained.parity import Parity, compare, random_inputs, randomise
from prisma.pretrained.rules import Conversion, Rule
from tests.pretrained.proofs import TOLERANCE

IMAGES = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class Everything(nn.Module):
    """What models are made of, as it starts: much of it 0 or 1."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.ln, self.bn = nn.Linear(7, 5), nn.LayerNorm(5), nn.BatchNorm1d(5)
        self.scale, self.gate = nn.Parameter(torch.full((5,), 1e-5)), nn.Parameter(torch.zeros(()))
        self.token, self.logit_scale = nn.Parameter(torch.zeros(1, 1, 5)), nn.Parameter(torch.tensor(2.6))
        self.register_buffer("mask", torch.ones(3))


def test_random_weights_leave_nothing_at_zero_or_one() -> None:
    module = Everything()
    before = {name: x.clone() for name, x in module.state_dict().items()}
    randomise(module)
    for name, x in module.state_dict().items():
        if name in ("mask", "bn.num_batches_tracked"):
            assert torch.equal(x, before[name])  # constants
        else:
            assert not ((x == 0) | (x == 1) | (x == before[name])).any(), name
            assert x.numel() == 1 or x.std() > 0.01, name
    assert module.bn.running_var.min() > 0


def test_what_scales_is_drawn_around_one_and_the_rest_around_zero() -> None:
    module = nn.Sequential(nn.LayerNorm(4000), nn.Linear(4000, 100))
    randomise(module)
    drawn = module.state_dict()
    assert float(drawn["0.weight"].mean()) == pytest.approx(1, abs=0.03)
    assert float(drawn["0.bias"].mean()) == pytest.approx(0, abs=0.03)
    assert float(drawn["1.weight"].std()) == pytest.approx(4000**-0.5, rel=0.1)  # an output of order one


def test_the_seed_decides() -> None:
    first, same, other = (Everything() for _ in range(3))
    for module, seed in ((first, 0), (same, 0), (other, 1)):
        randomise(module, seed)
    torch.testing.assert_close(first.state_dict(), same.state_dict(), rtol=0, atol=0)
    assert not torch.equal(first.linear.weight, other.linear.weight)


# compare


def module() -> nn.Module:
    found = VisionTransformer(
        img_size=16, patch_size=8, embed_dim=24, depth=3, num_heads=3, mlp_ratio=2, num_classes=5, init_values=0.1
    )
    randomise(found)
    return found.eval().double()


def planted(family: Family, change: Callable[[Conversion], Conversion]) -> Family:
    return replace(family, read=lambda module: change(family.read(module)))


def config(**fields: Any) -> Callable[[Conversion], Conversion]:
    return lambda source: replace(source, config=replace(source.config, **fields))


def weight(ours: str, wrong: Callable[[Tensor], Tensor]) -> Callable[[Conversion], Conversion]:
    """One parameter of ours made wrongly."""

    def change(source: Conversion) -> Conversion:
        def bent(rule: Rule) -> Rule:
            return replace(rule, make=lambda context, *x: wrong(rule.make(context, *x)))

        return replace(source, rules=tuple(bent(rule) if rule.ours == ours else rule for rule in source.rules))

    return change


ERRORS: dict[str, Callable[[Conversion], Conversion]] = {
    "another activation": config(activation="gelu_tanh"),
    "another eps": config(norm_eps=1e-5),
    "another pool": config(pool="mean"),
    "as many other heads": config(n_heads=4, d_head=6),
    "parallel branches": config(parallel=True),
    "q for k": weight("blocks.{l}.attn.qkv.weight", lambda x: x.roll(24, 0)),
    "heads in another order": weight("blocks.{l}.attn.out.weight", lambda x: x.roll(8, 1)),
    "a bias forgotten": weight("blocks.{l}.mlp.out.bias", torch.zeros_like),
    "a bias of v forgotten": weight("blocks.{l}.attn.qkv.bias", lambda x: torch.cat([x[:48], 0 * x[48:]])),
    "layer scale forgotten": weight("blocks.{l}.scale1.weight", torch.ones_like),
    "the norm's bias forgotten": weight("readout.ln_final.bias", torch.zeros_like),
    "the head's bias forgotten": weight("readout.head.bias", torch.zeros_like),
    "positions forgotten": weight("embed.positions", torch.zeros_like),
    "positions in another order": weight("embed.positions", lambda x: x.flip(0)),
    "the class token's position forgotten": weight("embed.prefix", lambda x: x - 0.1),
    "channels in another order": weight("embed.patch.weight", lambda x: x.roll(64, 1)),
    "height for width": weight("embed.patch.weight", lambda x: x.view(-1, 3, 8, 8).mT.flatten(1)),
    "one number off": weight("readout.head.weight", lambda x: x + 1e-6 * (torch.arange(x.numel()).view_as(x) == 0)),
}


def test_a_correct_conversion_passes() -> None:
    source = module()
    found = compare(family_of(source), source, IMAGES)
    assert len(found.residuals) == 3
    assert found.largest <= 1e-12


@pytest.mark.parametrize("error", ERRORS)
def test_a_planted_error_is_found(error: str) -> None:
    source = module()
    found = compare(planted(family_of(source), ERRORS[error]), source, IMAGES)
    assert found.largest > TOLERANCE[torch.float64], found


def test_a_conversion_to_nan_is_refused() -> None:
    source = module()
    with pytest.raises(PrismaError, match=r"found that readout\.head\.bias has NaN"):
        compare(planted(family_of(source), weight("readout.head.bias", lambda x: x * torch.nan)), source, IMAGES)


def test_an_error_in_a_layer_shows_from_that_layer_on() -> None:
    source = module()

    def change(found: Conversion) -> Conversion:
        rule = Rule("blocks.{l}.mlp.out.bias", ("blocks.1.mlp.fc2.bias",))
        return replace(found, rules=(rule, *found.rules), unused=(*found.unused, r"blocks\..*\.mlp\.fc2\.bias"))

    found = compare(planted(family_of(source), change), source, IMAGES)
    assert found.residuals[0] > 1e-3  # layer 0 has the bias of layer 1
    found = compare(planted(family_of(source), weight("readout.head.bias", torch.zeros_like)), source, IMAGES)
    assert max(found.residuals) <= 1e-12
    assert found.output > 1e-3


def test_a_mistake_of_the_family_is_found() -> None:
    """The source's own answer and residual stream are what ours must equal, whatever the family asks for."""
    source = module()
    family = family_of(source)
    assert compare(replace(family, answer=lambda m, x: m(x).flip(1)), source, IMAGES).output > 1e-3
    with pytest.raises(ValueError, match="shorter"):
        compare(replace(family, blocks=lambda m: list(m.blocks)[:2]), source, IMAGES)
    with pytest.raises(PrismaError, match=r"expected outputs \[2, 3\], as the source has them; found \[2, 5\]"):
        compare(replace(family, answer=lambda m, x: m(x)[:, :3]), source, IMAGES)


def test_nothing_is_left_on_the_source() -> None:
    source = module()
    weights = {name: x.clone() for name, x in source.state_dict().items()}
    compare(family_of(source), source, IMAGES)
    assert all(not part._forward_hooks for part in source.modules())
    torch.testing.assert_close(source.state_dict(), weights, rtol=0, atol=0)
    with pytest.raises(RuntimeError):
        compare(family_of(source), source, IMAGES.float())
    assert all(not part._forward_hooks for part in source.modules())


def test_the_largest_difference_counts_every_layer_and_the_output() -> None:
    assert Parity(0.1, (0.2, 0.3)).largest == 0.3
    assert Parity(0.4, (0.2, 0.3)).largest == 0.4
    assert Parity(0.4, ()).largest == 0.4


def test_random_prompts_have_an_end_token() -> None:
    sizes = {"n_layers": 1, "d_model": 4, "n_heads": 1, "d_mlp": 4, "n_classes": 3}
    ids = random_inputs(TextConfig(**sizes, vocabulary=9, context=5, end=7), n=3)
    assert ids.shape == (3, 5)
    assert bool((ids == 7).any(1).all())
    assert int(ids.max()) < 9


def test_random_inputs_are_the_same_every_time() -> None:
    config = ViTConfig(image_size=4, patch_size=2, n_layers=1, d_model=4, n_heads=1, d_mlp=4, n_classes=3)
    assert torch.equal(random_inputs(config), random_inputs(config))
