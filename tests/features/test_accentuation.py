"""A picture with more of what drives a unit."""

import pytest
import torch

from prisma.analysis.readings import Activations
from prisma.errors import PrismaError
from prisma.features import FFT, MACO, PLAIN, Channel, Distance, Pixels, Pyramid, accentuate
from prisma.features.images import Image
from tests.variants import model_of


def test_the_unit_is_driven_more_and_the_picture_stays() -> None:
    model = model_of("base", torch.float32)
    pictures = 0.1 + 0.8 * torch.rand(2, *model.config.input_shape, generator=torch.Generator().manual_seed(0))
    units = [Channel("logits", 1), Channel("logits", 4)]
    before = model(pictures)[[0, 1], [1, 4]]
    found = {d: accentuate(model, units, pictures, distance=d, steps=25, robustness=PLAIN) for d in (0.0, 3.0)}
    moved = {d: (x.images - pictures).square().mean((1, 2, 3)).sqrt() for d, x in found.items()}
    after = {d: model(x.images)[[0, 1], [1, 4]] for d, x in found.items()}
    assert all((x > before).all() for x in after.values()) and (moved[3.0] < moved[0.0]).all()
    held = units[0] - 3.0 * Distance(pictures[0])
    acts = {"logits": model(found[3.0].images[:1]), "pixels": found[3.0].images[:1]}
    value = held.value(Activations(acts, {"logits": ("batch", "class")}))
    assert found[3.0].activation[0].item() == pytest.approx(value.item(), abs=1e-4)


@pytest.mark.parametrize("image", [FFT(), Pixels(), Pyramid(), MACO()], ids=lambda x: type(x).__name__)
def test_a_picture_is_itself_before_the_first_step(image: Image) -> None:
    """Black and white too, which no number gives the sigmoid; with MACO, whose magnitudes are not the picture's."""
    model = model_of("base", torch.float32)
    pictures = torch.rand(2, *model.config.input_shape, generator=torch.Generator().manual_seed(0))
    pictures[0, :, :3], pictures[1, 0] = 0, 1
    found = accentuate(model, Channel("logits", 1), pictures, image=image, steps=1, lr=0.0, robustness=PLAIN)
    assert torch.allclose(found.images, pictures, atol=1e-6)
    assert found.history[:, 0].tolist() == pytest.approx((model(pictures)[:, 1] - 10 * 1e-4).tolist(), abs=1e-3)


def test_one_objective_serves_all_pictures_and_counts_must_agree() -> None:
    model = model_of("base", torch.float32)
    pictures = torch.rand(2, *model.config.input_shape)
    assert len(accentuate(model, Channel("logits", 1), pictures, steps=2).images) == 2
    with pytest.raises(PrismaError, match="expected one objective, or one for each of 2 pictures; found 3"):
        accentuate(model, [1, 2, 3], pictures)
