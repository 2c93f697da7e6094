"""Tensors that cannot become weights are named at load, with what to do."""

from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

import prisma
from prisma.errors import PrismaError, UnsupportedModelError
from prisma.pretrained.values import expect_usable, expect_values
from tests.pretrained.open_clip.test_loading import pair
from tests.pretrained.transformers.cases_images import CASES


class Packed(Tensor):
    """As libraries of quantised weights derive from Tensor."""


def test_plain_tensors_pass() -> None:
    expect_usable({"x": torch.zeros(2), "i": torch.zeros(2, dtype=torch.long)}, "it")
    expect_usable({}, "it")


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "precisions": (
        {"a": torch.zeros(1), "b": torch.zeros(1, dtype=torch.bfloat16)},
        r"in one precision; found torch.bfloat16 \(b\) and torch.float32 \(a\): convert the module first, with .float",
    ),
    "packed": ({"a": torch.zeros(1).as_subclass(Packed)}, "found that a is a Packed: load the model without quantis"),
}


@pytest.mark.parametrize("case", WRONG)
def test_others_are_named(case: str) -> None:
    tensors, sentence = WRONG[case]
    with pytest.raises(PrismaError, match=sentence):
        expect_usable(tensors, "it")


def test_tensors_without_values_are_named() -> None:
    with pytest.raises(PrismaError, match="found 1 tensors on the device meta, such as b"):
        expect_values({"a": torch.zeros(1), "b": torch.zeros(1, device="meta")}, "it")


def test_several_devices_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        del mode
        monkeypatch.setattr("prisma.pretrained.values.PLAIN", (type(torch.zeros(1)),))
        tensors = {"a": torch.zeros(1, device="cpu"), "b": torch.zeros(1, device="cuda")}
        with pytest.raises(
            PrismaError, match=r"on one device; found cpu \(a\) and cuda:0 \(b\): move the module first"
        ):
            expect_usable(tensors, "it")


def small() -> Any:
    return VisionTransformer(img_size=8, patch_size=4, embed_dim=12, depth=2, num_heads=3, num_classes=5).eval()


def test_mixed_precision_is_said_at_load() -> None:
    module = small().to(torch.bfloat16)
    module.head.float()
    with pytest.raises(
        UnsupportedModelError, match=r"found torch.bfloat16 .* and torch.float32 \(head\.(weight|bias)\)"
    ):
        prisma.load(module)
    module: Any = CASES["vit_classes"]().half()
    module.classifier.float()
    with pytest.raises(UnsupportedModelError, match="in one precision"):
        prisma.load(module)


def test_towers_in_two_precisions_are_said_at_load() -> None:
    from tests.pretrained.transformers.cases_clip import CASES as PAIRS

    module: Any = PAIRS["CLIPModel"]()
    module.vision_model.half()
    module.visual_projection.half()
    with pytest.raises(UnsupportedModelError, match=r"both towers in one precision.*images in torch.float16"):
        prisma.load(module)


@pytest.mark.parametrize("build", [small, CASES["vit_classes"], pair])
def test_a_module_on_meta_is_said_at_load(build: Any) -> None:
    with pytest.raises(PrismaError, match=r"tensors on the device meta, such as .*: load the model without device_map"):
        prisma.load(build().to("meta"))


@pytest.mark.parametrize(("value", "what"), [(torch.nan, "NaN"), (torch.inf, "infinity"), (-torch.inf, "infinity")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@torch.no_grad()
def test_weights_that_are_not_finite_are_named(value: float, what: str, dtype: torch.dtype) -> None:
    module = small().to(dtype)
    module.blocks[1].mlp.fc1.weight[3, 2] = value
    with pytest.raises(PrismaError, match=f"finite weights in .*; found that blocks.1.mlp.pre.weight has {what}$"):
        prisma.load(module)
