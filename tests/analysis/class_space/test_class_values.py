"""Weights in class-embedding space: loops over classes and neurons, whole matrices, planted values."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F

import prisma
from prisma import PrismaError, circuits
from prisma.analysis.class_space.class_embeddings import class_embeddings
from prisma.analysis.class_space.class_values import (
    ClassValues,
    class_reads,
    class_values,
    random_control,
    to_pixels,
)
from prisma.circuits import folded_in, folded_out
from tests.variants import images_of, model_of


@pytest.mark.parametrize("ln", circuits.LN)
@pytest.mark.parametrize(
    "variant", ["base", "attention_only", "norm_post", "norm_res_post", "layer_scale", "sub_norms", "pool_class_mean",
                "gated_silu", "divided", "parallel"]
)  # fmt: skip
def test_class_values_class_by_class(variant: str, ln: str) -> None:
    model = model_of(variant)
    found = class_values(model, ln=ln)
    for layer in range(2):
        heads = circuits.stream_weights(model, layer, ln=ln)["W_O"]
        embedding = class_embeddings(model, (layer, "attn"), ln=ln)
        for c in range(5):
            best = max(F.cosine_similarity(embedding[c], row, dim=0) for head in heads for row in head)
            torch.testing.assert_close(found.agreement_heads[layer, c], best)
            for h, d in ((0, 0), (2, 3)):
                torch.testing.assert_close(found.heads[layer, c, h, d], embedding[c] @ heads[h, d])
        if not model.config.d_mlp:
            assert found.neurons is None
            continue
        assert found.neurons is not None
        assert found.agreement_neurons is not None
        neurons = circuits.neuron_weights(model, layer, ln=ln)
        embedding = class_embeddings(model, (layer, "mlp"), ln=ln)
        for c in range(5):
            best = max(F.cosine_similarity(embedding[c], row, dim=0) for row in neurons)
            torch.testing.assert_close(found.agreement_neurons[layer, c], best)
            torch.testing.assert_close(found.neurons[layer, c], torch.stack([embedding[c] @ row for row in neurons]))


@pytest.mark.parametrize("variant", ["base", "layer_scale", "norm_res_post", "sub_norms", "gated_silu"])
def test_neurons_write_what_the_forward_writes(variant: str) -> None:
    model = model_of(variant)
    images = images_of(model)
    acts = prisma.record(model, images, "blocks.1.*")[1]
    mlp, block = model.blocks[1].mlp, model.blocks[1]
    wrote = acts["blocks.1.mlp.post"] @ circuits.neuron_weights(model, 1)
    if mlp.ln is not None:
        centred = acts["blocks.1.mlp.post"] - acts["blocks.1.mlp.post"].mean(-1, keepdim=True)
        wrote = wrote / (centred.square().mean(-1, keepdim=True) + mlp.ln.eps).sqrt() + mlp.out(mlp.ln.bias)
    elif model.config.norm == "res_post":
        out = mlp.out(acts["blocks.1.mlp.post"])
        divisor = (out.var(-1, keepdim=True, correction=0) + block.ln2.eps).sqrt()
        wrote = (wrote + folded_out(block.ln2, mlp.out.bias)) / divisor + block.ln2.bias
    else:
        wrote = wrote + block.scale2(mlp.out.bias)
    torch.testing.assert_close(wrote, acts["blocks.1.mlp_out"])


def test_a_planted_class_is_found() -> None:
    model = model_of("norm_none")
    with torch.no_grad():
        model.blocks[1].mlp.out.weight[:, 7] = 3 * model.readout.head.weight[2]
        model.blocks[0].attn.out.weight.view(12, 3, 4)[:, 1, 2] = model.readout.head.weight[4]
    found = class_values(model)
    assert found.agreement_neurons is not None
    assert found.neurons is not None
    assert found.agreement_neurons[1, 2].item() == pytest.approx(1)
    assert found.agreement_heads[0, 4].item() == pytest.approx(1)
    others = torch.ones(2, 5, dtype=torch.bool)
    others[1, 2] = False
    assert (found.agreement_neurons[others] < 0.999).all()
    assert (F.normalize(found.neurons[1], dim=1).argmax(1)[2] == 7).item()


@pytest.mark.parametrize("ln", circuits.LN)
@pytest.mark.parametrize("variant", ["base", "norm_post", "divided"])
def test_class_reads_go_through_the_head(variant: str, ln: str) -> None:
    model = model_of(variant)
    for place in circuits.attentions(model.config):
        expected = circuits.ov(model, *place, ln=ln) @ class_embeddings(model, place, ln=ln).mT
        torch.testing.assert_close(class_reads(model, *place, ln=ln), expected.mT)


@pytest.mark.parametrize("variant", ["base", "norm_patches", "norm_embed", "not_square", "video", "cut_edge"])
def test_pixels_are_what_a_direction_looks_for(variant: str) -> None:
    model = model_of(variant)
    directions = torch.randn(3, model.config.d_model, dtype=torch.float64)
    found = to_pixels(model, directions)
    channels, *rest = model.config.input_shape
    frames = rest[:-2]
    assert found.shape == (3, channels, *([model.config.tubelet] if frames else []), *model.config.patch_sides)
    patch = torch.randn(model.embed.patch.in_features, dtype=torch.float64)
    plain = model.embed.patch.weight @ patch
    for direction, pixels in zip(directions, found, strict=True):
        reads = folded_in(model.embed.ln_pre, direction[:, None])
        reads = folded_in(model.embed.ln_patch, reads)[:, 0]
        torch.testing.assert_close(pixels.flatten() @ patch, reads @ plain)
    raw = to_pixels(model, directions, ln="none").flatten(1) @ patch
    torch.testing.assert_close(raw, directions @ plain)


def test_the_control_is_of_the_same_form_and_of_other_weights() -> None:
    model = model_of("layer_scale", dtype=torch.bfloat16)
    state = torch.random.get_rng_state()
    control, again, other = random_control(model), random_control(model), random_control(model, seed=1)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert control.config == model.config
    assert not control.training
    assert next(control.parameters()).dtype == torch.bfloat16
    weight = lambda m: m.blocks[0].attn.qkv.weight  # noqa: E731
    assert torch.equal(weight(control), weight(again))
    assert not torch.equal(weight(control), weight(other))
    assert not torch.equal(weight(control), weight(model))


def test_the_digits_mouse_agrees_with_its_classes_more_than_chance() -> None:
    mouse = prisma.load("mice/digits").model
    trained, control = class_values(mouse), class_values(random_control(mouse))
    assert trained.agreement_heads[-1].mean() > control.agreement_heads[-1].mean() + 0.05


def test_results_survive_a_file(tmp_path: Any) -> None:
    model = model_of("attention_only")
    space = class_values(model, layers=[1])
    again = ClassValues.from_npz(space.to_npz(tmp_path / "space.npz"))
    assert torch.equal(again.heads, space.heads.detach())
    assert again.neurons is None
    assert again.metadata["layers"] == [1]
    assert [label.get_text() for label in again.plot().axes[0].get_yticklabels()] == ["layer 1"]


@pytest.mark.parametrize(
    ("variant", "call", "message"),
    [
        ("no_head", class_values, "found pool='class' and n_classes=0"),
        ("base", lambda m: class_values(m, layers=[]), r"from 0 to 1; found \[\]"),
        ("base", lambda m: class_values(m, layers=[2]), "from 0 to 1"),
        ("base", lambda m: class_values(m, attention="time"), "'time'"),
        ("no_layers", class_values, "found n_layers=0"),
        ("base", lambda m: to_pixels(m, torch.ones(3)), r"\[..., 12\]; found \[3\]"),
        ("attention_only", lambda m: circuits.neuron_weights(m, 0), "found 0 and d_mlp=0"),
        ("base", lambda m: circuits.neuron_weights(m, 5), "found 5 and d_mlp=10"),
    ],
)
def test_what_cannot_be_done_is_said(variant: str, call: Any, message: str) -> None:
    with pytest.raises(PrismaError, match=message):
        call(model_of(variant))
