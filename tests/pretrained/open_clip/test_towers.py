"""open_clip: every configuration's two towers, every parameter, and what is refused."""

import copy
import re
from typing import Any
from unittest.mock import patch

import open_clip
import pytest
import timm
import torch
from open_clip.model import CLIP, CustomTextCLIP
from open_clip.timm_model import TimmModel
from torch import Tensor, nn

from prisma.errors import UnsupportedModelError
from prisma.pretrained.families import family_of, text_family_of
from prisma.pretrained.rules import convert
from tests.pretrained.open_clip.cases import CASES, small_trunks
from tests.pretrained.proofs import expect_parity, idle_parameters

IMAGE_REFUSED = {  # name -> the property
    "RN.*": "ModifiedResNet, which has batch norm and convolutions",
    "convnext_.*": "ConvNeXt, which has .*convolutions",
    r"MobileCLIP2?-S\d": "FastVit, which has .*convolutions",
    "MobileCLIP2?-B|ViTamin-.*": "the (patch embedding HybridEmbed|MLP GeGluMlp) is not supported",
    "swin_.*": "SwinTransformer, which has attention within windows",
    "vit_relpos_.*": "VisionTransformerRelPos, which Prisma does not read",
    "coca_ViT-.*": "attentional pooling between two norms",
}
TEXT_REFUSED = {
    "coca_(ViT-.*|base)": "embed_cls",
    "(coca_)?(xlm-)?roberta-.*|mt5-.*|nllb-.*": "found open_clip.hf_model.HFTextEncoder",
}
CUSTOM = {"qk_norm": True, "scale_heads": True, "scale_attn_inner": True, "scale_fc": True, "ls_init_value": 0.1}
VISION: dict[str, Any] = {"layers": 2, "width": 24, "head_width": 8, "patch_size": (2, 4), "image_size": (6, 8)}
TEXT: dict[str, Any] = {"layers": 2, "width": 16, "heads": 2, "context_length": 5, "vocab_size": 30}
FORMS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {  # of the two towers: what the published ones do not vary
    "plain": ({}, {}),
    "custom_blocks": (CUSTOM, CUSTOM),
    "means": ({"pool_type": "avg"}, {"pool_type": "first", "proj_bias": True}),
    "norm_after": ({"pool_type": "avg", "final_ln_after_pool": True, "no_ln_pre": True}, {"pool_type": "eos"}),
    "norm_after_class": ({"final_ln_after_pool": True, "output_tokens": True}, {"output_tokens": True}),
    "sincos": ({"pos_embed_type": "sin_cos_2d", "image_size": (8, 16)}, {"no_causal_mask": True, "pool_type": "last"}),
    "activations": (
        {"act_kwargs": {"approximate": "tanh"}, "norm_kwargs": {"eps": 1e-3}},
        {"act_kwargs": {"approximate": "tanh"}, "proj_type": "none"},
    ),
}
REFUSED_FORMS = {
    "scaled_cosine_attn": "scaled cosines",
    "scale_attn": "a norm after attention as well as before it",
}


def pair(vision: dict[str, Any] | None = None, text: dict[str, Any] | None = None, **more: Any) -> nn.Module:
    return CustomTextCLIP(12, {**VISION, **(vision or {})}, {**TEXT, **(text or {})}, **more).eval()


def images_for(module: nn.Module) -> Tensor:
    shape = family_of(module).read(module).config.input_shape  # type: ignore[union-attr]
    return torch.randn(2, *shape, generator=torch.Generator().manual_seed(1))


def prompts_for(tower: nn.Module, n: int = 4) -> Tensor:
    config = text_family_of(tower).read(tower).config
    shape = (n, config.context)  # type: ignore[union-attr]
    return torch.randint(config.vocabulary, shape, generator=torch.Generator().manual_seed(1))  # type: ignore[union-attr]


def text_of(module: Any) -> nn.Module:
    return module.text if hasattr(module, "text") else module


def unseen(module: nn.Module) -> set[str]:
    """What adds the same to all keys changes no pattern."""
    return {name for name, _ in module.named_parameters() if name.endswith("ln_k.bias")}


def reason(refused: dict[str, str], name: str) -> str | None:
    return next((why for pattern, why in refused.items() if re.fullmatch(pattern, name)), None)


QUICK = [name for name in CASES if not re.match("ViTamin-[BLX]", name)]  # the others, wide, are as ViTamin-S is
OUTLINES = [
    name
    for name in CASES
    if not (reason(IMAGE_REFUSED, name) or "hf_model_name" in open_clip.get_model_config(name)["text_cfg"])
]


@pytest.mark.parametrize("name", QUICK)
def test_every_published_configuration(name: str) -> None:
    module = CASES[name]()
    if (why := reason(IMAGE_REFUSED, name)) is not None:
        with pytest.raises(UnsupportedModelError, match=why):
            family_of(module).read(module)
    else:
        expect_parity(module, images_for(module))
    tower = text_of(module)
    if (why := reason(TEXT_REFUSED, name)) is not None:
        with pytest.raises(UnsupportedModelError, match=why):
            text_family_of(tower).read(tower)
    else:
        expect_parity(tower, prompts_for(tower), text_family_of(tower))


@pytest.mark.parametrize("form", FORMS)
def test_every_form_and_each_of_its_parameters(form: str) -> None:
    module: Any = pair(*FORMS[form], quick_gelu=form == "plain")
    expect_parity(module, images_for(module))
    assert idle_parameters(module.visual, images_for(module)) == unseen(module.visual)
    prompts = prompts_for(module.text, 40)  # every token of the vocabulary
    expect_parity(module.text, prompts, text_family_of(module.text))
    assert idle_parameters(module.text, prompts, text_family_of(module.text)) == unseen(module.text)


def test_a_pair_answers_with_its_image_side() -> None:
    module = CLIP(12, VISION, TEXT, init_logit_bias=-10).eval()
    expect_parity(module, images_for(module))
    named = {name for name, _ in module.named_parameters()}
    assert idle_parameters(module, images_for(module)) == {name for name in named if not name.startswith("visual.")}
    prompts = prompts_for(module, 40)
    expect_parity(module, prompts, text_family_of(module))
    idle = idle_parameters(module, prompts, text_family_of(module))
    assert idle == {name for name in named if name.startswith(("visual.", "logit_"))}


@pytest.mark.parametrize("projection", [{"proj": "linear", "proj_bias": True}, {"proj": "none"}, {"proj": None}])
def test_a_timm_trunk_with_each_projection(projection: dict[str, Any]) -> None:
    with small_trunks():
        module = TimmModel("vit_base_patch16_clip_224", 96, pool="avg", **projection).eval()
    expect_parity(module, images_for(module))
    assert not idle_parameters(module, images_for(module))


def test_a_projection_with_a_hidden_layer_is_refused() -> None:
    with small_trunks():
        module = TimmModel("vit_base_patch16_clip_224", 96, pool="avg", proj="mlp")
    with pytest.raises(UnsupportedModelError, match="projection with a hidden layer"):
        family_of(module).read(module)


@pytest.mark.parametrize("form", REFUSED_FORMS)
def test_blocks_of_other_forms_are_refused(form: str) -> None:
    module: Any = pair({form: True}, {form: True})
    for tower, family in ((module.visual, family_of(module.visual)), (module.text, text_family_of(module.text))):
        with pytest.raises(UnsupportedModelError, match=REFUSED_FORMS[form]):
            family.read(tower)


def test_other_towers_are_refused() -> None:
    module: Any = pair({"pool_type": "none"}, {"pool_type": "none"})
    with pytest.raises(UnsupportedModelError, match="an output for every token"):
        family_of(module).read(module)
    with pytest.raises(UnsupportedModelError, match="an output for every token"):
        text_family_of(module.text).read(module.text)
    module = pair({"norm_kwargs": {"eps": 1e-3}})
    module.visual.ln_post.eps = 1e-5
    with pytest.raises(UnsupportedModelError, match="expected norms of one kind"):
        family_of(module).read(module)
    module = pair()
    module.visual.transformer.resblocks[1].mlp.gelu = nn.ReLU()
    with pytest.raises(UnsupportedModelError, match="blocks that differ from one another"):
        family_of(module).read(module)
    module.text.attn_mask = torch.zeros(5, 5)
    with pytest.raises(UnsupportedModelError, match="neither causal nor absent"):
        text_family_of(module.text).read(module.text)
    module.text.use_pad_mask = True
    with pytest.raises(UnsupportedModelError, match="use_pad_mask"):
        text_family_of(module.text).read(module.text)


@pytest.mark.parametrize("name", OUTLINES)
def test_every_full_size_fits_its_configuration(name: str) -> None:
    """Every tensor of the published model has its place and its shape. All layers are alike, so two are built."""
    config = copy.deepcopy(open_clip.get_model_config(name))
    create = timm.create_model
    for side in ("vision_cfg", "text_cfg"):
        if "timm_model_name" not in config[side]:
            config[side]["layers"] = 2
    with (
        patch("open_clip.factory.get_model_config", lambda *_: copy.deepcopy(config)),
        patch("open_clip.timm_model.timm.create_model", lambda *a, **kw: create(*a, **kw, depth=2)),
        torch.device("meta"),
    ):
        model = open_clip.create_model(name, load_weights=False, device="meta")
    convert(family_of(model).read(model), model.state_dict(), name)


def test_one_at_full_size() -> None:
    module = open_clip.create_model("ViT-S-32").eval()
    expect_parity(module, images_for(module))
    expect_parity(module, prompts_for(module), text_family_of(module))
