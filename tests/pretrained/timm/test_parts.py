"""Unsupported variants of timm's shared parts are refused; test_vit and test_eva prove the table of rules."""

from typing import Any

import pytest
import timm
from timm.layers import AttentionPoolLatent
from torch import nn

from prisma.errors import UnsupportedModelError
from prisma.pretrained.families import family_of
from tests.pretrained.timm.cases import CASES


def read(module: nn.Module) -> Any:
    return family_of(module).read(module)


@pytest.mark.parametrize(
    "form",
    [
        {"latent_len": 2},
        {"qk_norm": True},
        {"q_proj": False},
        {"out_features": 0},
        {"pos_embed": "abs", "feat_size": 12},
    ],
)
def test_another_attention_pool(form: dict[str, Any]) -> None:
    module: Any = CASES["vit_base_patch16_siglip_224"]()
    module.attn_pool = AttentionPoolLatent(96, **form)
    with pytest.raises(UnsupportedModelError, match="attention pooling of this form"):
        read(module)


def test_two_final_norms() -> None:
    module: Any = CASES["vit_base_patch16_224"]()
    module.fc_norm = nn.LayerNorm(96, eps=1e-6)
    with pytest.raises(UnsupportedModelError, match="both before and after pooling"):
        read(module)


def test_patches_from_a_network_of_their_own() -> None:
    with pytest.raises(UnsupportedModelError, match="the patch embedding HybridEmbed is not supported"):
        read(timm.create_model("vit_base_mci_224", depth=1))


def test_another_mlp() -> None:
    module: Any = CASES["vit_base_patch16_224"]()
    module.blocks[0].mlp = timm.layers.ConvMlp(96)
    with pytest.raises(UnsupportedModelError, match="the MLP ConvMlp is not supported"):
        read(module)
