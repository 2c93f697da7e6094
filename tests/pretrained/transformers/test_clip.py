"""The image side of transformers' image-text pairs: equal to its source, no idle part, and what is refused."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from prisma.errors import UnsupportedModelError
from prisma.pretrained.families import family_of
from prisma.pretrained.transformers import clip
from tests.pretrained.proofs import expect_parity, idle_parameters
from tests.pretrained.transformers.cases_clip import CASES, vision

CLASSES = {name for family in clip.FAMILIES for name in family.classes}
TEXT_SIDE = ("text_model.", "text_projection.", "logit_scale", "logit_bias")
PASSED = ("vision_model.head.", "vision_model.post_layernorm.")


def images_for(module: nn.Module, n: int = 2) -> Tensor:
    config = family_of(module).read(module).config
    return torch.randn(n, *config.input_shape, generator=torch.Generator().manual_seed(1))  # type: ignore[union-attr]


@pytest.mark.parametrize("name", CASES)
def test_equals_transformers(name: str) -> None:
    module = CASES[name]()
    expect_parity(module, images_for(module))


def test_every_class_is_here() -> None:
    built = {f"{type(build()).__module__}.{type(build()).__qualname__}" for build in CASES.values()}
    assert built == CLASSES


@pytest.mark.parametrize("name", CASES)
def test_every_parameter_has_its_part(name: str) -> None:
    """But for the text side, what a classifier passes by, and biases of k: softmax cannot see them."""
    module = CASES[name]()
    names = [name for name, _ in module.named_parameters()]
    unseen = {name for name in names if name.endswith("k_proj.bias") or name.startswith(TEXT_SIDE)}
    if "Classification" in name:
        unseen |= {n for n in names if n.startswith(PASSED["ig" not in name])}
    assert idle_parameters(module, images_for(module)) == unseen


@pytest.mark.parametrize("size", [(16, 8), 20, (12, 12)], ids=str)
@pytest.mark.parametrize("name", ["CLIPVisionModel", "SiglipVisionModel", "OwlViTVisionModel", "Siglip2VisionModel"])
def test_positions_are_resampled_as_the_source_does(name: str, size: Any) -> None:
    module = CASES[name]()
    object.__setattr__(module.config, "image_size", size)
    inner = getattr(module, "vision_model", module)
    object.__setattr__(inner.config, "image_size", size)
    images = images_for(module)
    assert images.shape[-2:] == ((size, size) if isinstance(size, int) else size)
    expect_parity(module, images)


def refused(module: nn.Module, reason: str) -> None:
    with pytest.raises(UnsupportedModelError, match=reason):
        family_of(module).read(module)


def test_what_is_not_exact_is_refused() -> None:
    refused(vision("CLIPVisionModel", "CLIP", hidden_act="mish"), "the activation Mish")
    refused(vision("SiglipVisionModel", "Siglip", num_hidden_layers=0), "at least one layer; found num_hidden_layers=0")


def test_patches_that_the_source_is_given_are_whole() -> None:
    module = CASES["Siglip2VisionModel"]()
    module.config.image_size = 14  # type: ignore[union-attr, assignment]
    refused(module, "a multiple of the patch size 4; found")
