"""The mice of ImageNet have the published sizes, and their files' numbers of parameters."""

import pytest

from prisma.outline import outline
from prisma.recipes import RECIPES, TABLES, recipe
from prisma.recipes.imagenet import IMAGENET, PIXELS

ACCURACIES = {  # top 1, as ViT-Prisma's README has them: attention and MLP, attention only
    "tiny": (1, 0.16, 0.11),
    "base": (2, 0.23, 0.16),
    "small": (3, 0.28, 0.17),
    "medium": (4, 0.33, 0.17),
}


def parameters(name: str) -> int:
    return sum(p.numel() for p in outline(recipe(name).model).parameters())


@pytest.mark.parametrize("size", ACCURACIES)
@pytest.mark.parametrize("kind", ["full", "attn"])
def test_a_recipe_has_the_published_size_and_accuracy(size: str, kind: str) -> None:
    layers, *accuracies = ACCURACIES[size]
    chosen = recipe(f"imagenet-{size}-{kind}")
    m = chosen.model
    assert (m.image_size, m.patch_size, m.channels, m.n_tokens, m.n_classes) == (224, 16, 3, 197, 1000)
    assert (m.n_layers, m.d_model, m.n_heads, m.d_mlp) == (layers, 768, 4, 3072 if kind == "full" else 0)
    assert (m.norm, m.qkv_bias, m.pool) == ("none", False, "class")
    assert chosen.published_accuracy == chosen.expected_accuracy == accuracies[kind == "attn"]


def test_the_ninth_has_patches_of_32() -> None:
    m = recipe("imagenet-small-full-patch32").model
    assert (m.n_layers, m.patch_size, m.n_tokens) == (3, 32, 50)
    assert TABLES["imagenet"] == IMAGENET and len(IMAGENET) == 9
    assert {one.name for one in (*IMAGENET, *PIXELS)} == {name for name in RECIPES if name.startswith("imagenet")}
    reconstruction, masked = PIXELS
    assert (
        len(reconstruction.objective.names) == 768
        and reconstruction.objective.names[-1] == "channel 2, row 15, column 15"
    )
    assert masked.objective.names == () and masked.objective.has_decoder


def test_parameters_are_those_of_the_published_files() -> None:
    """15.5 MB of one layer of attention; 97.7 MB of three layers with patches of 32 (float32)."""
    assert round(parameters("imagenet-tiny-attn") * 4 / 1e6, 1) == 15.5
    assert round(parameters("imagenet-small-full-patch32") * 4 / 1e6, 1) == 97.7
