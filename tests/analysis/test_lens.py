"""The logit lens: its last stage is the model's answer, and every token's row is a readout of copies of that token."""

import pytest
import torch

from prisma import PrismaError
from prisma.analysis.lens import logit_lens
from prisma.runs import record
from tests.twin import Twin
from tests.variants import VARIANTS, images_of, model_of

WITH_CLASSES = [name for name, fields in VARIANTS.items() if fields.get("n_classes") != 0]


@pytest.mark.parametrize("variant", WITH_CLASSES)
def test_the_last_stage_is_the_answer(variant: str) -> None:
    model = model_of(variant)
    images = images_of(model)
    lens = logit_lens(model, images)
    assert lens.readout.shape == (model.config.n_layers + 1, 2, model.config.n_classes)
    assert torch.equal(lens.readout[-1], model(images))


@pytest.mark.parametrize("variant", WITH_CLASSES)
def test_every_token_is_read_as_if_all_tokens_were_it(variant: str) -> None:
    model = model_of(variant)
    images = images_of(model, n=1)
    lens = logit_lens(model, images, batch=5)
    assert lens.tokens.shape == (model.config.n_layers + 1, 1, model.config.n_tokens, model.config.n_classes)
    twin, stream = Twin(model.config, model.state_dict()), model.embed(images)
    for stage, rows in enumerate(lens.tokens):
        for token, row in enumerate(rows[0]):
            copies = stream[0, token].expand(model.config.n_tokens, -1)
            torch.testing.assert_close(row, twin.readout(copies), rtol=0, atol=1e-12)
        if stage < model.config.n_layers:
            stream = model.encode(stream, start=stage, stop=stage + 1)


def test_the_class_token_of_class_pooling_is_the_readout() -> None:
    model = model_of("registers")
    lens = logit_lens(model, images_of(model))
    torch.testing.assert_close(lens.tokens[:, :, 0], lens.readout, rtol=0, atol=1e-12)


def test_stages_are_the_residual_stream() -> None:
    model = model_of("pool_mean")
    images = images_of(model)
    _, acts = record(model, images, ["blocks.*.resid_pre", "blocks.1.resid_post"])
    stages = [acts["blocks.0.resid_pre"], acts["blocks.1.resid_pre"], acts["blocks.1.resid_post"]]
    assert torch.equal(logit_lens(model, images).readout, torch.stack([model.readout(x) for x in stages]))


def test_a_model_without_classes_has_no_lens() -> None:
    model = model_of("no_head")
    with pytest.raises(PrismaError, match="n_classes=0"):
        logit_lens(model, images_of(model))
