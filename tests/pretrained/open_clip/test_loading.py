"""Loading open_clip's pairs: names, saved folders, live modules, other image sizes, prompts, and every way to fail."""

import json
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import open_clip
import pytest
import torch
from open_clip.model import CLIP, CustomTextCLIP
from open_clip.push_to_hf_hub import save_for_hf
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer as FastTokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast

import prisma
from prisma import PrismaError
from prisma.errors import UnsupportedModelError
from prisma.pretrained.open_clip.loading import load_folder, load_module
from prisma.pretrained.parity import randomise
from prisma.pretrained.source import SourceModel, Text

VISION: dict[str, Any] = {"layers": 2, "width": 32, "head_width": 16, "patch_size": 8, "image_size": 32}
TEXT: dict[str, Any] = {"layers": 2, "width": 16, "heads": 2, "context_length": 12}
SMALL: dict[str, Any] = {"embed_dim": 24, "quick_gelu": True, "vision_cfg": VISION, "text_cfg": TEXT}
PREPROCESS = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "interpolation": "bilinear", "resize_mode": "squash"}
PROMPTS = ["a photo of a newt", "an owl, at night"]
WORDS = ["[PAD]", "[UNK]", "a", "photo", "of", "newt", "an", "owl", "at", "night", ","]


class Silent:
    """open_clip's own tokenizer has nothing to save."""

    def save_pretrained(self, folder: Path) -> None: ...


def pair(kind: Any = CLIP, **more: Any) -> Any:
    model = kind(**{**SMALL, **more}).eval()
    randomise(model)
    return model


def saved(folder: Path, config: dict[str, Any] = SMALL, model: Any = None, tokenizer: Any = None) -> Path:
    """As open_clip saves a model."""
    model = model or pair(**config)
    open_clip.model.set_model_preprocess_cfg(model, PREPROCESS)
    save_for_hf(model, tokenizer or Silent(), config, str(folder), safe_serialization=True)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return saved(tmp_path / "saved")


def theirs(folder: Path, **more: Any) -> Any:
    return open_clip.create_model(f"local-dir:{folder}", **more).eval()


def noise(*size: int) -> torch.Tensor:
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(2))


@torch.no_grad()
def test_a_saved_folder(folder: Path) -> None:
    loaded, model, images = prisma.load(folder), theirs(folder), noise(32, 32)
    assert loaded.text is not None
    assert torch.allclose(loaded.model(images), model.encode_image(images), atol=1e-5)
    ids = open_clip.tokenize(PROMPTS, context_length=12)
    assert torch.allclose(loaded.text(PROMPTS), model.encode_text(ids, normalize=True), atol=1e-5)
    expected, _ = model.get_logits(images, ids)
    assert torch.allclose(loaded.text.similarity(loaded.model(images), PROMPTS), expected, atol=1e-4)
    assert not any(parameter.requires_grad for parameter in loaded.text.model.parameters())


@torch.no_grad()
def test_a_bias_of_the_logits(tmp_path: Path) -> None:
    config = {**SMALL, "init_logit_bias": -10, "custom_text": True}
    sizes = {name: value for name, value in config.items() if name != "custom_text"}
    folder = saved(tmp_path / "saved", config, pair(CustomTextCLIP, **sizes))
    loaded, model, images = prisma.load(folder), theirs(folder), noise(32, 32)
    assert loaded.text is not None
    assert loaded.text.logit_bias == pytest.approx(float(model.logit_bias))
    expected, _ = model.get_logits(images, open_clip.tokenize(PROMPTS, context_length=12))
    assert torch.allclose(loaded.text.similarity(loaded.model(images), PROMPTS), expected, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("size", [48, (24, 40)])
def test_another_image_size_is_resampled_as_open_clip_does(folder: Path, size: int | tuple[int, int]) -> None:
    loaded = prisma.load(folder, image_size=size)
    images = noise(*loaded.config.image_sides)
    expected = theirs(folder, force_image_size=size)(images)[0]
    assert torch.allclose(torch.nn.functional.normalize(loaded.model(images), dim=-1), expected, atol=1e-5)
    live = theirs(folder)
    assert torch.allclose(prisma.load(live, image_size=size).model(images), loaded.model(images), atol=1e-5)
    assert live.visual.image_size == (32, 32)


@torch.no_grad()
def test_a_timm_trunk_at_another_size(tmp_path: Path) -> None:
    vision = {"timm_model_name": "vit_tiny_patch16_224", "timm_pool": "token", "timm_proj": "linear", "image_size": 224}
    config = {**SMALL, "vision_cfg": vision}
    folder, images = saved(tmp_path / "saved", config), noise(64, 96)
    loaded = prisma.load(folder, image_size=(64, 96))
    expected = theirs(folder, force_image_size=(64, 96)).encode_image(images)
    assert torch.allclose(loaded.model(images), expected, atol=1e-4)
    assert torch.allclose(prisma.load(theirs(folder), image_size=(64, 96)).model(images), expected, atol=1e-4)


def test_positions_of_images_that_are_not_square_are_not_resampled() -> None:
    with pytest.raises(PrismaError, match="square images only; found a grid of"):
        prisma.load(pair(vision_cfg={**VISION, "image_size": (32, 16)}), image_size=48)


@pytest.mark.parametrize("mode", ["squash", "shortest"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [(50, 71), (40, 20), (32, 32)])
def test_the_transform_is_open_clips(folder: Path, mode: str, interpolation: str, size: tuple[int, int]) -> None:
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["preprocess_cfg"] |= {"resize_mode": mode, "interpolation": interpolation}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8))
    source = load_folder(folder)
    assert source.transform is not None
    assert torch.allclose(source.transform(picture), preprocess(picture), atol=1e-6)
    assert load_module(model).transform == source.transform


def test_no_transform_where_open_clip_pads_or_does_not_say(folder: Path) -> None:
    assert prisma.load(pair()).transform is None
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["preprocess_cfg"]["resize_mode"] = "longest"
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    assert prisma.load(folder).transform is None


@torch.no_grad()
def test_names_and_tags(folder: Path) -> None:
    weights = {"file": str(folder / "open_clip_model.safetensors"), "quick_gelu": True, **PREPROCESS}
    plain = {name: value for name, value in SMALL.items() if name != "quick_gelu"}
    with (
        patch.dict("open_clip.factory._MODEL_CONFIGS", {"Tiny": plain, "Nothing": plain}),
        patch.dict("open_clip.pretrained._PRETRAINED", {"Tiny": {"first": weights, "second": weights}}),
    ):
        loaded, images = prisma.load("open_clip/Tiny:second"), noise(32, 32)
        assert torch.allclose(loaded.model(images), theirs(folder).encode_image(images), atol=1e-5)  # quick GELU too
        assert loaded.text is not None
        assert loaded.text(PROMPTS).shape == (2, 24)
        assert torch.equal(prisma.load("open_clip/Tiny").model(images), loaded.model(images))
        with pytest.raises(PrismaError, match=r"no weights 'secnd' for Tiny; the nearest: second, first"):
            prisma.load("open_clip/Tiny:secnd")
        with pytest.raises(PrismaError, match="publishes no weights for Nothing"):
            prisma.load("open_clip/Nothing")
        with pytest.raises(PrismaError, match="chosen by tag"):
            prisma.load("open_clip/Tiny", revision="main")


@torch.no_grad()
def test_a_repository_of_the_hub(folder: Path) -> None:
    def download(repository: str, filename: str, **_: Any) -> str:
        assert repository == "lab/newts"
        return str(folder / filename)

    with patch("huggingface_hub.hf_hub_download", download), patch("prisma.downloads.why_unreachable", lambda *_: None):
        loaded, images = prisma.load("open_clip/lab/newts"), noise(32, 32)
        assert loaded.text is not None
        assert torch.equal(loaded.text(PROMPTS), prisma.load(folder).text(PROMPTS))  # type: ignore[misc]
    assert torch.allclose(loaded.model(images), theirs(folder).encode_image(images), atol=1e-5)


def test_an_unknown_name_offers_three() -> None:
    with pytest.raises(PrismaError, match=r"no model 'ViT-B-33'; the nearest: ViT-B-32, [^,]+, [^,]+$"):
        prisma.load("open_clip/ViT-B-33")


def test_a_convolutional_network_is_refused_before_its_weights_are_asked_for() -> None:
    with pytest.raises(UnsupportedModelError, match="ModifiedResNet, which has batch norm and convolutions"):
        prisma.load("open_clip/RN50:openai")
    with pytest.raises(UnsupportedModelError, match="SwinTransformer, which has attention within windows"):
        prisma.load("open_clip/swin_base_patch4_window7_224")


def test_weights_that_are_not_to_be_had(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    known = patch.dict("open_clip.pretrained._PRETRAINED", {"ViT-S-16": {"absent": {"hf_hub": "nobody/nothing/"}}})
    with known, pytest.raises(PrismaError, match=r"nobody/nothing is not in the Hub's cache .*, and HF_HUB_OFFLINE is"):
        prisma.load("open_clip/ViT-S-16:absent")


def test_prompts_are_never_cut(folder: Path) -> None:
    text = prisma.load(folder).text
    assert text is not None
    assert text.tokenize(["newt " * 10]).shape == (1, 12)
    with pytest.raises(PrismaError, match="at most 12 tokens, including the start and end tokens; found 13 in"):
        text(["newt", "newt " * 11])


def fast_tokenizer() -> PreTrainedTokenizerFast:
    inner = FastTokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    inner.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]")


@torch.no_grad()
def test_a_tokenizer_of_transformers_in_the_folder(tmp_path: Path) -> None:
    text = {**TEXT, "vocab_size": len(WORDS), "hf_tokenizer_name": "elsewhere/words"}
    config = {**SMALL, "text_cfg": text}
    model = pair(CLIP, text_cfg={**text})
    folder = saved(tmp_path / "saved", config, model, fast_tokenizer())
    found = prisma.load(folder).text
    assert found is not None
    ids = open_clip.get_tokenizer(f"local-dir:{folder}")(PROMPTS)
    assert torch.equal(found.tokenize(PROMPTS), ids)
    assert torch.allclose(found(PROMPTS), model.encode_text(ids, normalize=True), atol=1e-5)
    with pytest.raises(PrismaError, match=r"at most 12 tokens.*found 13"):
        found("newt " * 13)
    for path in folder.glob("tokenizer*"):
        path.unlink()
    text_only = prisma.load(folder).text
    assert text_only is not None
    with pytest.raises(
        PrismaError, match=r"the tokenizer, whose files belong in the model's folder .*, could not be loaded"
    ):
        text_only(PROMPTS)


@torch.no_grad()
def test_a_live_pair(folder: Path) -> None:
    model = theirs(folder)
    loaded, images = prisma.load(model), noise(32, 32)
    assert loaded.text is not None
    expected, _ = model.get_logits(images, open_clip.tokenize(PROMPTS, context_length=12))
    assert torch.allclose(loaded.text.similarity(loaded.model(images), PROMPTS), expected, atol=1e-4)
    tower = prisma.load(model.visual)
    assert tower.text is None
    assert torch.equal(tower.model(images), loaded.model(images))
    other = prisma.load(pair(text_cfg={**TEXT, "vocab_size": 100})).text
    assert other is not None
    with pytest.raises(PrismaError, match="a live module does not tell its tokenizer"):
        other(PROMPTS)


def test_a_live_pair_stays_as_it_is() -> None:
    model = pair().train()
    before = {name: x.clone() for name, x in model.state_dict().items()}
    loaded = prisma.load(model, image_size=48)
    assert model.training
    assert model.visual.training
    with torch.no_grad():
        for parameter in loaded.model.parameters():
            parameter.zero_()
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())


def test_weights_of_two_precisions_are_refused() -> None:
    model = pair()
    open_clip.model.convert_weights_to_lp(model)
    with pytest.raises(UnsupportedModelError, match=r"one precision; found torch\.float16 .* and torch\.float32"):
        prisma.load(model)


def test_an_image_tower_without_its_text_tower_says_so() -> None:
    model = pair(CustomTextCLIP, text_cfg={**TEXT, "embed_cls": True})
    with pytest.warns(UserWarning, match="image tower is loaded without its text tower: .*embed_cls"):
        assert prisma.load(model).text is None


def test_pickles_are_refused(folder: Path) -> None:
    weights = folder / "open_clip_model.safetensors"
    torch.save(load_file(weights), folder / "open_clip_pytorch_model.bin")
    weights.unlink()
    with pytest.raises(PrismaError, match=r"found open_clip_pytorch_model.bin .PyTorch.. Prisma opens no other"):
        prisma.load(folder)


@pytest.mark.parametrize("content", ["no json", "[]", '{"model_cfg": {}}', '{"model_cfg": {"vision_cfg": 3}}'])
def test_a_configuration_of_another_form_is_refused(folder: Path, content: str) -> None:
    (folder / "open_clip_config.json").write_text(content)
    with pytest.raises(PrismaError, match="expected JSON with model_cfg, and vision_cfg and text_cfg in it"):
        prisma.load(folder)


def test_weights_that_do_not_fit_are_all_listed(folder: Path) -> None:
    path = folder / "open_clip_model.safetensors"
    weights = load_file(path)
    weights["visual.extra"] = weights.pop("visual.proj")
    weights["ln_final.bias"] = torch.zeros(3)
    save_file(weights, path)
    with pytest.raises(PrismaError, match=r"visual\.proj.*visual\.extra.*size mismatch for ln_final\.bias"):
        prisma.load(folder)
    path.write_bytes(b"not safetensors")
    with pytest.raises(PrismaError, match=r"expected safetensors in .* found something else"):
        prisma.load(folder)


def test_what_is_opened_is_what_the_loader_expects(folder: Path) -> None:
    source = load_folder(folder)
    assert isinstance(source, SourceModel)
    assert set(source.pair) == {"tokenize", "logit_scale", "logit_bias"} <= set(Text.__dataclass_fields__)
