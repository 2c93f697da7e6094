"""Every option of an architecture is in its description: a change of any field changes the words."""

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from prisma.config import ViTConfig
from prisma.describe import describe, sides, what_goes_in
from prisma.errors import PrismaError
from tests.variants import BASE, VARIANTS, VIDEO, config_of

CHANGES: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
    "n_layers": ({}, {"n_layers": 3}),
    "d_model": ({}, {"d_model": 24}),
    "n_heads": ({"d_head": 4}, {"n_heads": 2}),
    "d_head": ({}, {"d_head": 6}),
    "d_mlp": ({}, {"d_mlp": 11}),
    "activation": ({}, {"activation": "silu"}),
    "gated_mlp": ({}, {"gated_mlp": True}),
    "norm": ({}, {"norm": "res_post"}),
    "norm_kind": ({}, {"norm_kind": "rms"}),
    "norm_eps": ({}, {"norm_eps": 1e-5}),
    "norm_z": ({}, {"norm_z": True}),
    "norm_post": ({}, {"norm_post": True}),
    "parallel": ({}, {"parallel": True}),
    "qkv_bias": ({}, {"qkv_bias": False}),
    "qk_norm": ({}, {"qk_norm": True}),
    "layer_scale": ({}, {"layer_scale": True}),
    "rotary": ({}, {"rotary": "table"}),
    "rotary_base": ({"rotary": "axial"}, {"rotary_base": 10.0}),
    "score_bias": ({}, {"score_bias": True}),
    "image_size": ({}, {"image_size": 8}),
    "patch_size": ({}, {"patch_size": 3}),
    "cut_edge": ({}, {"cut_edge": True}),
    "channels": ({}, {"channels": 3}),
    "frames": (VIDEO, {"frames": 6}),
    "tubelet": (VIDEO, {"tubelet": 1}),
    "attention": ({**VIDEO, "tubelet": 1}, {"attention": "divided"}),
    "n_classes": ({}, {"n_classes": 6}),
    "norm_patches": ({}, {"norm_patches": True}),
    "norm_embed": ({}, {"norm_embed": True}),
    "norm_final": ({}, {"norm_final": False}),
    "norm_final_eps": ({}, {"norm_final_eps": 0.1}),
    "norm_pooled": ({}, {"norm_pooled": True}),
    "class_token": ({"pool": "mean"}, {"class_token": False}),
    "registers": ({}, {"registers": 2}),
    "pool": ({}, {"pool": "mean"}),
    "pool_prefix": ({"pool": "mean"}, {"pool_prefix": True}),
    "pool_heads": ({"pool": "attention"}, {"pool_heads": 2}),
    "pool_d_mlp": ({"pool": "attention"}, {"pool_d_mlp": 7}),
    "positions": ({}, {"positions": False}),
    "head_bias": ({}, {"head_bias": False}),
}
"""Field -> what the two architectures share, and what one of them has otherwise."""


@pytest.mark.parametrize("name", [field.name for field in fields(ViTConfig)])
def test_each_field_is_described(name: str) -> None:
    shared, other = CHANGES[name]
    one = ViTConfig(**{**BASE, "d_head": 4, **shared})
    two = ViTConfig(**{**BASE, "d_head": 4, **shared, **other})
    assert {key for key, value in asdict(one).items() if asdict(two)[key] != value} == {name}
    assert describe(one) != describe(two)


@pytest.mark.parametrize("choice", [(name, value) for name in ViTConfig.CHOICES for value in ViTConfig.CHOICES[name]])
def test_each_choice_has_words_of_its_own(choice: tuple[str, str]) -> None:
    """Each value, against the others of its field, in an architecture that allows it."""
    name, value = choice
    bases = [{**BASE, **VARIANTS[variant]} for variant in ("base", "registers", "divided", "pool_attention")]

    def words(chosen: str) -> set[tuple[object, ...]]:
        found = set()
        for base in bases:
            try:
                found.add(describe(ViTConfig(**{**base, name: chosen})))
            except PrismaError:
                continue
        return found

    assert words(value)
    assert all(not words(value) & words(other) for other in ViTConfig.CHOICES[name] if other != value)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_form_has_words(variant: str) -> None:
    rows = describe(config_of(variant))
    assert [row.name for row in rows][:2] == ["Input", "Tokens"] and len({row.name for row in rows}) == len(rows)
    assert all(row.words and row.words == " ".join(row.words.split()) for row in rows)


def values_of(field: str) -> st.SearchStrategy[Any]:
    _, other = CHANGES[field]
    if field in ViTConfig.CHOICES:
        return st.sampled_from(ViTConfig.CHOICES[field])
    value = other[field]
    return st.booleans() if isinstance(value, bool) else st.sampled_from([value, BASE.get(field, value)])


@st.composite
def configs(draw: st.DrawFn) -> ViTConfig:
    """Valid architectures of any combination of options."""
    start = draw(st.sampled_from(sorted(VARIANTS)))
    names = draw(st.lists(st.sampled_from(sorted(CHANGES)), max_size=6, unique=True))
    try:
        return ViTConfig(**{**BASE, **VARIANTS[start], **{name: draw(values_of(name)) for name in names}})
    except PrismaError:
        assume(False)
        raise


@settings(max_examples=200, deadline=None)
@given(configs(), configs())
def test_different_architectures_have_different_descriptions(one: ViTConfig, two: ViTConfig) -> None:
    assert all(row.words for row in describe(one))
    if describe(one) == describe(two):
        idle = {
            "rotary_base",
            "pool_heads",
            "pool_d_mlp",
            "activation",
            "norm_kind",
            "norm_eps",
            "norm_final",
            "cut_edge",
        }
        assert {key for key, value in asdict(one).items() if asdict(two)[key] != value} <= idle


def test_the_right_words() -> None:
    assert sides(8) == "8 x 8" and sides((4, 6)) == "4 x 6"
    assert what_goes_in(config_of("video")) == "2-channel videos of 4 frames of 4 x 4 pixels"
    found = {row.name: row.words for row in describe(config_of("large", norm_kind="rms", registers=1))}
    assert found == {
        "Input": "2-channel images of 6 x 6 pixels",
        "Tokens": "9 patches of 2 x 2 pixels, 1 class token, 1 register",
        "Positions": "learned, one for each patch; rotary along each axis, base 100",
        "Residual stream": "12 dimensions, each branch scaled per dimension",
        "Layers": "2, attention, then MLP",
        "Attention": "3 heads of 4 dimensions in each layer, over all tokens, with a norm on q and k",
        "MLP": "10 neurons, GELU, gated",
        "Norms": "RMSNorm before each branch, after the last layer; epsilon 1e-06",
        "Read out from": "attention pooling over the patches with 3 heads; its MLP: 10 neurons, GELU, gated",
        "Output": "5 logits",
    }
    distilled = {row.name: row.words for row in describe(config_of("pool_distilled"))}
    assert distilled["Tokens"] == "9 patches of 2 x 2 pixels, 1 class token, 1 distillation token"
    assert distilled["Read out from"] == "the class token and the distillation token"
    bare = {row.name: row.words for row in describe(config_of("attention_only", norm="none", positions=False))}
    assert bare["MLP"] == "none: attention only" and bare["Norms"] == bare["Positions"] == "none"
    divided = {row.name: row.words for row in describe(config_of("divided"))}
    assert divided["Tokens"] == "16 patches of 1 frame of 2 x 2 pixels, 1 class token"
    assert divided["Attention"].endswith("over time, then over space")
