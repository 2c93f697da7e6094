"""transformers' video classes: equal to their source, no idle part, the frames in their order, and what is refused."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from prisma import PrismaError
from prisma.errors import UnsupportedModelError
from prisma.pretrained.families import family_of
from prisma.pretrained.parity import randomise
from prisma.pretrained.rules import convert
from prisma.pretrained.transformers import video
from tests.pretrained.proofs import expect_parity, idle_parameters
from tests.pretrained.transformers.cases_video import CASES, REFUSED, build

CLASSES = {name for family in video.FAMILIES for name in family.classes}
K_BIASES = ("attention.k_proj.bias", "attention.key.bias")
UNUSED = ("pooler.", "predictor.")
EXACT = [name for name in CASES if name not in REFUSED]


def videos_for(module: nn.Module, n: int = 2) -> Tensor:
    config = family_of(module).read(module).config
    return torch.randn(n, *config.input_shape, generator=torch.Generator().manual_seed(1))  # type: ignore[union-attr]


@pytest.mark.parametrize("name", EXACT)
def test_equals_transformers(name: str) -> None:
    module = CASES[name]()
    expect_parity(module, videos_for(module))


def test_every_class_is_here() -> None:
    built = {f"{type(build()).__module__}.{type(build()).__qualname__}" for build in CASES.values()}
    assert built == CLASSES


@pytest.mark.parametrize("name", EXACT)
def test_every_parameter_has_its_part(name: str) -> None:
    """But for what stands after the encoder, and biases of k that are not rotated: softmax cannot see them."""
    module = CASES[name]()
    names, rotated = [name for name, _ in module.named_parameters()], name.startswith("VJEPA2")
    unseen = {name for name in names if name.startswith(UNUSED) or (name.endswith(K_BIASES) and not rotated)}
    assert idle_parameters(module, videos_for(module)) == unseen


def test_frames_are_in_their_order() -> None:
    """Ours are [batch, channel, frame, height, width], the source's [batch, frame, channel, height, width]."""
    module = CASES["TimesformerModel"]()
    randomise(module)
    family, videos = family_of(module), videos_for(module)
    ours = convert(family.read(module), module.state_dict(), family.name)
    with torch.no_grad():
        expected = module(videos.permute(0, 2, 1, 3, 4)).last_hidden_state[:, 0]
        torch.testing.assert_close(ours(videos), expected)
        assert (ours(videos.flip(2)) - expected).abs().max() > 1e-4


def test_two_linear_maps_become_one() -> None:
    """Of TimeSformer, after attention over time."""
    module: Any = CASES["TimesformerModel"]()
    family = family_of(module)
    block: Any = convert(family.read(module), module.state_dict(), family.name).blocks[1]
    layer, x = module.encoder.layer[1], torch.randn(3, 24)
    expected = layer.temporal_dense(layer.temporal_attention.output.dense(x))
    torch.testing.assert_close(block.time.out(x), expected)


def refused(module: nn.Module, reason: str) -> None:
    with pytest.raises(UnsupportedModelError, match=reason):
        family_of(module).read(module)


@pytest.mark.parametrize(("name", "reason"), REFUSED.items())
def test_what_is_not_exact_is_refused(name: str, reason: str) -> None:
    refused(CASES[name](), reason)


def test_a_property_that_we_lack_is_named() -> None:
    refused(build("VivitModel", num_hidden_layers=0), "at least one layer; found num_hidden_layers=0")
    refused(build("TimesformerModel", hidden_act="mish"), "the activation Mish")


@pytest.mark.parametrize("name", ["VivitModel", "VideoMAEModel", "TimesformerModel", "VJEPA2Model"])
def test_positions_are_not_resampled(name: str) -> None:
    module: Any = CASES[name]()
    module.config.image_size = 16
    refused(module, "image_size=16 is not supported: positions of a video are not resampled")


def test_a_clip_shorter_than_a_tubelet_is_refused() -> None:
    """The source would repeat its frames."""
    module = build("VJEPA2Model", frames_per_clip=1)
    with pytest.raises(PrismaError, match="frames=1 contradicts tubelet=2"):
        family_of(module).read(module)
