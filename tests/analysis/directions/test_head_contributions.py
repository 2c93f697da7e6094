"""What heads add to the output: along each direction, their direct logit attribution, in every form of the model."""

import pytest
import torch

import prisma
from prisma.analysis.directions.head_contributions import head_contributions
from tests.analysis.directions.test_texts import clip_of
from tests.variants import VARIANTS, images_of, model_of

FORMS = [name for name in VARIANTS if model_of(name).config.n_layers]


@pytest.mark.parametrize("variant", FORMS)
def test_contributions_are_direct_logit_attribution(variant: str) -> None:
    model = model_of(variant).requires_grad_(False)
    images = images_of(model, 2)
    found, output = head_contributions(model, images, "logits", batch=1)
    torch.testing.assert_close(output, prisma.run(model, images), rtol=1e-9, atol=1e-10)
    direction = torch.randn(output.shape[1], generator=torch.Generator().manual_seed(4)).double()
    expected = prisma.direct_logit_attribution(model, images, lambda logits: logits @ direction, sources=False)
    assert expected.heads is not None
    torch.testing.assert_close(found @ direction, expected.heads, rtol=1e-9, atol=1e-10)


def test_those_of_a_clip_are_before_its_embedding_is_scaled() -> None:
    clip = clip_of()
    images = images_of(clip, 3)
    found, output = head_contributions(clip, images, "logits")
    pooled = prisma.record(clip, images, "pooled")[1]["pooled"]
    torch.testing.assert_close(output, clip.readout.head.projection(pooled))
    along = found @ clip.readout.head.directions[2] * 10 / output.norm(dim=1)[:, None, None]
    expected = prisma.direct_logit_attribution(clip, images, prisma.Logit(2), sources=False).heads
    assert expected is not None
    torch.testing.assert_close(along, expected)
