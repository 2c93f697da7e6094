"""A latent as what a map explains."""

import pytest
import torch
import torch.nn.functional as F

import prisma
from prisma.errors import PrismaError
from prisma.features import PLAIN, Channel, Pixels, visualize
from prisma.sparse.latent_target import Latent
from tests.features.planted import TEMPLATE, patches, template_mouse
from tests.sparse.test_coders import random_coder
from tests.sparse.test_latent_nodes import FIRST, random_pair


def test_maps_of_a_latent_sum_to_how_much_it_changes() -> None:
    model, clean, _, _ = random_pair()
    coder = random_coder("standard", 12, 9, 3, 0, sites=(FIRST,))
    x = prisma.record(model, clean, FIRST)[1][FIRST]
    latent = int((coder.encode(x) > 0).sum((0, 1)).argmax())
    mean = Latent(coder, latent)
    assert torch.allclose(mean.value({FIRST: x}), coder.encode(x)[..., latent].mean(1)) and mean.tokens == ()
    at = Latent(coder, latent, token=2)
    assert torch.equal(at.value({FIRST: x}), coder.encode(x)[:, 2, latent]) and at.tokens == (2,)
    removed = prisma.attribute(model, clean, mean, "occlusion", absent="baseline")
    blank = clean.clone()
    blank[..., :2, :2] = 0
    other = coder.encode(prisma.record(model, blank, FIRST)[1][FIRST])[..., latent].mean(1)
    assert torch.allclose(removed.patches[:, 0, 0], mean.value({FIRST: x}) - other, atol=1e-10)
    assert removed.metadata["target"] == "Latent"


@pytest.mark.parametrize("kind", ["topk", "standard", "gated"])
def test_an_image_is_optimised_for_a_planted_latent_that_is_off_at_first(kind: str) -> None:
    """The latent reads the opposite of a template in every patch; beside it others, which are on for grey."""
    coder = random_coder(kind, 36, 12, 2, 0, sites=("blocks.0.resid_post",)).float()
    with torch.no_grad():
        coder.W_enc[:, 5] = -TEMPLATE.flatten()
        coder.bias[5] = -1.0 - coder.centred(torch.zeros(36)) @ coder.W_enc[:, 5]
        coder.bias[[0, 1]] += 0.1
    data = torch.rand(9, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    told = {"steps": 60, "robustness": PLAIN, "data": data}
    found = visualize(template_mouse(), Latent(coder, 5) - 0.0 * Channel("logits", 0), Pixels(), **told)
    assert found.history[0, 0] == 0 < found.activation[0] and found.percentile[0] == 100
    optimum = (patches(found.images)[0] - 0.5).flatten()
    assert F.cosine_similarity(optimum, -TEMPLATE.flatten().repeat(4), dim=0) > 0.9
    code = coder.encode(patches(found.images)[0] - 0.5)[:, 5]
    assert found.activation[0].item() == pytest.approx(code.sum().item() / 5, abs=1e-5), "with the class token"
    other = random_coder(kind, 36, 12, 2, 1, sites=("blocks.0.resid_post",))
    assert len({Latent(coder, 5).name, Latent(coder, 4).name, Latent(other, 5).name, Latent(coder, 5, 1).name}) == 4


@pytest.mark.parametrize(("kind", "steps"), [("topk", 60), ("groupmax", 60), ("abstopk", 200)])
def test_a_latent_of_small_weights_is_on_where_the_others_are_smaller(kind: str, steps: int) -> None:
    """Its own pre-activation is far below the others': the image that drives it most alone leaves it off."""
    coder = random_coder(kind, 36, 12, 2, 0, sites=("blocks.0.resid_post",)).float()
    with torch.no_grad():
        coder.W_enc[:, 5] = -0.1 * TEMPLATE.flatten()
        coder.bias[5] = -0.1 - coder.centred(torch.zeros(36)) @ coder.W_enc[:, 5]
        coder.bias[[0, 1]] += 0.1
    alone = -0.5 * TEMPLATE.flatten()[None]  # black and white pixels around grey
    assert coder.encode(alone)[0, 5] == 0 < coder.pre(alone)[0, 5]
    found = visualize(template_mouse(), Latent(coder, 5), Pixels(), steps=steps, robustness=PLAIN)
    code = coder.encode(patches(found.images)[0] - 0.5)
    assert found.activation[0] > 0.05 and (code[:, 5] > 0).float().mean() >= 0.75


@pytest.mark.parametrize(("kind", "k"), [("topk", 12), ("groupmax", 12), ("topk", 1)])
def test_what_a_latent_must_exceed(kind: str, k: int) -> None:
    coder = random_coder(kind, 36, 12, k, 0, sites=("s",))
    x = torch.randn(7, 36, dtype=coder.W_enc.dtype, generator=torch.Generator().manual_seed(0))
    latent, p = Latent(coder, 3, climbed=True), coder.pre(x)
    own, rival = p[:, 3], p[:, [i for i in range(12) if i != 3]].amax(1).relu()
    assert torch.equal(latent._above_rival(p), own if k == 12 else own - rival)


def test_what_it_cannot_be_is_said() -> None:
    model, clean, _, (coder, _) = random_pair()
    with pytest.raises(PrismaError, match="expected a latent from 0 to 8; found 9"):
        Latent(coder, 9)
    with pytest.raises(PrismaError, match="found a crosscoder"):
        Latent(random_coder("topk", 6, 9, 3, 0, sites=("a", "b"), widths=(2, 4)), 1)
    with pytest.raises(PrismaError, match=r"expected a token of blocks.0.resid_post below 10; found 12"):
        Latent(coder, 1, token=12).value(prisma.record(model, clean, FIRST)[1])
