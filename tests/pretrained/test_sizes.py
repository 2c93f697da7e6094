"""Sizes that a configuration of another library states are held against Prisma's bounds before anything is built."""

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn

import prisma
from prisma.bounds import NUMBERS
from prisma.errors import PrismaError
from prisma.pretrained.open_clip.loading import load_module as load_open_clip
from prisma.pretrained.sizes import FRACTIONS, WORDS, bound_of, expect_sizes, without_values
from prisma.pretrained.timm.loading import load_module as load_timm
from tests.pretrained.open_clip.test_loading import pair
from tests.pretrained.transformers.cases_clip import CASES as PAIRS
from tests.pretrained.transformers.cases_images import CASES as IMAGES
from tests.pretrained.transformers.cases_video import CASES as VIDEOS

Values = dict[str, Any]
VIT: Values = {"model_type": "vit", "architectures": ["ViTModel"]}
CLIP: Values = {"model_type": "clip", "architectures": ["CLIPModel"]}
GPT: Values = {"model_type": "gpt2", "architectures": ["GPT2Model"]}
TIMM: Values = {"architecture": "vit_tiny_patch16_224", "num_classes": 5, "pretrained_cfg": {"num_classes": 5}}


def open_clip_of(**parts: Values) -> Values:
    vision = {"layers": 2, "width": 32, "patch_size": 8, "image_size": 32, **parts.get("vision_cfg", {})}
    return {"model_cfg": {"embed_dim": 24, "text_cfg": {"layers": 1}, **parts, "vision_cfg": vision}}


C, P = "config.json", "open_clip_config.json"
HUGE: dict[str, tuple[str, Values, str]] = {
    "layers": (C, {**VIT, "num_hidden_layers": 1_000_000}, "num_hidden_layers in .* 0 to 1,000; found 1000"),
    "width": (C, {**VIT, "hidden_size": 3_000_000}, "hidden_size in .* from 1 to 1,000,000; found 3000000"),
    "image": (C, {**VIT, "image_size": 200_000}, "image_size in .* from 1 to 100,000; found 200000"),
    "sides": (C, {**VIT, "image_size": [16, 200_000]}, "image_size in .* 100,000; found 200000"),
    "named sides": (C, {**VIT, "image_size": {"height": -1}}, "image_size in .* 100,000; found -1"),
    "tokens": (C, {**VIT, "image_size": 30_000}, "the number of tokens that .* 1,000,000; found 3515625"),
    "table": (C, {**VIT, "image_size": 12_000, "hidden_size": 10**6}, "a table of 562,500 .* GB; found 4,500"),
    "memory": (C, {**VIT, "hidden_size": 600_000}, "the weights that .* memory of .*; found"),
    "classes": (C, {**VIT, "num_labels": 10**9}, "num_labels in .*; found 1000000000"),
    "in vision": (C, {**CLIP, "vision_config": {"num_hidden_layers": 10**6}}, "num_hidden_layers in"),
    "in text": (C, {**CLIP, "text_config": {"vocab_size": 10**12}}, "vocab_size in .* 10,000,000; found"),
    "another class": (C, {**GPT, "n_layer": 1_000_000}, "n_layer in .*config.json to be from 0 to 1,000"),
    "timm depth": (C, {**TIMM, "model_args": {"depth": 10**6}}, "depth in .* 0 to 1,000; found 1000000"),
    "timm width": (C, {**TIMM, "model_args": {"embed_dim": 10**7}}, "embed_dim in .*; found 10000000"),
    "timm image": (C, {**TIMM, "model_args": {"img_size": 200_000}}, "img_size in .*; found 200000"),
    "timm classes": (C, {**TIMM, "num_classes": 10**9}, "num_classes in .*; found 1000000000"),
    "timm input": (C, {**TIMM, "pretrained_cfg": {"input_size": [3, 224, 10**9]}}, "input_size in .* 10000000"),
    "timm memory": (C, {**TIMM, "model_args": {"embed_dim": 600_000}}, "the weights that .* memory of"),
    "timm tokens": (C, {**TIMM, "model_args": {"img_size": 20_000}}, "the number of tokens to be .* 1562501"),
    "open_clip": (P, open_clip_of(vision_cfg={"layers": 10**6}), "layers in .*; found 1000000"),
    "open_clip stages": (P, open_clip_of(vision_cfg={"layers": [600, 600]}), "layers in .* 600]"),
    "open_clip width": (P, open_clip_of(vision_cfg={"width": 10**9}), "width in .*; found 100000"),
    "open_clip image": (P, open_clip_of(vision_cfg={"image_size": 200_000}), "image_size in"),
    "open_clip text": (P, open_clip_of(text_cfg={"context_length": 10**9}), "context_length in"),
    "open_clip space": (P, {**open_clip_of(), "x": {"embed_dim": 10**9}}, "embed_dim in"),
    "open_clip memory": (P, open_clip_of(vision_cfg={"width": 960_000}),
        "the weights that .* memory of"),
}  # fmt: skip


class Built(BaseException):
    """A tensor of a module is made, with values."""


def folder_of(folder: Path, name: str, values: Values) -> Path:
    """A folder with a configuration and weights of a few bytes."""
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, folder / "model.safetensors")
    (folder / name).write_text(json.dumps(values))
    return folder


@pytest.fixture
def nothing_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    """A parameter is made on the device `meta`, where it has no memory, or not at all."""
    plain = nn.Module.register_parameter

    def register(self: nn.Module, name: str, param: Any) -> None:
        if param is not None and not param.is_meta:
            raise Built(name)
        plain(self, name, param)

    monkeypatch.setattr(nn.Module, "register_parameter", register)


@pytest.mark.usefixtures("nothing_is_built")
@pytest.mark.parametrize(("name", "values", "message"), HUGE.values(), ids=HUGE)
def test_a_huge_size_is_refused_before_anything_is_built(
    tmp_path: Path, name: str, values: Values, message: str
) -> None:
    with pytest.raises(PrismaError, match=f"^expected {message}") as error:
        prisma.load(folder_of(tmp_path, name, values))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("key", ["num_hidden_layers", "embed_dim", "image_size", "mlp_ratio"])
def test_what_is_no_size_is_one_sentence(key: str) -> None:
    numbers = (float("inf"), float("nan"), -1, 2**80, 10**5000)
    for value in (*numbers, "12", True, [2, "3"], (4, -4), {"height": "8"}, [[10**9]]):
        for values in ({key: value}, {"vision_cfg": {key: value}}):
            with pytest.raises(
                PrismaError, match=rf"^expected {key} in a.json to be (a number |a whole number )?from \d"
            ):
                expect_sizes(values, "a.json")


def test_a_fraction_is_a_ratio_and_no_number_of_layers() -> None:
    expect_sizes({"mlp_ratio": 4.5, "layer_norm_eps": 1e-6, "depth": 12, "image_size": None, "num_labels": 0}, "a")
    with pytest.raises(PrismaError, match=r"^expected depth in a to be a whole number from 0 to 1,000; found 12.0$"):
        expect_sizes({"depth": 12.0}, "a")
    with pytest.raises(PrismaError, match=r"^expected patch_size in a to be from 1 to 100,000; found 0$"):
        expect_sizes({"patch_size": 0}, "a")
    with pytest.raises(PrismaError, match=r"^expected at most 1,000 numbers as depths in a; found 1,001 of them$"):
        expect_sizes({"depths": [0] * 1_001}, "a")


FOREIGN = {
    "window_size": "size", "num_experts": "parts", "num_hidden_groups": "parts", "num_queries": "parts",
    "mlp_hidden_dim": "size", "output_dim": "size", "type_vocab_size": "size", "pretrained_window_sizes": "size",
    "decoder_attention_heads": "parts", "out_channels": "size", "kernel_size": "size", "in_chs": "size",
    "embed_dim_per_stage": "size", "stem_width": "size", "encoder_ffn_ratio": "size", "n_routed_experts": "parts",
    "num_embeddings": "size", "spatial_merge_size": "size", "num_latents": "parts", "blocks_per_stage": "parts",
}  # fmt: skip


@pytest.mark.parametrize(("word", "name"), FOREIGN.items())
def test_a_word_that_no_table_lists_has_a_bound_too(word: str, name: str) -> None:
    assert bound_of(word) == name
    low, high = NUMBERS[name]
    for values in ({word: 2}, {word: [2, 4]}, {word: None}, {"vision_cfg": {word: 4}}, {word: high}, {word: low}):
        expect_sizes(values, "a")
    for values in ({word: 10**9}, {"parts": [{word: [1, 10**9]}]}):
        with pytest.raises(PrismaError, match=f"^expected {word} in a to be from .*; found 1000000000$"):
            expect_sizes(values, "a")


def test_what_is_named_as_a_size_and_is_no_number_is_left_alone() -> None:
    loose: Values = {"window_size": "auto", "fixed_input_size": True, "expand_ratio": 4.5, "image_token_id": 10**9}
    expect_sizes({**loose, "seed": 10**9, "vision_features": {"kind": "x", "drop_path_rate": 0.1}}, "a")
    for value in (float("nan"), float("inf"), 1e30):
        with pytest.raises(PrismaError, match=r"^expected expand_ratio in a to be"):
            expect_sizes({"expand_ratio": value}, "a")
    with pytest.raises(PrismaError, match=r"^expected num_layers in a to be"):
        expect_sizes({"vision_features": {"num_layers": 10**9}}, "a")


def test_every_bound_is_one_of_prismas_own() -> None:
    assert set(WORDS) <= set(NUMBERS) and set(WORDS) >= FRACTIONS


NO_SIZES = r"(\w+_)?id|\w*drop\w*|\w*init\w*|\w*loss\w*|\w*indices|chunk_size_feed_forward|\w*index|\w*scale\w*|" \
    r"\w*stride|mask_ratio|pos_embed_\w+|semantic_\w+"  # fmt: skip


@pytest.mark.parametrize("cases", [IMAGES, PAIRS, VIDEOS], ids=["images", "pairs", "videos"])
def test_every_number_of_every_class_has_a_bound_and_small_models_pass(cases: dict[str, Any]) -> None:
    import re

    def numbers(values: Values) -> set[str]:
        below = {key for part in values.values() if isinstance(part, dict) for key in numbers(part)} - {
            *values.get("label2id", {})
        }
        return below | {key for key, value in values.items() if type(value) in (int, float)}

    for name, build in cases.items():
        config = build().config.to_dict()
        expect_sizes(config, name)
        unknown = {key for key in numbers(config) if bound_of(key) is None and not re.fullmatch(NO_SIZES, key)}
        assert not unknown, (name, unknown)


def test_a_model_without_values_costs_no_memory() -> None:
    def build() -> nn.Module:
        return nn.Linear(100_000, 1_000)

    assert {x.device.type for x in without_values(build, "it").parameters()} == {"meta"}
    with pytest.raises(PrismaError, match=r"^expected the weights that the configuration of it states to fit into"):
        without_values(lambda: nn.Linear(1_000_000, 1_000_000), "it")
    with pytest.raises(PrismaError, match=r"^it could not be loaded \(TypeError"):
        without_values(lambda: nn.Linear("a", 1), "it")  # type: ignore[arg-type]


@pytest.mark.parametrize("library", ["timm", "open_clip"])
def test_a_live_module_is_not_resized_to_more_tokens_than_a_model_may_have(library: str) -> None:
    module = timm.create_model("vit_tiny_patch16_224", depth=1) if library == "timm" else pair()
    load = load_timm if library == "timm" else load_open_clip
    with pytest.raises(
        PrismaError, match=r"^expected the number of tokens at image_size=\(64000, 96000\) to be from 0"
    ):
        load(module, image_size=(64_000, 96_000))
    with pytest.raises(
        PrismaError, match=r"expected image_size as a side in pixels .* from 1 to 100,000; found 200000$"
    ):
        prisma.load(module, image_size=200_000)


@pytest.mark.parametrize("values", [{"parts": [{"num_layers": 10**9}]}, {"a": [[{"x": {"num_layers": 10**9}}]]}])
def test_configurations_in_lists_are_entered(values: dict[str, object]) -> None:
    with pytest.raises(PrismaError, match="num_layers"):
        expect_sizes(values, "config.json")
