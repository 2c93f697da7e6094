"""Loading timm's models: names, saved folders, live modules, other image sizes, and every way it can fail."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config
from timm.models import save_for_hf
from torch import nn

import prisma
from prisma import PrismaError
from prisma.errors import UnsupportedModelError
from prisma.pretrained.parity import randomise

LABELS = ["cat", "dog", "newt", "owl", "elk"]


def small(**more: Any) -> nn.Module:
    module = timm.create_model("vit_tiny_patch16_224", depth=2, num_classes=5, **more).eval()
    randomise(module)
    return module


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As timm saves a model."""
    more = {"model_config": {"label_names": LABELS}, "model_args": {"depth": 2}}
    save_for_hf(small(), str(tmp_path / "saved"), safe_serialization=True, **more)
    return tmp_path / "saved"


def theirs(folder: Path, **more: Any) -> nn.Module:
    return timm.create_model(f"local-dir:{folder}", pretrained=True, **more).eval()


@torch.no_grad()
def test_a_saved_folder(folder: Path) -> None:
    loaded, images = prisma.load(folder), torch.randn(2, 3, 224, 224)
    assert torch.allclose(loaded.model(images), theirs(folder)(images), atol=1e-5)
    assert loaded.labels == tuple(LABELS)
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
    assert not loaded.model.training


@torch.no_grad()
@pytest.mark.parametrize("size", [160, (96, 256)])
def test_another_image_size_is_resampled_as_timm_does(folder: Path, size: int | tuple[int, int]) -> None:
    loaded = prisma.load(folder, image_size=size)
    images = torch.randn(2, *loaded.config.input_shape)
    assert torch.allclose(loaded.model(images), theirs(folder, img_size=size)(images), atol=1e-5)
    live = prisma.load(theirs(folder), image_size=size)
    assert torch.allclose(live.model(images), loaded.model(images), atol=1e-5)


def test_a_live_module_is_copied() -> None:
    module, images = small(), torch.randn(1, 3, 224, 224)
    loaded = prisma.load(module)
    before = loaded.model(images)
    randomise(module, seed=1)
    assert torch.equal(loaded.model(images), before)
    assert next(module.parameters()).requires_grad


def test_a_live_module_stays_as_it_is() -> None:
    module = small().train()
    assert not prisma.load(module).model.training
    assert all(part.training for part in module.modules())


@pytest.mark.parametrize("changes", [{}, {"crop_mode": "squash"}, {"interpolation": "bilinear", "crop_pct": 1.0}])
def test_the_transform_is_timms(changes: dict[str, Any]) -> None:
    module = small()
    module.pretrained_cfg = {**module.pretrained_cfg, **changes}  # type: ignore[dict-item, arg-type]
    transform = create_transform(**resolve_model_data_config(module))
    noise = np.random.default_rng(0).integers(0, 256, (301, 257, 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    ours = prisma.load(module).transform
    assert ours is not None
    assert torch.allclose(ours(picture), transform(picture), atol=1e-6)


@pytest.mark.parametrize("changes", [{"mean": (0.5,)}, {"std": "x"}, {"interpolation": "random"}, {"mean": (0.1,) * 4}])
def test_a_transform_of_another_kind_is_not_offered(changes: dict[str, Any]) -> None:
    module = small()
    module.pretrained_cfg = {**module.pretrained_cfg, **changes}  # type: ignore[dict-item, arg-type]
    assert prisma.load(module).transform is None


def test_a_transform_that_pads_is_not_offered() -> None:
    module = small()
    module.pretrained_cfg = {**module.pretrained_cfg, "crop_mode": "border"}  # type: ignore[dict-item, arg-type]
    assert prisma.load(module).transform is None


NAMES = {
    "vit_base_patch16_22": "timm has no model 'vit_base_patch16_22'; the nearest: vit_base_patch16_224, ",
    "vit_base_patch16_224.augreg_in22k": "no weights 'augreg_in22k' for vit_base_patch16_224; the nearest: augreg",
    "resnet18": "ResNet, which has .*convolutions",
    "vit_tiny_patch16_224": "timm/vit_tiny_patch16_224.* is not in the Hub's cache .*, and HF_HUB_OFFLINE is set",
    "vit_dwee_patch16_reg1_gap_256": "differential|not in the Hub's cache",
}


@pytest.mark.parametrize(("name", "reason"), NAMES.items())
def test_a_name_that_cannot_be_had(name: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(PrismaError, match=reason) as error:
        prisma.load(f"timm/{name}")
    assert "\n" not in str(error.value)


def test_a_revision_of_a_tag_is_refused() -> None:
    with pytest.raises(PrismaError, match="chosen by tag"):
        prisma.load("timm/vit_tiny_patch16_224", revision="main")


def edit(folder: Path, change: Any) -> None:
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


WEIGHTS = {
    "missing": (
        lambda t: [t.pop("norm.bias"), t.pop("blocks.1.attn.qkv.weight")],
        "blocks.1.attn.qkv.weight.*norm.bias",
    ),
    "extra": (lambda t: t.update(more=torch.zeros(1), other=torch.zeros(1)), "more.*other"),
    "shape": (lambda t: t.update({"norm.bias": torch.zeros(3)}), r"norm\.bias"),
}


@pytest.mark.parametrize(("change", "reason"), WEIGHTS.values(), ids=WEIGHTS)
def test_weights_that_do_not_fit_are_all_named(folder: Path, change: Any, reason: str) -> None:
    edit(folder, change)
    with pytest.raises(PrismaError, match=reason) as error:
        prisma.load(folder)
    assert "\n" not in str(error.value)


DAMAGED = {b"": "an empty file", b"{}": "something else", bytes(300): "something else"}


@pytest.mark.parametrize("content", DAMAGED)
def test_damaged_weights_are_one_sentence(folder: Path, content: bytes) -> None:
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(content)
    with pytest.raises(PrismaError, match=f"expected safetensors in .*; found {DAMAGED[content]}"):
        prisma.load(folder)
    path.write_bytes(whole[:-4])
    with pytest.raises(PrismaError, match=r"found a truncated or foreign file"):
        prisma.load(folder)


CONFIGS: dict[str, dict[str, Any]] = {
    "no name": {"architecture": None},
    "no such model": {"architecture": "nope"},
    "foreign argument": {"model_args": {"nope": 1}},
    "no arguments": {"model_args": [1]},
    "contradiction": {"model_args": {"num_heads": 5}},
    "no preprocessing": {"pretrained_cfg": None},
}


@pytest.mark.parametrize("changes", CONFIGS.values(), ids=CONFIGS)
def test_a_config_that_is_none_is_one_sentence(folder: Path, changes: dict[str, Any]) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(PrismaError, match=r"could not be loaded|as named arguments; found") as error:
        prisma.load(folder)
    assert "\n" not in str(error.value)


def test_a_pickle_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(PrismaError, match="pickles, which can run code"):
        prisma.load(folder)


def test_a_swin_in_a_folder_is_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    module = timm.create_model("swin_tiny_patch4_window7_224")
    save_for_hf(module, str(folder), safe_serialization=True)
    assert config
    with pytest.raises(UnsupportedModelError, match="attention within windows"):
        prisma.load(folder)
