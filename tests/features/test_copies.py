"""Objectives between the copies of a target."""

import pytest
import torch
import torch.nn.functional as F

from prisma.analysis.readings import MAP, Activations
from prisma.errors import PrismaError
from prisma.features import PLAIN, Channel, Pixels, visualize
from prisma.features.copies import Alignment, Diversity, Interpolation
from tests.variants import model_of

torch.manual_seed(0)
X = torch.randn(4, 3, 2, 5)
ACTS = Activations({"conv": X}, {"conv": MAP})


def test_diversity_is_the_mean_cosine_of_the_others_grams() -> None:
    grams = [F.normalize((x.flatten(1) @ x.flatten(1).T).flatten(), dim=0) for x in X]
    wanted = [-sum((g @ h).item() for j, h in enumerate(grams) if j != i) / 3 for i, g in enumerate(grams)]
    assert Diversity("conv").value(ACTS).tolist() == pytest.approx(wanted, abs=1e-6)
    alike = Activations({"conv": X[:1].expand(4, -1, -1, -1)}, {"conv": MAP})
    assert torch.allclose(Diversity("conv").value(alike), torch.full((4,), -1.0))


def test_alignment_halves_with_every_step_apart() -> None:
    found = Alignment("conv", reach=2).value(ACTS)
    wanted = [
        -sum(0.5 ** abs(i - j) * (X[i] - X[j]).square().mean().item() for j in range(4) if 0 < abs(i - j) <= 2)
        for i in range(4)
    ]
    assert found.tolist() == pytest.approx(wanted, rel=1e-5)


def test_interpolation_goes_from_the_first_to_the_last() -> None:
    made = Interpolation(Channel("conv", 0), Channel("conv", 2))
    first, last = X[:, 0].mean((1, 2)), X[:, 2].mean((1, 2))
    share = torch.tensor([0, 1 / 3, 2 / 3, 1])
    assert torch.allclose(made.value(ACTS), (1 - share) * first + share * last)
    assert made.reads == ("conv",) and made.bound(lambda *_: ACTS) == made


def test_copies_that_begin_with_one_picture_part() -> None:
    model = model_of("base", torch.float32)
    picture = torch.rand(model.config.input_shape, generator=torch.Generator().manual_seed(0))
    told = {"start": picture, "copies": 3, "image": Pixels(), "robustness": PLAIN}
    apart = Diversity("blocks.0.resid_post")
    first = visualize(model, [apart, apart], steps=1, lr=0.0, **told)
    assert torch.allclose(first.images[::3], picture.expand(2, -1, -1, -1), atol=1e-6), "the first copy is the picture"
    assert torch.allclose(first.images[:3], first.images[3:], atol=1e-6), "up to rounding, the same for all targets"
    assert (first.images[0] - first.images[1]).abs().max() > 1e-3
    assert (visualize(model, apart, steps=40, **told).activation > first.activation[:3] + 0.01).all()


def test_one_copy_has_nothing_to_compare() -> None:
    one = Activations({"conv": X[:1]}, {"conv": MAP})
    for objective in (Diversity("conv"), Alignment("conv"), Interpolation(Channel("conv", 0), Channel("conv", 1))):
        assert not objective.per_image and not (2 * objective + Channel("conv", 0)).per_image
        with pytest.raises(PrismaError, match="expected at least two copies of a target to compare; found 1"):
            objective.value(one)
