"""A second module tree over the same tensors: what the caller's module keeps is never touched, nor copied."""

from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

import prisma
from prisma.pretrained.twin import in_float32, twin
from tests.pretrained.transformers.cases_images import CASES


def small(**more: Any) -> VisionTransformer:
    return VisionTransformer(img_size=8, patch_size=4, embed_dim=12, depth=2, num_heads=3, num_classes=5, **more)


def test_tensors_are_shared_and_everything_else_is_not() -> None:
    module: Any = CASES["vit_classes"]().train()
    made = twin(module)
    assert not made.training
    assert all(part.training for part in module.modules())
    assert all(a is b for a, b in zip(module.parameters(), made.parameters(), strict=True))
    made.config.image_size = 99
    made.classifier.register_forward_hook(lambda *_: None)
    made.classifier.bias = nn.Parameter(torch.zeros(5))
    assert made.vit.config is made.config
    assert module.config.image_size == 12
    assert not module.classifier._forward_hooks
    assert module.classifier.bias is not made.classifier.bias


def test_tied_tensors_and_shared_parts_stay_so() -> None:
    part = nn.Linear(2, 2)
    other = nn.Linear(2, 2)
    other.weight = part.weight
    made = twin(nn.ModuleList([part, part, other]), in_float32)
    assert made[0] is made[1]
    assert made[2].weight is made[0].weight is not part.weight


def test_in_another_precision_the_caller_keeps_its_own() -> None:
    module = small().to(torch.bfloat16)
    made = twin(module, in_float32)
    assert {x.dtype for x in made.parameters()} == {torch.float32}
    assert {x.dtype for x in module.parameters()} == {torch.bfloat16}
    assert all(isinstance(x, nn.Parameter) for x in made.parameters())


@torch.no_grad()
@pytest.mark.parametrize("size", [None, 16])
def test_an_activation_that_a_module_keeps_is_no_obstacle(size: int | None) -> None:
    for module in (small().eval(), CASES["vit_classes"]()):
        side = 8 if isinstance(module, VisionTransformer) else 12
        expected = prisma.load(module, image_size=size)
        with torch.enable_grad():
            module.kept = module(torch.randn(1, 3, side, side, requires_grad=True))  # not a leaf: torch cannot copy it
        loaded = prisma.load(module, image_size=size)
        assert all(torch.equal(x, expected.model.state_dict()[name]) for name, x in loaded.model.state_dict().items())


def test_a_part_in_training_mode_inside_a_module_in_evaluation_mode_stays_so() -> None:
    module = small().eval()
    module.blocks[1].train()
    prisma.load(module)
    assert module.blocks[1].training
    assert not module.training
