"""Known factors: recovery by latents, and their response to one attribute."""

import pytest
import torch

import prisma
from prisma.data.task import Factor
from prisma.errors import PrismaError
from prisma.sparse.ground_truth import attribute_response, correlations, factor_recovery, indicators, latents_of_images
from tests.sparse.test_coders import random_coder
from tests.variants import images_of, model_of


def test_latents_of_an_image_are_those_of_its_most_active_token() -> None:
    model = model_of("registers", torch.float32)
    images, coder = images_of(model, 5), random_coder("topk", 12, 20, 3, 0, sites=("blocks.0.resid_post",)).float()
    z = coder.encode(prisma.record(model, images, coder.site)[1][coder.site])
    assert torch.allclose(latents_of_images(coder, model, images), z.amax(1), atol=1e-5)
    assert torch.allclose(
        latents_of_images(coder, model, images, tokens="patches", pool="mean"), z[:, 4:].mean(1), atol=1e-5
    )
    with pytest.raises(PrismaError, match="expected pool to be one of max, mean; found 'sum'"):
        latents_of_images(coder, model, images, pool="sum")


def test_known_values_are_recovered_by_latents_that_have_them() -> None:
    factors = {"shape": torch.tensor([0, 1, 2, 0, 1, 2]), "row": torch.tensor([5, 1, 4, 2, 0, 3])}
    known, names = indicators(factors, [Factor("shape", "", ("a", "b", "c")), Factor("row", "")])
    assert names == ("shape=a", "shape=b", "shape=c", "row")
    z = torch.cat([7 * known[[2, 0, 1]].T, -known[3:].T + 9, torch.ones(6, 1)], 1)
    found = factor_recovery(z, known)
    assert found.mcc == pytest.approx(1) and found.matches == (1, 2, 0, 3) and found.uniqueness == 1
    table = correlations(known, z.T)
    assert table[0, 1] == pytest.approx(1) and table[3, 3] == pytest.approx(-1) and not table[:, 4].any()
    assert table[0, 3].item() == pytest.approx(torch.corrcoef(torch.stack([known[0], z[:, 3]]))[0, 1].item())
    with pytest.raises(PrismaError, match="of the same images; found 5 and 6"):
        factor_recovery(z[:5], known)


def test_a_latent_responds_to_what_is_changed() -> None:
    model = model_of("base", torch.float32)
    images, coder = images_of(model, 4), random_coder("standard", 12, 20, 3, 0, sites=("embed",)).float()
    found = attribute_response(coder, model, {"nothing": (images, images), "all": (images, -images)})
    assert not found.change[0].any() and found.change[1].max() > 0
    responding = found.change[1] > 0
    assert (found.selectivity[responding] == 1).all() and (found.attribute[responding] == 1).all()
    assert found.selectivity[~responding].isnan().all()
