"""What is read from a model of Prisma and from any network of torch."""

import warnings

import pytest
import torch
from torch import Tensor, nn

import prisma
from prisma.data.transform import Transform
from prisma.errors import PrismaError
from prisma.features.objectives import Channel
from prisma.features.subjects import subject_of
from prisma.pretrained.networks import Network
from tests.features.planted import small_cnn
from tests.variants import model_of

TRANSFORM = Transform((6, 8), (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))


def test_a_vit_reads_what_record_reads_of_normalised_pixels() -> None:
    loaded = prisma.load("mice/sprites")
    subject = subject_of(loaded)
    assert loaded.transform is not None and subject.shape == (3, 28, 28)
    pixels = torch.rand(2, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    sites = ["blocks.1.mlp.post", "logits", "pixels"]
    subject.expect(sites)
    inputs = loaded.transform.normalise(pixels)
    assert torch.allclose(subject.normalise(pixels), inputs, atol=1e-6)
    assert torch.allclose(subject.pixels(inputs), pixels, atol=1e-6)
    acts, wanted = subject.read(pixels, sites), prisma.record(loaded.model, inputs, sites[:2])[1]
    assert torch.allclose(acts["logits"], wanted["logits"], atol=1e-4)
    assert (
        torch.allclose(acts["blocks.1.mlp.post"], wanted["blocks.1.mlp.post"], atol=1e-5) and acts["pixels"] is pixels
    )
    assert loaded.model.pixel_range == loaded.transform.range, "nothing is changed on the model"
    assert subject.depth == [f"blocks.{i}.resid_post" for i in range(6)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        subject.read(pixels + 100, ["logits"])  # on the way, pixels are not a picture's


def test_a_network_is_read_by_the_names_of_its_parts_and_stops_there() -> None:
    network, ran = small_cnn(), []
    network[5].register_forward_hook(lambda *_: ran.append(1))
    subject = subject_of(network, TRANSFORM)
    subject.expect(["0", "2.1", "5", "logits"])
    assert subject.shape == (3, 6, 8)
    ran.clear()
    pixels = torch.rand(2, 3, 6, 8)
    acts = subject.read(pixels, ["2.1", "0"])
    x = TRANSFORM.normalise(pixels)
    assert torch.allclose(acts["2.1"], network[:3](x), atol=1e-5) and torch.allclose(
        acts["0"], network[0](x), atol=1e-5
    )
    assert not ran, "what comes after the last site is not computed"
    assert torch.allclose(subject.read(pixels, ["logits"])["logits"], network(x), atol=1e-5)
    assert acts.axes["2.1"] == ("batch", "channel", "row", "column")
    assert not any(part._forward_hooks for name, part in network.named_modules() if name != "5")
    assert subject.depth == ["0", "1", "2", "3", "4", "5"]


class Twice(nn.Module):
    """A network whose one part runs twice, and one that does not run."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.idle, self.pair = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.ParameterList()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.conv(self.conv(x))
        return x, x


def test_what_cannot_be_read_is_said() -> None:
    subject = subject_of(Twice().eval(), TRANSFORM)
    for site, message in {
        "conv": "once in a run; found one that runs several times",
        "idle": "expected a run to reach idle; found that it does not",
        "logits": "expected logits to give one tensor .* found a tuple",
        "con": "no part of this network is called 'con'; the nearest are conv",
    }.items():
        with pytest.raises(PrismaError, match=message):
            subject.expect([site])
    with pytest.raises(PrismaError, match=r"no site of this model matches 'blocks.9.mlp.post'; the nearest are"):
        subject_of(model_of("base", torch.float32)).expect(["blocks.9.mlp.post"])
    with pytest.raises(PrismaError, match=r"expected the name of one site; found 'blocks.\*.mlp.post'"):
        subject_of(model_of("base", torch.float32)).expect(["blocks.*.mlp.post"])
    for wrong, transform, message in (
        (small_cnn(), None, "expected a transform, .* found none"),
        (small_cnn().train(), TRANSFORM, "found one in training: call its .eval()"),
        (3, None, "expected a model or a network of torch; found 3"),
        (model_of("video", torch.float32), None, "expected a model of images; found one of video"),
    ):
        with pytest.raises(PrismaError, match=message):
            subject_of(wrong, transform)  # type: ignore[arg-type]


class Axes(nn.Module):
    """Parts whose first axis is not that of images."""

    def __init__(self) -> None:
        super().__init__()
        self.turn, self.layer = nn.Flatten(2), nn.Linear(48, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.turn(x.transpose(0, 1))).transpose(0, 1)


def test_a_part_whose_first_axis_is_not_that_of_images_is_not_read() -> None:
    subject = subject_of(Axes().eval(), TRANSFORM)
    with pytest.raises(PrismaError, match=r"expected layer to give one tensor .* found \[3, 2, 4\] for 2 images"):
        subject.expect(["layer"])
    assert subject.depth == ["logits"]


def test_names_of_parts_that_look_like_those_of_transformer_lens() -> None:
    network = nn.Sequential()
    network.add_module("hook_embed", nn.Conv2d(3, 2, 1))
    subject = subject_of(Network(network.eval(), TRANSFORM, ("a", "b")))
    site = Channel("hook_embed", 1).site
    subject.expect([site])
    pixels = torch.rand(2, 3, 6, 8)
    assert torch.allclose(subject.read(pixels, [site])[site], network(TRANSFORM.normalise(pixels)), atol=1e-5)
    assert subject.labels == ("a", "b")


def test_errors_of_a_network_come_through() -> None:
    broken = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Linear(7, 2)).eval()
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        subject_of(broken, TRANSFORM).expect(["1"])


def test_what_a_later_part_changes_in_place_is_read_as_it_was() -> None:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 3), nn.ReLU(inplace=True), nn.Flatten()
    network = nn.Sequential(*layers, nn.Linear(64, 2)).eval()
    subject = subject_of(network, Transform((8, 8), (0,) * 3, (1,) * 3))
    pixels = torch.rand(2, 3, 8, 8)
    read = subject.read(pixels, ["0", "2"])
    assert torch.equal(read["0"], layers[0](pixels)) and (read["0"] < 0).any()
    assert torch.equal(read["2"], layers[2](layers[0](pixels).relu()))
