"""timm's VisionTransformer: every architecture, every parameter, and what is refused."""

from typing import Any

import pytest
import timm
import torch
from timm.models.deit import VisionTransformerDistilled
from timm.models.eva import Eva
from torch import Tensor, nn

from prisma.errors import UnsupportedModelError
from prisma.pretrained.families import family_of
from tests.pretrained.proofs import expect_parity, idle_parameters
from tests.pretrained.timm.cases import CASES, SMALL

NAMES = [name for name in CASES if name not in timm.list_models(module="eva")]
REFUSED = {
    "vit_dwee_patch16_reg1_gap_256": "DiffAttention is not supported",
    "vit_dlittle_patch16_reg1_gap_256": "DiffAttention is not supported",
    "vit_dpwee_patch16_reg1_gap_256": "the block DiffParallelScalingBlock is not supported",
}
EACH_FORM = (
    "vit_base_patch16_224", "vit_base_patch16_clip_quickgelu_224", "vit_base_patch16_siglip_224", "test_vit3",
    "vit_base_patch16_rpn_224", "vit_base_patch16_xp_224", "vit_base_patch16_18x2_224", "vit_giant_patch14_dinov2",
    "vit_base_patch14_reg4_dinov2", "beit3_base_patch16_224", "aimv2_1b_patch14_224", "vit_base_patch16_radio_v3",
    "deit_base_distilled_patch16_224",
)  # fmt: skip


def images_for(module: nn.Module) -> Tensor:
    return torch.randn(2, 3, *module.patch_embed.img_size, generator=torch.Generator().manual_seed(1))  # type: ignore[union-attr, misc]


def test_every_architecture_is_here() -> None:
    assert len(CASES) >= 228
    assert set(REFUSED) < set(NAMES)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in REFUSED])
def test_equals_timm(name: str) -> None:
    module = CASES[name]()
    expect_parity(module, images_for(module))


@pytest.mark.parametrize("name", EACH_FORM)
def test_every_parameter_has_its_part(name: str) -> None:
    module = CASES[name]()
    unseen = {name for name, _ in module.named_parameters() if name.endswith("k_norm.bias")}  # softmax cannot see it
    assert idle_parameters(module, images_for(module)) == unseen


@pytest.mark.parametrize(("name", "reason"), REFUSED.items())
def test_what_is_not_exact_is_refused(name: str, reason: str) -> None:
    module = CASES[name]()
    with pytest.raises(UnsupportedModelError, match=reason):
        family_of(module).read(module)


CHANGES = {
    "no pooling": ({"global_pool": ""}, "global_pool='' is not supported"),
    "max pooling": ({"global_pool": "max"}, "global_pool='max' is not supported"),
    "padding": ({"dynamic_img_pad": True, "dynamic_img_size": True}, "dynamic_img_pad is not supported"),
    "activation": ({"act_layer": "hard_swish"}, "the activation Hardswish is not supported"),
    "norm": ({"norm_layer": "simplenorm"}, "the norm SimpleNorm is not supported"),
}


@pytest.mark.parametrize(("changes", "reason"), CHANGES.values(), ids=CHANGES)
def test_a_property_that_we_lack_is_named(changes: dict[str, object], reason: str) -> None:
    module = timm.create_model("vit_tiny_patch16_224", **{**SMALL, "num_heads": 3, **changes})
    with pytest.raises(UnsupportedModelError, match=reason):
        family_of(module).read(module)


def test_one_at_full_size() -> None:
    module = timm.create_model("vit_small_patch16_224", num_classes=10).eval()
    expect_parity(module, torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1)))


def test_pixels_beyond_the_last_whole_patch_are_not_seen() -> None:
    """As in SigLIP SO400M at 384 pixels in patches of 14."""
    module = timm.create_model("vit_so400m_patch14_siglip_384", **SMALL, num_heads=3, img_size=(62, 48)).eval()
    assert family_of(module).read(module).config.n_tokens == 4 * 3  # type: ignore[union-attr]
    expect_parity(module, images_for(module))


def _distilled(**changes: object) -> VisionTransformerDistilled:
    fields: dict[str, Any] = {"img_size": 8, "patch_size": 4, "embed_dim": 12, "depth": 1, "num_heads": 3, **changes}
    return VisionTransformerDistilled(**fields).eval()


@pytest.mark.parametrize("changes", [{"num_classes": 0}, {"reg_tokens": 2}])
def test_a_distillation_token_stands_alone_and_has_its_head(changes: dict[str, object]) -> None:
    expect_parity(_distilled(), torch.randn(2, 3, 8, 8))
    module = _distilled(**changes)
    with pytest.raises(UnsupportedModelError, match="a distillation token is supported only with two heads"):
        family_of(module).read(module)


def test_attention_pooling_beside_gated_blocks_is_refused() -> None:
    module = Eva(img_size=8, patch_size=4, embed_dim=12, depth=1, num_heads=3, global_pool="map", swiglu_mlp=True)
    with pytest.raises(UnsupportedModelError, match="attention pooling whose MLP differs in kind"):
        family_of(module).read(module)
