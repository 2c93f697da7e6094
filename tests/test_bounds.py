"""Every number that people type or files state has bounds, and sizes are checked before anything is allocated."""

from dataclasses import fields
from typing import Any, get_args, get_type_hints

import pytest

from prisma.bounds import NUMBERS, expect_memory, expect_within, machine_memory
from prisma.config import TextConfig, ViTConfig
from prisma.errors import PrismaError
from prisma.outline import outline
from prisma.recipes import RECIPES
from prisma.train import TrainConfig
from tests.variants import BASE, NOTHING_NEW, TEXTS, VARIANTS, config_of, tower_of

HUGE = (-1, 2**32, 2**64, 10**5000, float("inf"), float("-inf"), float("nan"), 1e300)


def test_every_number_of_an_architecture_and_a_recipe_has_bounds() -> None:
    for config in (ViTConfig, TextConfig, TrainConfig):
        hints = get_type_hints(config)
        numbers = {f.name for f in fields(config) if {int, float} & {hints[f.name], *get_args(hints[f.name])}}
        assert numbers <= set(NUMBERS), config


def test_no_number_outside_its_bounds_is_accepted() -> None:
    training = RECIPES["digits"].training
    for config, values in ((ViTConfig, BASE), (TrainConfig, vars(training))):
        for name in (name for name in get_type_hints(config) if name in NUMBERS):
            for value in HUGE:
                with pytest.raises(PrismaError, match=rf"^expected {name} to be"):
                    config(**{**values, name: value})
                    pytest.fail(f"{name}={value!r:.20} is accepted")


def test_the_message_states_the_bounds() -> None:
    with pytest.raises(PrismaError, match=r"^expected threads to be from 1 to 512; found 100000$"):
        expect_within("threads", 100_000)
    with pytest.raises(PrismaError, match=r"^expected lr to be from 1e-12 to 1,000; found 0.0$"):
        expect_within("lr", 0.0)
    with pytest.raises(PrismaError, match=r"^expected image_size to be from 1 to 100,000; found a tuple that cannot"):
        expect_within("image_size", (8, 10**5000))
    for name in ("lr", "threads", "seed"):
        expect_within(name if name in NUMBERS else "init_seed", 1)


PRODUCTS: list[tuple[dict[str, Any], str]] = [
    ({"image_size": 2000, "patch_size": 1}, "the number of tokens to be from 0 to 1,000,000; found 4000001"),
    ({"d_model": 999_999, "n_heads": 1, "d_mlp": 100_000}, "the number of weights to be from 0 to 100,000,000,000"),
    ({"image_size": 600, "patch_size": 1, "score_bias": True, "n_heads": 2}, "the number of weights"),
]


def test_products_have_bounds_too() -> None:
    for changes, sentence in PRODUCTS:
        with pytest.raises(PrismaError, match=rf"^expected {sentence}"):
            ViTConfig(**{**BASE, **changes})
            pytest.fail(f"{changes} is accepted")


def test_a_recipe_whose_training_no_machine_can_hold_is_refused() -> None:
    digits = RECIPES["digits"]
    with pytest.raises(PrismaError, match="the number of weights that are trained to be from 0 to 1,000,000,000"):
        digits.override({"d_model": "4000", "d_mlp": "4000", "n_layers": "100"})
    with pytest.raises(PrismaError, match="the number of pixels per batch to be"):
        RECIPES["sprites"].override({"batch_size": "1000000"})
    with pytest.raises(PrismaError, match=r"number of checkpoints, .*, to be from 0 to 10,000; found 400000"):
        digits.override({"steps": "400000", "checkpoint_every": "1"})


def test_the_number_of_weights_is_that_of_the_model() -> None:
    """Of its matrices and tables, exactly; what is left out is biases and norms."""
    configs = [
        *(config_of(variant) for variant in VARIANTS if variant not in NOTHING_NEW),
        *(tower_of(variant).config for variant in TEXTS),
    ]
    for config in configs:
        model = outline(config)
        tensors = [*model.parameters(), *(x for name, x in model.named_buffers() if not name.endswith("attn.bias"))]
        assert config.n_weights == sum(x.numel() for x in tensors if x.ndim > 1), config


def test_the_number_of_constants_is_that_of_the_model() -> None:
    for config in (config_of("rotary"), config_of("base"), tower_of(next(iter(TEXTS))).config):
        model = outline(config)
        constants = {x.data_ptr(): x.numel() for name, x in model.named_buffers() if name not in model.state_dict()}
        assert config.n_constants == sum(constants.values()), config


def test_memory_is_compared_with_that_of_the_machine() -> None:
    there = machine_memory()
    assert there > 2**28
    expect_memory(there, "a model")
    with pytest.raises(PrismaError, match=r"^expected a model to fit into this machine's memory of .* GB; found"):
        expect_memory(there + 1, "a model")


def test_a_machine_that_does_not_tell_its_memory_has_no_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> int:
        raise ValueError(name)

    monkeypatch.setattr("os.sysconf", unknown)
    monkeypatch.setattr("pathlib.Path.read_text", lambda _: "max\n")
    assert machine_memory() == 2**63
    monkeypatch.setattr("pathlib.Path.read_text", lambda _: "1000\n")
    assert machine_memory() == 1000
