"""The configuration refuses what cannot be, and derives what follows."""

from dataclasses import fields, replace
from typing import Any

import pytest
import torch

from prisma import PrismaError, ViT, ViTConfig
from tests.variants import ANALYSED, BASE, NOTHING_NEW, VARIANTS, config_of

CONTRADICTIONS: dict[str, tuple[dict[str, Any], tuple[str, str]]] = {
    "patches": ({"image_size": 7}, ("image_size=7", "patch_size=2")),
    "patches of one side": ({"image_size": (6, 7)}, ("image_size=(6, 7)", "patch_size=2")),
    "less than a patch": ({"image_size": 1, "cut_edge": True}, ("image_size=1", "patch_size=2")),
    "tubelets": ({"frames": 3, "tubelet": 2}, ("frames=3", "tubelet=2")),
    "heads": ({"n_heads": 5}, ("d_model=12", "n_heads=5")),
    "class pooling": ({"class_token": False}, ("pool='class'", "class_token=False")),
    "class and mean pooling": (
        {"class_token": False, "pool": "class_mean"},
        ("pool='class_mean'", "class_token=False"),
    ),
    "gate": ({"gated_mlp": True, "d_mlp": 0}, ("gated_mlp=True", "d_mlp=0")),
    "norm after embedding": ({"norm_embed": True, "norm": "none"}, ("norm_embed=True", "norm='none'")),
    "pooled norm of none": ({"norm_pooled": True, "norm": "none"}, ("norm_pooled=True", "norm='none'")),
    "pooled norm of post": ({"norm_pooled": True, "norm": "post"}, ("norm_pooled=True", "norm='post'")),
    "pooled norm of two": ({"norm_pooled": True, "pool": "class_mean"}, ("norm_pooled=True", "pool='class_mean'")),
    "rotation": ({"rotary": "axial", "n_heads": 2}, ("rotary='axial'", "d_model=12")),
    "rotation of video": ({"rotary": "axial", "frames": 2}, ("rotary='axial'", "d_model=12")),
}


@pytest.mark.parametrize(("changes", "both"), CONTRADICTIONS.values(), ids=CONTRADICTIONS)
def test_contradictions_name_both_fields(changes: dict[str, Any], both: tuple[str, str]) -> None:
    with pytest.raises(PrismaError) as error:
        ViTConfig(**{**BASE, **changes})
    assert all(field in str(error.value) for field in both)
    assert "\n" not in str(error.value)


WRONG = [
    ("n_layers", -1), ("n_layers", 1.5), ("n_layers", "2"), ("n_layers", True), ("n_layers", None),
    ("image_size", 0), ("image_size", (6,)), ("image_size", (6, 6, 6)), ("image_size", (6.0, 6)), ("image_size", "6"),
    ("patch_size", (2, 0)), ("channels", 0), ("d_model", 0), ("n_heads", 0), ("d_mlp", -1), ("n_classes", -1),
    ("registers", -1), ("frames", 0), ("tubelet", 0), ("norm", None), ("norm", "rms"), ("norm", 1), ("pool", "max"),
    ("activation", "tanh"), ("norm_eps", -1.0), ("norm_eps", "small"), ("norm_eps", float("nan")),
    ("rotary_base", 0.5), ("rotary_base", float("inf")), ("class_token", 1), ("qkv_bias", "yes"), ("rotary", None),
]  # fmt: skip


def test_wrong_values_are_refused_by_name() -> None:
    for field, value in WRONG:
        with pytest.raises(PrismaError, match=rf"^expected {field} to be .*; found "):
            ViTConfig(**{**BASE, field: value})
            pytest.fail(f"{field}={value!r} is accepted")


def test_every_field_is_checked() -> None:
    for field in fields(ViTConfig):
        with pytest.raises(PrismaError, match=f"^expected {field.name} to be"):
            ViTConfig(**{**BASE, field.name: object()})
            pytest.fail(f"{field.name} is not checked")


def test_every_field_varies_among_the_variants() -> None:
    """So that the tests of the model see each of them at work."""
    assert not [f.name for f in fields(ViTConfig) if len({getattr(config_of(v), f.name) for v in VARIANTS}) == 1]


def test_analyses_are_tested_with_every_choice_but_activations() -> None:
    """Forms that are left out for analyses (NOTHING_NEW) leave every field and choice of a field that they can see."""
    assert set(NOTHING_NEW) <= set(VARIANTS)
    seen = lambda field, variants: {getattr(config_of(v), field) for v in variants}  # noqa: E731
    alike = {f.name for f in fields(ViTConfig) if len(seen(f.name, ANALYSED)) == 1}
    assert alike == {"d_model", "n_heads", "channels", "norm_eps", "norm_final_eps", "rotary_base"}
    for name in ("norm", "norm_kind", "pool", "attention"):
        assert seen(name, ANALYSED) == set(ViTConfig.CHOICES[name])


def test_fields_are_named() -> None:
    with pytest.raises(TypeError):
        ViTConfig(8, 2)  # type: ignore[misc]


def test_derived_sizes_are_those_of_the_model() -> None:
    for variant in VARIANTS:
        config = config_of(variant)
        with torch.device("meta"):
            model = ViT(config)
        assert config.n_tokens == config.n_prefix + config.n_patches, variant
        assert model.embed.prefix.shape == (config.n_prefix, config.d_model), variant
        t, h, w = config.grid
        assert t * h * w == config.n_patches, variant
        assert config.cut_edge or h * config.patch_sides[0] == config.image_sides[0], variant
        assert config.cut_edge or w * config.patch_sides[1] == config.image_sides[1], variant
        assert t * config.tubelet == config.frames, variant
        assert config.d_head * config.n_heads == config.d_model or config.d_head == 6, variant


def test_a_side_or_a_pair_and_lists_from_json() -> None:
    pair = config_of("not_square")
    assert replace(pair, image_size=[4, 6], patch_size=[2, 3]) == pair  # type: ignore[arg-type]
    assert (pair.image_sides, pair.patch_sides, pair.grid) == ((4, 6), (2, 3), (1, 2, 2))
    assert hash(pair) == hash(config_of("not_square"))
    assert config_of("base").image_sides == (6, 6)


def test_input_shape() -> None:
    assert config_of("base").input_shape == (2, 6, 6)
    assert config_of("video").input_shape == (2, 4, 4, 4)
