"""Modules that were changed after their class built them are refused, or read as they are now; so are other models,
and the message names the property that Prisma does not support.
"""

from collections.abc import Callable
from types import MethodType
from typing import Any

import pytest
import timm
import torch
import transformers
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.nn.utils import prune

from prisma.errors import UnsupportedModelError
from prisma.pretrained.checks import unsupported_properties
from prisma.pretrained.families import family_of
from tests.pretrained.open_clip import cases as cases_open_clip
from tests.pretrained.proofs import expect_parity
from tests.pretrained.timm import cases as timm_cases
from tests.pretrained.transformers import cases_clip, cases_images, cases_video

SMALL: dict[str, Any] = {
    "img_size": 8, "patch_size": 4, "embed_dim": 12, "depth": 2, "num_heads": 3, "num_classes": 5, "global_pool": "map",
}  # fmt: skip
IMAGES = torch.randn(2, 3, 8, 8)
Change = Callable[[Any], object]


class Doubled(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


def _scaled(module: Any) -> None:
    for block in module.blocks:
        block.attn.scale = 1.0


def _own_forward(module: Any) -> None:
    attn = module.blocks[1].attn
    attn.forward = MethodType(lambda self, x, **_: x, attn)


def _pruned(module: Any) -> None:
    prune.l1_unstructured(module.blocks[1].mlp.fc1, "weight", 0.5)


def _weight_norm(module: Any) -> None:
    with pytest.warns(FutureWarning, match="deprecated"):
        nn.utils.weight_norm(module.head)


def _offloaded(module: Any) -> None:
    module.blocks[1]._hf_hook = object()


CHANGED: dict[str, tuple[Change, str]] = {
    "hook": (
        lambda m: m.blocks[1].mlp.register_forward_hook(lambda *a: 2 * a[2]),
        r"blocks\.1\.mlp has a forward hook",
    ),
    "hook before": (lambda m: m.head.register_forward_pre_hook(lambda _, x: x), "head has a forward hook"),
    "forward": (_own_forward, r"blocks\.1\.attn has its method forward replaced"),
    "method": (lambda m: setattr(m, "pool", lambda x: x[:, 0]), "the model has its method pool replaced"),
    "class": (
        lambda m: setattr(m, "head", Doubled(12, 5)),
        "head is a .*Doubled, a class of no library that Prisma reads",
    ),
    "parametrization": (
        lambda m: nn.utils.parametrizations.weight_norm(m.head),
        r"head has parametrizations \(weight\): fold them into the weights first",
    ),
    "pruning": (_pruned, r"blocks\.1\.mlp\.fc1 is pruned: make that permanent first, with torch.nn.utils.prune.remove"),
    "weight norm": (_weight_norm, "head has a WeightNorm: fold it into the weights first, with .*remove_weight_norm"),
    "spectral norm": (
        lambda m: nn.utils.spectral_norm(m.blocks[0].mlp.fc1),
        r"mlp\.fc1 has a SpectralNorm: .*remove_spectral_norm",
    ),
    "accelerate": (_offloaded, r"blocks\.1 is moved between devices by accelerate: load the model without device_map"),
    "scale": (_scaled, r"blocks\.0\.attn multiplies its scores by 1 instead of 0\.5"),
    "scale of one": (lambda m: setattr(m.blocks[1].attn, "scale", 1.0), r"blocks\.1\.attn multiplies"),
    "stride": (lambda m: setattr(m.patch_embed.proj, "stride", (2, 2)), "convolution with overlap"),
    "padding": (lambda m: setattr(m.patch_embed.proj, "padding", (1, 1)), "convolution with overlap"),
    "activation": (
        lambda m: setattr(m.blocks[1].mlp, "act", nn.ReLU()),
        "found mlp.act = ReLU in block 1, GELU in block 0",
    ),
    "eps": (lambda m: setattr(m.blocks[1].norm1, "eps", 0.1), "expected norms of one kind"),
    "heads": (lambda m: setattr(m.blocks[1].attn, "num_heads", 2), "attn.num_heads = 2 in block 1, 3 in block 0"),
    "no scale": (lambda m: setattr(m.blocks[1], "ls1", nn.ReLU()), "ls1 = ReLU in block 1, absent in block 0"),
    "dropout": (lambda m: setattr(m, "head_drop", nn.Tanh()), "expected head_drop to be a dropout.*found a Tanh"),
    "head": (lambda m: setattr(m, "head", nn.Sequential(nn.Linear(12, 5))), "one linear map; found a Sequential"),
    "pool's activation": (
        lambda m: setattr(m.attn_pool.mlp, "act", nn.ReLU()),
        "attention pooling whose MLP differs in kind",
    ),
    "no blocks": (lambda m: setattr(m, "blocks", nn.Sequential()), "expected the parts of a timm VisionTransformer"),
}


@pytest.mark.parametrize(("change", "sentence"), CHANGED.values(), ids=CHANGED)
def test_a_changed_module_is_refused(change: Change, sentence: str) -> None:
    module = VisionTransformer(**SMALL).eval()
    change(module)
    with pytest.raises(UnsupportedModelError, match=sentence):
        family_of(module).read(module)


KEPT: dict[str, Change] = {
    "head of another size": lambda m: setattr(m, "head", nn.Linear(12, 7)),
    "head gone": lambda m: m.reset_classifier(0),
    "pooling": lambda m: m.reset_classifier(3, "avg"),
    "dropout": lambda m: setattr(m.blocks[1], "drop_path1", timm.layers.DropPath(0.5)),
    "patch dropout": lambda m: setattr(m, "patch_drop", timm.layers.PatchDropout(0.5)),
    "fewer blocks": lambda m: setattr(m, "blocks", m.blocks[:1]),
    "kernel": lambda m: setattr(m.blocks[1].attn, "fused_attn", not m.blocks[1].attn.fused_attn),
    "in place": lambda m: setattr(m.blocks[0].mlp.act, "inplace", True),
    "settings of training": lambda m: vars(m.blocks[1].attn).update(attn_drop_p=0.5, gradient_checkpointing=True),
    "checkpointing": lambda m: m.set_grad_checkpointing(),
}


@pytest.mark.parametrize("change", KEPT.values(), ids=KEPT)
def test_a_change_that_the_reader_sees_is_exact(change: Change) -> None:
    module = VisionTransformer(**SMALL).eval()
    change(module)
    expect_parity(module.eval(), IMAGES)


class Compiled(nn.Module):
    """As torch.compile wraps a module."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._orig_mod = module


WRAPPERS: dict[str, tuple[Callable[[nn.Module], nn.Module], str]] = {
    "DataParallel": (nn.DataParallel, r"a VisionTransformer: load that, with prisma.load\(model\.module\)"),
    "compiled": (Compiled, r"load that, with prisma.load\(model\._orig_mod\)"),
    "both": (lambda m: nn.DataParallel(Compiled(m)), r"prisma.load\(model\.module\._orig_mod\)"),
    "a sequence": (lambda m: nn.Sequential(nn.Identity(), m), r"prisma.load\(model.get_submodule\('1'\)\)"),
}


@pytest.mark.parametrize(("wrap", "sentence"), WRAPPERS.values(), ids=WRAPPERS)
def test_a_wrapper_is_told_what_to_load(wrap: Callable[[nn.Module], nn.Module], sentence: str) -> None:
    with pytest.raises(UnsupportedModelError, match=sentence):
        family_of(wrap(VisionTransformer(**SMALL)))


def test_adapters_and_models_of_text_are_told_so() -> None:
    kind = type("LoraLayer", (nn.Linear,), {"__module__": "peft.tuners.lora.layer"})
    module = VisionTransformer(**SMALL)
    module.head = kind(12, 5)
    with pytest.raises(UnsupportedModelError, match=r"head belongs to a PEFT adapter: merge it .*merge_and_unload"):
        family_of(module).read(module)
    with pytest.raises(UnsupportedModelError, match=r"merge the adapter into the weights first, and load what"):
        family_of(nn.Sequential(module))
    kind = type("Linear4bit", (nn.Linear,), {"__module__": "bitsandbytes.nn.modules"})
    module.head = kind(12, 5)
    with pytest.raises(UnsupportedModelError, match="head is quantised: load the model without quantisation"):
        family_of(module).read(module)
    text = transformers.BertModel(transformers.BertConfig(hidden_size=8, num_attention_heads=2, num_hidden_layers=1))
    with pytest.raises(UnsupportedModelError, match="BertModel, whose input is text"):
        family_of(text)


def test_hooks_by_which_transformers_records_do_not_count() -> None:
    module = cases_images.CASES["vit_classes"]()
    module(torch.zeros(1, 3, 12, 12), output_hidden_states=True)
    assert any(part._forward_hooks for part in module.modules())
    family_of(module).read(module)


@pytest.mark.parametrize("case", ["vit_classes", "dinov2", "deit_teacher", "msn_classes"])
def test_heads_are_those_of_the_module_whatever_its_configuration_says(case: str) -> None:
    module = cases_images.CASES[case]()
    module.config.num_attention_heads = 4
    expect_parity(module, torch.randn(2, 3, 12, 12))


@pytest.mark.parametrize("case", ["VivitModel", "VideoMAEModel", "TimesformerModel"])
def test_heads_of_video_too(case: str) -> None:
    module = cases_video.CASES[case]()
    module.config.num_attention_heads = 2
    expect_parity(module, torch.randn(1, 3, 4, 8, 8))


def _zero_key(module: Any) -> None:
    module.head.attention.add_zero_attn = True


OTHERS: dict[str, tuple[Callable[[], nn.Module], Change, str]] = {
    "classifier, ViT": (
        cases_images.CASES["vit_classes"], lambda m: setattr(m, "classifier", nn.ReLU()), "linear map; found a ReLU",
    ),
    "classifier, CLIP": (
        cases_clip.CASES["CLIPForImageClassification"], lambda m: setattr(m, "classifier", nn.ReLU()), "found a ReLU",
    ),
    "classifier, video": (
        cases_video.CASES["VivitForVideoClassification"], lambda m: setattr(m, "classifier", nn.ReLU()), "found a ReLU",
    ),
    "one of two heads": (
        cases_images.CASES["deit_teacher"], lambda m: setattr(m, "distillation_classifier", nn.Identity()),
        "two heads without classes",
    ),
    "pool's activation": (
        cases_clip.CASES["SiglipVisionModel"], lambda m: setattr(m.head.mlp, "activation_fn", nn.ReLU()),
        "attention pooling that the source does not use",
    ),
    "pool that is not used": (
        cases_clip.CASES["SiglipVisionModel"], lambda m: setattr(m, "use_head", False), "that the source does not use",
    ),
    "MLP, open_clip": (
        cases_open_clip.CASES["ViT-B-32"], lambda m: m.visual.transformer.resblocks[0].mlp.append(nn.ReLU()),
        "an MLP with additional parts",
    ),
    "projection, open_clip": (
        cases_open_clip.CASES["ViT-B-16-SigLIP"], lambda m: m.visual.head.append(nn.ReLU()),
        "a projection with additional parts",
    ),
    "key of zeros": (cases_clip.CASES["SiglipVisionModel"], _zero_key, "attends to an added key of zeros"),
}  # fmt: skip


@pytest.mark.parametrize(("build", "change", "sentence"), OTHERS.values(), ids=OTHERS)
def test_a_changed_module_of_another_library_is_refused(
    build: Callable[[], nn.Module], change: Change, sentence: str
) -> None:
    module = build()
    change(module)
    with pytest.raises(UnsupportedModelError, match=sentence):
        family_of(module).read(module)


def test_the_other_side_of_a_pair_may_be_what_it_likes() -> None:
    module: Any = cases_clip.CASES["CLIPModel"]()
    module.text_model.register_forward_hook(lambda *_: None)
    family_of(module).read(module)
    with pytest.raises(UnsupportedModelError, match="vision_model has a forward hook"):
        module.vision_model.register_forward_hook(lambda *_: None)
        family_of(module).read(module)


OTHER_MODELS = {
    "resnet18": "ResNet, which has .*batch norm and convolutions",
    "swin_tiny_patch4_window7_224": "SwinTransformer, which has attention within windows and stages that change",
    "convnext_atto": "ConvNeXt, which has .*convolutions",
}


@pytest.mark.parametrize(("name", "reason"), OTHER_MODELS.items())
def test_the_property_is_named(name: str, reason: str) -> None:
    with pytest.raises(UnsupportedModelError, match=reason):
        family_of(timm.create_model(name))


def test_a_vision_transformer_has_none() -> None:
    assert not unsupported_properties(timm_cases.CASES["vit_base_patch16_224"]())
