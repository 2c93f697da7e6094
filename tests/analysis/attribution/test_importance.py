"""Importance against its closed form: what a head's value of a token writes, times the gradient of the readout."""

import pytest
import torch

from prisma import Logit, PrismaError, record
from prisma.analysis.attribution.attribute import attribute
from prisma.analysis.attribution.importance import importance
from tests.variants import images_of, model_of


@pytest.mark.parametrize("variant", ["base", "clip", "registers", "rms", "layer_scale", "attention_only_norm_none"])
@pytest.mark.parametrize("of", ["cross_entropy", "logit"])
def test_it_is_the_slope_along_what_each_token_would_write(variant: str, of: str) -> None:
    model = model_of(variant)
    images, classes = images_of(model, n=3), torch.tensor([4, 0, 2])
    found = importance(model, images, classes, of=of, batch=2)
    _, acts = record(model, images, ["*.attn_out", "*.v"])
    for layer, block in enumerate(model.blocks):
        o = acts[f"blocks.{layer}.attn_out"][:, 0].clone().requires_grad_()
        logits = model.readout(o[:, None])
        if of == "cross_entropy":
            value = -torch.nn.functional.cross_entropy(logits, classes, reduction="sum")
        else:
            value = Logit(classes)(logits).sum()
        slope = torch.autograd.grad(value, o)[0]
        written = torch.einsum("bthd,hdm->bthm", acts[f"blocks.{layer}.attn.v"], block.attn.W_O)  # type: ignore[union-attr,arg-type]
        scale = getattr(block.scale1, "weight", torch.ones(()))  # type: ignore[union-attr,arg-type]
        torch.testing.assert_close(found.map[:, layer], torch.einsum("bthm,bm->bht", written * scale, slope))
    torch.testing.assert_close(found.summed, found.map.sum((1, 2)))
    torch.testing.assert_close(found.patches.flatten(1), found.summed[:, model.config.n_prefix :])


def test_attribute_sums_it_over_blocks_and_heads() -> None:
    model = model_of("base")
    images = images_of(model)
    torch.testing.assert_close(
        attribute(model, images, [1, 2], "importance").map, importance(model, images, [1, 2]).summed
    )
    with pytest.raises(PrismaError, match="the logit of a class for importance"):
        attribute(model, images, lambda logits: logits[:, 0], "importance")


def test_a_video_has_a_map_for_each_step_of_time() -> None:
    model = model_of("video")
    found = importance(model, images_of(model), 1)
    assert found.patches.shape == (2, *model.config.grid) and found.axes["patches"] == (
        "image",
        "time",
        "row",
        "column",
    )


def test_it_is_drawn() -> None:
    model = model_of("base")
    found = importance(model, images_of(model), 1)
    assert found.plot().axes and found.plot("patches").axes


def test_bad_input_is_refused() -> None:
    for variant in ("pool_mean", "no_layers", "no_head", "divided"):
        model = model_of(variant)
        with pytest.raises(PrismaError, match="reads classes out of its class token"):
            importance(model, images_of(model), 0)
    model = model_of("base")
    with pytest.raises(PrismaError, match="expected of to be cross_entropy or logit; found 'loss'"):
        importance(model, images_of(model), 0, of="loss")
    with pytest.raises(PrismaError, match="expected a class from 0 to 4; found 9"):
        importance(model, images_of(model), 9)
