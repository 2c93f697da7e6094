"""timm's Eva: every architecture, every parameter, and what is refused."""

import pytest
import timm
import torch
from torch import Tensor, nn

from prisma.errors import UnsupportedModelError
from prisma.pretrained.families import family_of
from tests.pretrained.proofs import expect_parity, idle_parameters
from tests.pretrained.timm.cases import CASES, SMALL

NAMES = timm.list_models(module="eva")
EACH_FORM = (
    "eva_giant_patch14_224", "eva02_base_patch14_224", "eva02_base_patch16_clip_224", "eva02_enormous_patch14_clip_224",
    "vit_base_patch16_rope_mixed_224", "vit_base_patch16_rope_ape_224", "vit_base_patch16_rope_reg1_gap_256",
    "vit_pe_core_base_patch16_224", "vit_pe_lang_gigantic_patch14_448", "vit_7b_patch16_dinov3",
    "vit_large_patch16_sapiens2",
)  # fmt: skip


def images_for(module: nn.Module) -> Tensor:
    return torch.randn(2, 3, *module.patch_embed.img_size, generator=torch.Generator().manual_seed(1))  # type: ignore[union-attr, misc]


@pytest.mark.parametrize("name", NAMES)
def test_equals_timm(name: str) -> None:
    module = CASES[name]()
    expect_parity(module, images_for(module))


@pytest.mark.parametrize("name", EACH_FORM)
def test_every_parameter_has_its_part(name: str) -> None:
    module = CASES[name]()
    assert not idle_parameters(module, images_for(module))


def test_multimodal_rotation_is_a_table_too() -> None:
    more = {"embed_dim": 192, "num_heads": 3, "rope_type": "mrope"}
    module = timm.create_model("eva02_tiny_patch14_224", **SMALL | more, img_size=(56, 42)).eval()
    expect_parity(module, images_for(module))


def test_gated_attention_is_refused() -> None:
    module = CASES["eva02_base_patch14_224"]()
    module.blocks[0].attn.gate = nn.Linear(96, 96)  # type: ignore[union-attr, index]
    with pytest.raises(UnsupportedModelError, match="gated attention is not supported"):
        family_of(module).read(module)


def test_one_at_full_size() -> None:
    module = timm.create_model("eva02_small_patch14_224", num_classes=10).eval()
    expect_parity(module, torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1)))
