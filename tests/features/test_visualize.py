"""Feature visualisation as a whole: planted units are found, and what the result says of itself is right."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import prisma
from prisma.data import task
from prisma.data.pictures import Pictures
from prisma.data.transform import Transform
from prisma.errors import PrismaError
from prisma.features import (
    FFT,
    MACO,
    PLAIN,
    Caricature,
    Channel,
    Content,
    Distance,
    Features,
    Interpolation,
    Near,
    Network,
    Pixels,
    Pyramid,
    visualize,
)
from prisma.features.images import Image
from prisma.features.references import total_variation
from tests.features.planted import TEMPLATE, patches, small_cnn, template_mouse
from tests.variants import model_of

TRANSFORM = Transform((12, 16), (0.5,) * 3, (0.25,) * 3)


@pytest.mark.parametrize("image", [Pixels(), FFT(), Pyramid()], ids=repr)
def test_the_optimum_of_a_planted_unit_is_its_template(image: Image) -> None:
    """The cosine of the whole image, around grey, with the template in every patch."""
    found = visualize(template_mouse(), Channel("blocks.0.mlp.post", 0), image, steps=150, robustness=PLAIN)
    pixels = patches(found.images)[0] - 0.5
    assert F.cosine_similarity(pixels.flatten(), TEMPLATE.flatten().repeat(len(pixels)), dim=0) > 0.9


def test_of_a_cnn_the_class_of_the_optimum_is_that_of_its_logit() -> None:
    network = small_cnn()
    found = visualize(network, range(3), steps=60, transform=TRANSFORM)
    assert found.images.shape == (3, 3, 12, 16) and found.answer.tolist() == [0, 1, 2]
    logits = network(TRANSFORM.normalise(found.images))
    assert torch.allclose(found.activation, logits.diagonal(), atol=1e-4)
    assert not any(x.grad is not None for x in network.parameters())
    channel = visualize(network, Channel("2.0", 4), steps=20, transform=TRANSFORM)
    inside = network[:2](TRANSFORM.normalise(channel.images))
    assert channel.activation.item() == pytest.approx(network[2][0](inside)[0, 4].mean().item(), abs=1e-4)


def test_the_result_has_what_the_data_and_a_second_model_say(tmp_path: Path) -> None:
    model, second = model_of("base", torch.float32), model_of("registers", torch.float32)
    data = torch.rand(20, *model.config.input_shape, generator=torch.Generator().manual_seed(0))
    units = [Channel("logits", 2), Channel("blocks.1.mlp.post", 4)]
    found = visualize(model, units, steps=30, copies=2, data=data, k=3, second=second)
    logits = model(data)[:, 2]
    assert found.target.tolist() == [0, 0, 1, 1]
    assert torch.allclose(found.activation[:2], model(found.images[:2])[:, 2], atol=1e-4)
    wanted = 100 * (logits < found.activation[0]).double().mean()
    assert found.percentile[0].item() == pytest.approx(wanted.item(), abs=1e-4) and found.percentile[0] > 90
    assert found.top_index is not None and found.top_index[0].tolist() == logits.argsort(descending=True)[:3].tolist()
    assert torch.allclose(found.top_images[0], data[found.top_index[0]], atol=1e-6)  # type: ignore[index]
    assert found.second is not None and found.second.isnan().tolist() == [False, False, True, True]
    assert torch.equal(found.second_answer, second(found.images).argmax(1))  # type: ignore[arg-type]
    assert found.path is not None and found.path.shape == (4, 2) == tuple(found.natural.shape)  # type: ignore[union-attr]
    assert found.metadata["targets"] == ["logits:2", "blocks.1.mlp.post:4"]
    again = Features.from_npz(found.to_npz(tmp_path / "features.npz"))
    assert torch.equal(again.images, found.images) and again.metadata == dict(found.metadata)
    report = found.report(["a", "b", "c"]).splitlines()
    assert len(report) == 4 and report[0].startswith("logits:2: ") and "% of the data" in report[0]
    single = found.__class__(**{**vars(found), "images": found.images[:, :1], "top_images": found.top_images[:, :, :1]})  # type: ignore[index]
    assert len(single.plot().axes) == 1 and len(found.plot("path").axes) >= 1


def test_seeds_batches_and_copies() -> None:
    model = model_of("base", torch.float32)
    units = [Channel("blocks.0.mlp.post", i) for i in range(3)]
    one, two = (visualize(model, units, steps=5, seed=0, batch=batch) for batch in (1, 3))
    assert torch.allclose(one.images, two.images, atol=2e-4)
    assert not torch.allclose(one.images, visualize(model, units, steps=5, seed=1).images, atol=1e-3)
    without = visualize(model, units[0], steps=3)
    assert without.percentile.isnan().all() and without.top_index is None and without.report().startswith("blocks.0")
    assert "prisma.features.visualize".rpartition(".")[2] in dir(prisma.features)


def test_interpolation_and_a_value_that_is_to_be_reached() -> None:
    model = model_of("base", torch.float32)
    ends = [Channel("logits", 0), Channel("logits", 3)]
    found = visualize(model, Interpolation(*ends), copies=3, steps=30, robustness=PLAIN)
    logits = model(found.images)
    assert logits[:, 0].argmax() == 0 and logits[:, 3].argmax() == 2
    near = visualize(model, Near(ends[0], 0.1), steps=60, robustness=PLAIN, image=Pixels(lr=0.2))
    assert model(near.images)[0, 0].item() == pytest.approx(0.1, abs=0.05)


def test_maco_and_fft_are_smoother_than_pixels_at_equal_activation() -> None:
    """On the sprites mouse: all reach the same logit, that of a typical image of the class."""
    loaded, data = prisma.load("mice/sprites"), task("sprites").inputs("test", 30)[0]
    targets = [Near(Channel("logits", 7), 9.0)]
    found = [visualize(loaded, targets, image, steps=40, robustness=PLAIN, data=data, k=1) for image in KINDS]
    assert all((x.activation.abs() < 0.2).all() for x in found), "their squared distance from the logit"
    pixels, *smooth = (total_variation(x.images) for x in found)
    assert all((x < 0.8 * pixels).all() for x in smooth)


KINDS = (Pixels(), FFT(), MACO())
SITE = "blocks.0.resid_post"


def pictures_of(x: torch.Tensor) -> Pictures:
    return Pictures(tuple(map(str, range(len(x)))), "hash", lambda rows: x[list(rows)])


def test_a_second_model_is_read_through_its_own_transform() -> None:
    network, other = (Network(small_cnn(seed), transform) for seed, transform in enumerate(TRANSFORMS))
    found = visualize(network, 1, steps=3, second=other)
    assert found.second is not None and found.second_answer is not None
    logits = other.model(TRANSFORMS[1].normalise(found.images))
    assert found.second.item() == pytest.approx(logits[0, 1].item(), abs=1e-5)
    assert found.second_answer.item() == logits.argmax().item()


TRANSFORMS = TRANSFORM, Transform((12, 16), (0.1, 0.2, 0.3), (1.0, 2.0, 3.0))


def test_data_are_compared_in_any_network_that_can_be_read_at_all() -> None:
    network = Network(Odd().eval(), TRANSFORM)
    data = TRANSFORM.normalise(torch.rand(6, 3, 12, 16, generator=torch.Generator().manual_seed(0)))
    found = visualize(network, Channel("blocks.1.conv", 2), steps=2, data=data, k=3)
    assert found.metadata["layers"] == ["blocks.0.conv", "blocks.0.act", "blocks.1.conv", "blocks.1.act"]
    assert found.path is not None and found.path.shape == (1, 4) and found.answer.item() == -1


class Block(nn.Module):
    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        self.conv, self.act = nn.Conv2d(3, 3, 3), act

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, int]:
        return self.act(self.conv(x)), 1


class Odd(nn.Module):
    """Children that are a list, give tuples, run twice, or do not run; and an output that is no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([Block(nn.Tanh()), Block(nn.Tanh())])
        self.shared, self.idle = nn.ReLU(), nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        for block in self.blocks:
            x = self.shared(block(x)[0])
        return {"logits": x}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "expected steps to be a whole number of at least 1; found 0"),
        ({"copies": 1.5}, "expected copies to be a whole number of at least 1; found 1.5"),
        ({"objectives": []}, "expected 1 to 100,000 objectives; found 0"),
        ({"objectives": Channel("blocks.0.mlp.pots", 1)}, "the nearest are"),
        (
            {"objectives": Channel("blocks.0.mlp.post", 99)},
            "feature of blocks.0.mlp.post below 10; found 99",
        ),
        ({"objectives": 7}, "class"),
        ({"start": torch.rand(3, 2, 6, 6)}, "one picture to begin with, or one for each of 1; found 3"),
        ({"start": torch.rand(2, 5, 6)}, r"expected pictures \[n, 2, 6, 6\] as floats; found \[1, 2, 5, 6\]"),
        ({"image": MACO()}, "expected data, pictures or a magnitude for MACO; found none of them"),
        ({"data": torch.rand(0, 2, 6, 6)}, "expected at least one image; found none"),
        ({"data": torch.rand(3, 2, 5, 6)}, r"expected data \[image, 2, 6, 6\] as floats, .* found \[3, 2, 5, 6\]"),
        ({"data": torch.ones(3, 2, 6, 6, dtype=torch.uint8)}, r"as floats, .* found \[3, 2, 6, 6\] of uint8"),
        ({"data": 3 * torch.rand(9, 2, 6, 6)}, "from black, which is 0 here, to white, which is 1; found 0.0"),
        ({"data": pictures_of(torch.rand(3, 2, 7, 7))}, r"expected data \[image, 2, 6, 6\] .* found \[1, 2, 7, 7\]"),
        (
            {"objectives": Distance(torch.rand(2, 5, 5))},
            r"expected pictures \[n, 2, 6, 6\] as floats; found \[1, 2, 5, 5\]",
        ),
        ({"objectives": Near(Caricature(SITE, torch.rand(2, 7, 6)), 1.0)}, r"found \[1, 2, 7, 6\]"),
        ({"objectives": 0.5 * Content(SITE, 2 * torch.ones(2, 6, 6))}, r"expected pictures in \[0, 1\]"),
        ({"transform": TRANSFORM}, r"expected a transform to images \[2, 6, 6\]; found one to \[3, 12, 16\]"),
        ({"second": small_cnn()}, r"expected a transform, .* prisma.features.Network\(module, "),
        (
            {"second": Network(small_cnn(), TRANSFORM)},
            r"a second model of images \[2, 6, 6\]; found one of \[3, 12, 16\]",
        ),
        ({"objectives": Interpolation(Channel("logits", 0), Channel("logits", 1))}, "at least two copies"),
    ],
)
def test_what_cannot_be_done_is_said(changes: dict, message: str) -> None:
    """And before the first step: an optimisation would not end."""
    settings = {"objectives": Channel("logits", 1), "steps": 10**9, **changes}
    with pytest.raises(PrismaError, match=message):
        visualize(model_of("base", torch.float32), **settings)


def test_a_target_is_the_same_alone_beside_parts_that_change_in_place_and_without_gradients() -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(inplace=True), torch.nn.Conv2d(4, 4, 3), torch.nn.ReLU(inplace=True)
    ).eval()
    told = {"transform": Transform((8, 8), (0, 0, 0), (1, 1, 1)), "image": Pixels(), "steps": 4}
    alone = visualize(network, [Channel("0", 1)], **told)
    with torch.no_grad():
        beside = visualize(network, [Channel("0", 1), Channel("2", 1)], **told)
    assert torch.allclose(beside.activation[0], alone.activation[0], atol=1e-6)
    assert torch.allclose(beside.images[0], alone.images[0], atol=1e-5)
    for lr in (float("nan"), -1.0, "x"):
        with pytest.raises(PrismaError, match="expected a learning rate of at least 0; found lr="):
            visualize(network, [Channel("0", 1)], **{**told, "lr": lr})
