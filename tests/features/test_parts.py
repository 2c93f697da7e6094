"""Where the channels of maps are, against what shapes tell where rows are to columns as in the image."""

from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torchvision.models import SwinTransformer
from torchvision.models.convnext import CNBlockConfig, ConvNeXt

from prisma.data.transform import Transform
from prisma.errors import PrismaError
from prisma.features.parts import channels_last, outputs_of
from prisma.features.subjects import OfModule
from prisma.features.visualize import visualize
from prisma.pretrained.networks import Network

SIDES = {"convnext": (64, 96), "swin": (56, 112), "theirs": (64, 96), "shifted": (56, 112), "efficientnet": (64, 96)}


def network(name: str) -> Any:
    torch.manual_seed(0)
    if name == "convnext":
        return timm.create_model("test_convnext", num_classes=3)
    if name == "efficientnet":
        return timm.create_model("test_efficientnet", num_classes=3)
    if name == "swin":
        sizes: dict[str, Any] = {"embed_dim": 12, "depths": (1, 2), "num_heads": (2, 2), "num_classes": 3}
        return timm.create_model("swin_tiny_patch4_window7_224", img_size=SIDES[name], **sizes)
    if name == "theirs":
        return ConvNeXt([CNBlockConfig(8, 24, 1), CNBlockConfig(24, None, 1)], num_classes=3)
    return SwinTransformer([4, 4], 12, [1, 2], [2, 2], [7, 7], num_classes=3)


def of(module: nn.Module, sides: tuple[int, int]) -> OfModule:
    return OfModule(Network(module.eval(), Transform(sides, (0.5,) * 3, (0.2,) * 3)))


@pytest.mark.parametrize("name", SIDES)
def test_channels_are_where_shapes_say_that_they_are(name: str) -> None:
    height, width = SIDES[name]
    module = network(name).eval()
    parts = {name: part for name, part in module.named_modules() if name}

    def run() -> Any:
        return module(torch.zeros(2, 3, height, width))

    shapes: dict[str, Any] = {}
    outputs_of(parts, run, lambda site, part, inputs, output: shapes.update({site: tuple(output.shape)}))
    last = channels_last(parts, run)
    compared = 0
    for site, found in last.items():
        _, a, b, c = shapes[site]
        first, second = a * width == b * height, b * width == c * height  # rows to columns as height to width
        if found is not None and first != second:
            assert found is first, site
            compared += 1
    assert compared > len(last) / 2
    assert any(last.values()) == (name != "efficientnet")
    assert not any(part._forward_hooks for part in module.modules())


def test_a_neuron_whose_channels_are_last_is_read_and_visualised_by_its_index() -> None:
    module = network("convnext").eval()
    subject, site = of(module, (64, 64)), "stages.1.blocks.0.mlp.act"  # [batch, 8, 8, channel]
    subject.expect([site])
    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    given: list[Tensor] = []
    handle = module.get_submodule(site).register_forward_hook(lambda _, __, output: given.append(output))
    with torch.no_grad():
        module(subject.normalise(pixels))
    handle.remove()
    acts = subject.read(pixels, [site])
    assert given[0].shape[1:3] == (8, 8) and torch.allclose(acts[site], given[0].permute(0, 3, 1, 2), atol=1e-6)
    from prisma.features.objectives import Channel

    found = visualize(Network(module, Transform((64, 64), (0.5,) * 3, (0.2,) * 3)), Channel(site, 20), steps=2)
    with torch.no_grad():
        own = subject.read(found.images, [site])[site][:, 20].mean((1, 2))
    assert torch.allclose(found.activation, own, atol=1e-4)


class Parted(nn.Module):
    """A map that is changed between parts, so that nothing tells where its channels are."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear, self.act = nn.Conv2d(3, 4, 1), nn.Linear(4, 6), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(self.conv(x).movedim(1, -1))
        return self.act(2 * x).flatten(1)


def test_what_is_not_known_is_said() -> None:
    subject = of(Parted(), (5, 7))
    subject.expect(["conv", "linear"])
    assert subject.read(torch.rand(1, 3, 5, 7), ["conv", "linear"])["linear"].shape == (1, 6, 5, 7)
    with pytest.raises(PrismaError, match=r"found act, which gives \[2, 5, 7, 6\], and it is not known which of the"):
        subject.expect(["act"])


def test_equal_sides_tell_nothing_and_are_not_followed() -> None:
    turned = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(0, 0), Turn(), nn.Linear(4, 4), Turn(), nn.Flatten()).eval()
    parts = {name: part for name, part in turned.named_modules() if name}
    last = channels_last(parts, lambda: turned(torch.zeros(2, 3, 4, 4)))
    assert last == {"0": False, "1": False, "2": True, "3": True, "4": None}


@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.RMSNorm])
def test_a_norm_of_the_last_axis_tells_that_channels_are_there(norm: type[nn.Module]) -> None:
    subject = of(nn.Sequential(nn.Conv2d(3, 4, 1), Turn(), norm(4), nn.Flatten()), (5, 7))
    subject.expect(["2"])
    assert subject.read(torch.rand(1, 3, 5, 7), ["2"])["2"].shape == (1, 4, 5, 7)


class Turn(nn.Module):
    """Puts the channels last."""

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(0, 2, 3, 1)


class Answer:
    def __init__(self, logits: Tensor) -> None:
        self.logits = logits


class OfTransformers(nn.Module):
    """Gives its logits as an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 5)

    def forward(self, pixel_values: Tensor) -> Answer:
        return Answer(self.conv(pixel_values).mean((2, 3)))


def test_the_logits_of_an_output_are_its_answer() -> None:
    subject = of(OfTransformers(), (6, 8))
    subject.expect(["logits"])
    x = torch.rand(2, 3, 6, 8)
    assert torch.allclose(subject.read(x, ["logits"])["logits"], subject.model(subject.normalise(x)).logits)
