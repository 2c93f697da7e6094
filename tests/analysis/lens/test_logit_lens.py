"""The logit lens: its last stage is the model's answer, and every token's row is a readout of copies of that token."""

import json

import pytest
import torch

from prisma import PrismaError
from prisma.analysis.lens.logit_lens import LogitLens, logit_lens, read_alone
from prisma.blocks import Block
from prisma.metrics import KL
from prisma.runs import record
from tests.counting import counting
from tests.twin import Twin
from tests.variants import WITH_CLASSES, images_of, model_of


@pytest.mark.parametrize("variant", WITH_CLASSES)
def test_the_last_stage_is_the_answer(variant: str) -> None:
    model = model_of(variant)
    images = images_of(model)
    lens = logit_lens(model, images)
    assert lens.readout.shape == (2, model.config.n_layers + 1, model.config.n_classes)
    assert torch.equal(lens.readout[:, -1], model(images))


@pytest.mark.parametrize("variant", WITH_CLASSES)
def test_every_token_is_read_as_if_all_tokens_were_it(variant: str) -> None:
    model = model_of(variant)
    images = images_of(model, n=1)
    tokens = logit_lens(model, images, batch=1).tokens
    assert tokens is not None
    assert tokens.shape == (1, model.config.n_layers + 1, model.config.n_tokens, model.config.n_classes)
    twin, stream = Twin(model.config, model.state_dict()), model.embed(images)
    for stage, rows in enumerate(tokens[0]):
        for token, row in enumerate(rows):
            copies = stream[0, token].expand(model.config.n_tokens, -1)
            torch.testing.assert_close(row, twin.readout(copies), rtol=0, atol=1e-12)
        if stage < model.config.n_layers:
            stream = model.encode(stream, start=stage, stop=stage + 1)


def test_the_class_token_of_class_pooling_is_the_readout() -> None:
    model = model_of("registers")
    lens = logit_lens(model, images_of(model))
    assert lens.tokens is not None
    torch.testing.assert_close(lens.tokens[:, :, 0], lens.readout, rtol=0, atol=1e-12)


def test_stages_are_the_residual_stream() -> None:
    model = model_of("pool_mean")
    images = images_of(model)
    _, acts = record(model, images, ["blocks.*.resid_pre", "blocks.1.resid_post"])
    stages = [acts["blocks.0.resid_pre"], acts["blocks.1.resid_pre"], acts["blocks.1.resid_post"]]
    assert torch.equal(logit_lens(model, images).readout, torch.stack([model.readout(x) for x in stages], dim=1))


def test_how_many_images_go_in_one_pass_bounds_the_memory_and_changes_nothing() -> None:
    model = model_of("pool_mean")
    images = images_of(model, n=5)
    stream, whole = model.embed(images), logit_lens(model, images)
    for batch in (1, 2, 1000):
        torch.testing.assert_close(read_alone(model, stream, batch), read_alone(model, stream), rtol=0, atol=1e-12)
        with counting(Block) as rows:
            found = logit_lens(model, images, batch=batch)
        assert max(rows) == min(batch, 5)
        assert sum(rows) == 5 * model.config.n_layers
        torch.testing.assert_close(found.arrays, whole.arrays, rtol=0, atol=1e-12)


def test_divergence_is_the_kl_of_each_stage_to_the_answer() -> None:
    model = model_of("base")
    images = images_of(model, n=3)
    lens = logit_lens(model, images, tokens=False)
    expected = [KL(model(images))(lens.readout[:, stage]) for stage in range(3)]
    torch.testing.assert_close(lens.divergence, torch.stack(expected, dim=1))
    assert (lens.divergence[:, -1] == 0).all()
    assert (lens.divergence[:, :-1] > 0).all()


def test_it_is_a_result_with_tokens_or_without() -> None:
    model = model_of("base")
    lens = logit_lens(model, images_of(model), tokens=False)
    assert lens.tokens is None
    assert lens.axes == {"readout": ("image", "stage", "class"), "divergence": ("image", "stage")}
    assert json.loads(json.dumps(lens.to_dict()))["arrays"]["readout"]["axes"] == ["image", "stage", "class"]
    assert isinstance(logit_lens(model, images_of(model)), LogitLens)


def test_its_pictures() -> None:
    model = model_of("base")
    lens, names = logit_lens(model, images_of(model, n=8)), [f"class {i}" for i in range(5)]
    panel = lens.plot(images=[7, 1], classes=names).axes[0]
    first = [names[i] for image in (7, 1) for i in lens.readout[image].argmax(-1).tolist()]
    assert [text.get_text() for text in panel.texts] == first
    assert [label.get_text() for label in panel.get_yticklabels()] == ["image 7", "image 1"]
    assert len(lens.plot().axes[0].get_yticklabels()) == 6
    assert lens.plot("divergence").axes[0].lines[0].get_ydata().tolist() == lens.divergence.mean(0).tolist()
    heat = lens.plot("tokens", images=[3]).axes[0].images[0].get_array()
    assert lens.tokens is not None
    expected = lens.tokens[3].softmax(-1)[..., lens.readout[3, -1].argmax()]
    torch.testing.assert_close(torch.tensor(heat.tolist(), dtype=torch.float64), expected)
    with pytest.raises(PrismaError, match="expected images from 0 to 7"):
        lens.plot(images=[8])
    with pytest.raises(PrismaError, match="no array 'tokens'"):
        logit_lens(model, images_of(model), tokens=False).plot("tokens")


def test_no_graph_is_kept() -> None:
    model = model_of("base")
    assert not logit_lens(model, images_of(model)).readout.requires_grad


def test_no_images_and_no_pass_are_refused() -> None:
    model = model_of("base")
    with pytest.raises(PrismaError, match="expected at least one image; found none"):
        logit_lens(model, images_of(model)[:0])
    with pytest.raises(PrismaError, match="expected batch to be at least 1; found 0"):
        logit_lens(model, images_of(model), batch=0)


def test_a_model_without_classes_has_no_lens() -> None:
    model = model_of("no_head")
    with pytest.raises(PrismaError, match="n_classes=0"):
        logit_lens(model, images_of(model))
