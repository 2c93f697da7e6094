"""The loop: its steps are Adam's, targets are independent, and what does not depend on the image is said."""

import pytest
import torch

from prisma.errors import NotFiniteError, PrismaError
from prisma.features.ascent import Plan, climb
from prisma.features.colors import Colors
from prisma.features.cppn import CPPN
from prisma.features.images import FFT, Image, Pixels, Pyramid
from prisma.features.maco import MACO
from prisma.features.objectives import Channel, OfFunction, as_objective
from prisma.features.robustness import PLAIN, Robustness
from prisma.features.subjects import subject_of
from tests.variants import model_of

SUBJECT = subject_of(model_of("base", torch.float32))
UNITS = [Channel("blocks.0.mlp.post", i) for i in range(4)]
EVERYTHING = Robustness(color=0.2, offset=0.2, noise=0.05, ensemble=2)


def plan(image: Image | None = None, **changes) -> Plan:  # type: ignore[no-untyped-def]
    settings = {"steps": 6, "seed": 3, "copies": 1, "robustness": EVERYTHING, "lr": 0.05, **changes}
    return Plan(image=image or FFT(), colors=Colors.plain(2), **settings)


@pytest.mark.parametrize("image", [FFT(), Pixels(), Pyramid(levels=2), CPPN(width=5, layers=2), MACO()], ids=repr)
def test_the_result_of_a_target_does_not_depend_on_the_others(image: Image) -> None:
    image = image.of_data(torch.randn(5, *SUBJECT.shape, generator=torch.Generator().manual_seed(0)))
    together = climb(SUBJECT, UNITS, plan(image, copies=2))
    for place in (0, 3):
        alone = climb(SUBJECT, [UNITS[place]], plan(image, copies=2))
        own = slice(2 * place, 2 * place + 2)
        assert torch.allclose(alone.pixels, together.pixels[own], atol=2e-4)
        assert torch.allclose(alone.history, together.history[own], atol=2e-4)
    turned = climb(SUBJECT, UNITS[::-1], plan(image, copies=2))
    assert torch.allclose(turned.pixels.unflatten(0, (4, 2)).flip(0), together.pixels.unflatten(0, (4, 2)), atol=2e-4)
    assert not torch.allclose(together.pixels[0], together.pixels[1], atol=1e-3) or isinstance(image, CPPN)


def test_the_steps_are_those_of_adam() -> None:
    """By the formulas of the paper, step by step."""
    found = climb(SUBJECT, UNITS[:1], plan(Pixels(), robustness=PLAIN, steps=5))
    (x,) = Pixels().begin(1, SUBJECT.shape, torch.Generator().manual_seed(3))
    m, v = torch.zeros_like(x), torch.zeros_like(x)
    for step in range(5):
        x = x.detach().requires_grad_()
        acts = SUBJECT.read(torch.sigmoid(x), ["blocks.0.mlp.post"])
        value = acts["blocks.0.mlp.post"][:, 1:, 0].mean()
        assert found.history[0, step].item() == pytest.approx(value.item(), abs=1e-5)
        (g,) = torch.autograd.grad(-value, x)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        x = x - 0.05 * (m / (1 - 0.9 ** (step + 1))) / ((v / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8)
    assert torch.allclose(found.pixels, torch.sigmoid(x), atol=1e-5)


def test_it_climbs_within_the_range_of_pixels() -> None:
    found = climb(SUBJECT, UNITS, plan(robustness=PLAIN, steps=40))
    assert (found.history[:, -1] > found.history[:, 0]).all()
    assert found.pixels.min() >= 0 and found.pixels.max() <= 1
    assert torch.allclose(found.alpha.amax((1, 2)), torch.ones(4)) and found.alpha.min() >= 0


def test_it_begins_with_a_picture() -> None:
    picture = torch.rand(1, *SUBJECT.shape, generator=torch.Generator().manual_seed(0)) * 0.9 + 0.05
    found = climb(SUBJECT, UNITS[:1], plan(steps=1, lr=1e-6), picture)
    assert torch.allclose(found.pixels, picture, atol=1e-3)


def test_objectives_that_do_not_depend_on_the_image_are_named() -> None:
    constant = OfFunction(lambda acts: torch.ones(len(acts["pixels"])), ("pixels",))
    zero = OfFunction(lambda acts: 0 * acts["pixels"].sum((1, 2, 3)), ("pixels",))
    off = OfFunction(lambda acts: (acts["pixels"].sum((1, 2, 3)) - 1e6).relu(), ("pixels",))
    for wrong in (constant, zero, off):
        with pytest.raises(PrismaError, match="expected an objective that the image changes; found that OfFunction"):
            climb(SUBJECT, [UNITS[0], wrong], plan())
    endless = OfFunction(lambda acts: acts["pixels"].sum((1, 2, 3)) * torch.inf, ("pixels",))
    with pytest.raises(NotFiniteError, match=r"expected finite numbers; found inf for OfFunction.* at step 0"):
        climb(SUBJECT, [UNITS[0], endless], plan())


def test_errors_of_the_model_come_through() -> None:
    def broken(acts):  # type: ignore[no-untyped-def]
        raise RuntimeError("of the model")

    with pytest.raises(RuntimeError, match="of the model"):
        climb(SUBJECT, [OfFunction(broken, ("pixels",))], plan())
    with pytest.raises(PrismaError, match="class"):
        climb(SUBJECT, [as_objective(9)], plan())
