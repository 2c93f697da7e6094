"""Image classifiers of transformers that are not converted: their answers, preprocessing and classes."""

from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from prisma.errors import PrismaError, UnsupportedModelError
from prisma.features.models import model_of
from prisma.loaded import Loaded
from prisma.pretrained.networks import Network, load_network

NAMES = {0: "cat", 1: "dog", 2: "newt"}
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8))
CONVNEXT = {"hidden_sizes": [8, 16], "depths": [1, 1], "num_stages": 2}
RESNET = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
MOBILE = {"depth_multiplier": 0.35, "image_size": 64}
CUT = {"size": {"shortest_edge": 72}, "crop_size": {"height": 64, "width": 64}}


def saved(folder: Path, name: str, config: dict[str, Any], processor: Any) -> Any:
    """As transformers saves a classifier with random weights."""
    torch.manual_seed(0)
    settings = getattr(transformers, f"{name}Config")(**config, num_labels=3, id2label=NAMES)
    module = getattr(transformers, f"{name}ForImageClassification")(settings).eval()
    module.save_pretrained(folder)
    if processor is not None:
        processor.save_pretrained(folder)
    return module


def shares(side: int) -> Any:
    return transformers.ConvNextImageProcessor(size={"shortest_edge": side}, crop_pct=0.875)  # type: ignore[no-untyped-call]


@pytest.mark.parametrize(
    ("name", "config", "processor"),
    [
        ("ConvNext", CONVNEXT, shares(64)),
        ("ResNet", RESNET, shares(384)),
        ("MobileNetV2", MOBILE, transformers.MobileNetV2ImageProcessor(**CUT)),
    ],
)
def test_a_classifier_answers_and_sees_as_its_library(
    tmp_path: Path, name: str, config: dict[str, Any], processor: Any
) -> None:
    module = saved(tmp_path, name, config, processor)
    found = model_of(str(tmp_path))
    assert isinstance(found, Network) and type(found.model) is type(module) and found.labels == ("cat", "dog", "newt")
    theirs = processor(PICTURE, return_tensors="pt")["pixel_values"]
    ours = found.transform(PICTURE)[None]
    assert ours.shape == theirs.shape and (ours - theirs).abs().mean() < 0.02, "a rounding of bytes"
    assert torch.equal(found.model(theirs).logits, module(theirs).logits)
    assert not any(x.requires_grad for x in found.model.parameters())


def test_a_vit_is_converted_and_what_is_no_classifier_is_said(tmp_path: Path) -> None:
    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    square = transformers.ViTImageProcessor(size={"height": 16, "width": 16})  # type: ignore[no-untyped-call]
    saved(tmp_path / "vit", "ViT", {**small, "image_size": 16, "patch_size": 8}, square)
    assert isinstance(model_of(str(tmp_path / "vit")), Loaded)
    transformers.BertModel(transformers.BertConfig(**small, vocab_size=9)).save_pretrained(tmp_path / "bert")
    with pytest.raises(PrismaError, match=r"expected an image classifier of transformers in .*bert; found a BertModel"):
        load_network(str(tmp_path / "bert"))
    saved(tmp_path / "bare", "ResNet", RESNET, None)
    with pytest.raises(PrismaError, match="expected a network whose preprocessing can be reproduced; found another"):
        load_network(str(tmp_path / "bare"))
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "config.json").write_text('{"model_type": "nothing"}')
    with pytest.raises(UnsupportedModelError, match="expected a model that transformers has a class for"):
        load_network(str(tmp_path / "none"))


def test_preprocessing_that_no_transform_does_is_refused(tmp_path: Path) -> None:
    levit = transformers.LevitImageProcessor(**CUT)  # which resizes to a size of its own
    saved(tmp_path, "MobileNetV2", MOBILE, levit)
    with pytest.raises(PrismaError, match="expected a network whose preprocessing can be reproduced"):
        load_network(str(tmp_path))


def test_a_name_is_opened_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repo, commit = tmp_path / "models--lab--cnn", "0123456789abcdef0123456789abcdef01234567"
    module = saved(repo / "snapshots" / commit, "ResNet", RESNET, shares(64))
    (repo / "refs").mkdir()
    (repo / "refs/main").write_text(commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    found = model_of("hf/lab/cnn")
    assert isinstance(found, Network) and found.transform.shortest == 73
    x = torch.rand(1, 3, 64, 64)
    assert torch.equal(found.model(x).logits, module(x).logits)
