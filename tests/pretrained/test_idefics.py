"""IDEFICS through hooks: every site is what a hand-made hook sees, every edit counts, and nothing stays behind."""

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import IdeficsConfig, IdeficsForVisionText2Text, IdeficsModel

from prisma import Add, PrismaError, Resample, Set, Zero
from prisma.errors import UnsupportedModelError
from prisma.pretrained.idefics import PLACES, record, run, sites
from prisma.pretrained.parity import randomise
from prisma.sites import SITES

FORMS: dict[str, dict[str, Any]] = {
    "resampler": {"use_resampler": True},
    "no resampler": {},
    "gates of vectors": {"alpha_type": "vector", "qk_layer_norms": True},
    "every second layer": {"cross_layer_interval": 2, "use_resampler": True},
}


@cache
def model_of(form: str, kind: type[nn.Module] = IdeficsForVisionText2Text) -> nn.Module:
    vision = {"embed_dim": 12, "image_size": 8, "patch_size": 4, "num_attention_heads": 3, "num_hidden_layers": 2}
    perceiver = {"resampler_n_latents": 3, "resampler_depth": 1, "resampler_n_heads": 2, "resampler_head_dim": 4}
    config = IdeficsConfig(
        vocab_size=20, additional_vocab_size=2, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=2, vision_config={**vision, "intermediate_size": 20},
        perceiver_config={**perceiver, "use_resampler": FORMS[form].get("use_resampler", False)}, **FORMS[form],
    )  # fmt: skip
    model = kind(config).eval().double()
    randomise(model)
    return model.requires_grad_(False)


def inputs_of(seed: int = 0) -> dict[str, Tensor]:
    """Two prompts of five tokens and two images each; the first token looks at no image."""
    generator = torch.Generator().manual_seed(seed)
    looks = torch.ones(2, 5, 2, dtype=torch.long)
    looks[:, 0] = 0
    return {
        "input_ids": torch.randint(3, 20, (2, 5), generator=generator),
        "attention_mask": torch.ones(2, 5, dtype=torch.long),
        "pixel_values": torch.randn(2, 2, 3, 8, 8, generator=generator, dtype=torch.float64),
        "image_attention_mask": looks,
    }


def hooks(model: nn.Module) -> int:
    return sum(len(part._forward_hooks) + len(part._forward_pre_hooks) for part in model.modules())


@pytest.mark.parametrize("form", FORMS)
def test_every_site_is_what_a_hand_made_hook_sees(form: str) -> None:
    model, inputs = model_of(form), inputs_of()
    before = hooks(model)
    plain = model(**inputs).logits
    output, acts = record(model, inputs, "*")
    assert torch.equal(output.logits, plain)
    assert set(acts) == set(sites(model))
    for site, place in sites(model).items():
        seen: list[Tensor] = []
        part = model.model.get_submodule(place.path)
        if place.is_input:
            handle = part.register_forward_pre_hook(lambda _, given, to=seen: to.append(given[0]))
        else:
            handle = part.register_forward_hook(lambda _, __, returned, to=seen: to.append(returned))
        model(**inputs)
        handle.remove()
        assert len(seen) == 1, site
        assert torch.equal(acts[site].reshape(seen[0].shape), seen[0]), site
        assert acts[site].ndim == len(place.axes) or site.endswith("_gate")
    assert hooks(model) == before


@pytest.mark.parametrize("form", FORMS)
def test_every_site_that_is_edited_changes_the_output(form: str) -> None:
    model, inputs = model_of(form), inputs_of()
    output, acts = record(model, inputs, "*")
    for site, x in acts.items():
        noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype)
        edited, after = record(model, inputs, site, {site: Add(noise)})
        torch.testing.assert_close(after[site], x + noise)
        assert (edited.logits - output.logits).abs().max() > 1e-9, f"{site} is idle"
        torch.testing.assert_close(run(model, inputs, {site: Set(x)}).logits, output.logits)


def test_the_forms_cover_the_places() -> None:
    found = {site for form in FORMS for site in sites(model_of(form))}
    assert {".".join("{l}" if part.isdigit() else part for part in site.split(".")) for site in found} == set(PLACES)
    assert "resampled" not in sites(model_of("no resampler"))
    assert "cross.1.attn_out" not in sites(model_of("every second layer"))


def test_sites_of_the_vision_tower_have_our_names_and_axes() -> None:
    ours = {site: axes for site, axes in SITES.items() if site.startswith("blocks.")}
    theirs = {site: place.axes for site, place in PLACES.items() if site.startswith("blocks.")}
    assert theirs.items() <= ours.items()


@pytest.mark.parametrize("form", FORMS)
def test_sites_mean_what_they_say(form: str) -> None:
    model, inputs = model_of(form), inputs_of()
    _, acts = record(model, inputs, "*")
    close = torch.testing.assert_close
    mid = acts["blocks.0.resid_pre"] + acts["blocks.0.attn_out"]
    close(acts["blocks.0.resid_post"], mid + acts["blocks.0.mlp_out"])
    close(acts["blocks.0.resid_pre"], acts["ln_pre"])
    q, k, v = (acts[f"blocks.1.attn.{x}"] for x in "qkv")
    pattern = (torch.einsum("bqhd,bkhd->bhqk", q, k) / q.shape[-1] ** 0.5).softmax(-1)
    close(acts["blocks.1.attn.z"], torch.einsum("bhqk,bkhd->bqhd", pattern, v))
    looks = inputs["image_attention_mask"].any(-1, keepdim=True)
    mid = acts["cross.0.resid_pre"] + acts["cross.0.attn_gate"] * acts["cross.0.attn_out"] * looks
    close(acts["cross.0.resid_post"], mid + acts["cross.0.mlp_gate"] * acts["cross.0.mlp_out"])
    close(acts["text.0.resid_pre"], acts["cross.0.resid_post"])
    close(acts["text.0.resid_post"] - acts["text.0.resid_pre"], acts["text.0.attn_out"] + acts["text.0.mlp_out"])


def test_closed_gates_make_the_language_model_blind() -> None:
    model, inputs = model_of("resampler"), inputs_of()
    other = {**inputs, "pixel_values": inputs_of(1)["pixel_values"]}
    assert not torch.equal(model(**inputs).logits, model(**other).logits)
    closed = {"cross.*.attn_gate": Zero()}
    assert torch.equal(run(model, inputs, closed).logits, run(model, other, closed).logits)


def test_edits_narrow_by_axis_as_anywhere() -> None:
    model, inputs = model_of("resampler"), inputs_of()
    _, acts = record(model, inputs, ["blocks.0.attn.z", "cross.1.attn.v", "resampled"])
    edit = {
        "blocks.0.attn.hook_z": Zero().at(head=2, token=0),
        "cross.1.attn.v": Zero().at(image_token=3),
        "resampled": Resample((1, 0, 3, 2)).at(latent=0),
    }
    _, after = record(model, inputs, ["blocks.0.attn.z", "cross.1.attn.v"], edit)
    assert not after["blocks.0.attn.z"][:, 0, 2].any()
    assert torch.equal(after["blocks.0.attn.z"][:, :, :2], acts["blocks.0.attn.z"][:, :, :2])
    assert not after["cross.1.attn.v"][:, 3].any()
    with pytest.raises(PrismaError, match="found 'head'"):
        run(model, inputs, {"resampled": Zero().at(head=0)})


def test_patching_all_the_images_say_makes_the_other_output() -> None:
    model, inputs = model_of("resampler"), inputs_of()
    other = {**inputs, "pixel_values": inputs_of(1)["pixel_values"]}
    output, acts = record(model, other, "resampled")
    torch.testing.assert_close(run(model, inputs, {"resampled": Set(acts["resampled"])}).logits, output.logits)


def test_the_model_without_a_head_is_read_too() -> None:
    model, inputs = model_of("resampler", IdeficsModel), inputs_of()
    output, acts = record(model, inputs, ["text.ln_final", "cross.*.attn_gate"])
    assert torch.equal(output.last_hidden_state, acts["text.ln_final"])
    assert len(acts) == 3


def test_nothing_is_left_on_the_model_when_an_edit_or_the_model_fails() -> None:
    model, inputs = model_of("resampler"), inputs_of()
    before = hooks(model)
    with pytest.raises(PrismaError, match="keeps the shape"):
        record(model, inputs, "*", {"text.1.mlp_out": lambda x: x[:1]})
    assert hooks(model) == before
    with pytest.raises(ValueError, match="Exactly 1 of pixel_values"):
        record(model, {"input_ids": inputs["input_ids"]}, "*")
    assert hooks(model) == before


@pytest.mark.parametrize("read", ["blocks.2.attn.z", "cross.0.attn.pattern", "nonsense"])
def test_a_site_that_the_model_does_not_have_is_refused(read: str) -> None:
    with pytest.raises(PrismaError, match="no site of this model matches"):
        record(model_of("resampler"), inputs_of(), read)


def test_a_part_that_does_not_run_is_refused() -> None:
    model, inputs = model_of("resampler"), inputs_of()
    _, acts = record(model, inputs, "resampled")
    given = {**inputs, "perceiver_embeddings": acts["resampled"].view(2, 2, 3, 12)}
    del given["pixel_values"]
    assert record(model, given, "cross.*")[1]
    for arguments in (("blocks.0.attn.z", None), ("cross.*", {"blocks.0.attn.z": Zero()})):
        with pytest.raises(
            PrismaError, match=r"inputs that reach blocks.0.attn.z; found that this part of the model did not"
        ):
            record(model, given, *arguments)


def test_a_model_of_another_class_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match=r"expected an IDEFICS model of transformers; found torch.*Linear"):
        record(nn.Linear(1, 1), {}, "*")


def test_gradients_flow_through_what_was_recorded() -> None:
    model, inputs = model_of("resampler"), inputs_of()
    inputs["pixel_values"].requires_grad_()
    output, acts = record(model, inputs, "cross.1.attn.z")
    (gradient,) = torch.autograd.grad(output.logits[:, -1, 0].sum(), acts["cross.1.attn.z"])
    assert gradient.abs().max() > 0
