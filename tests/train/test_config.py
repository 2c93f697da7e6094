from dataclasses import fields, replace

import pytest

from prisma.config import ViTConfig
from prisma.errors import PrismaError
from prisma.fields import from_dict
from prisma.train import Recipe, TrainConfig


def test_override_reads_each_kind_of_field_and_leaves_the_rest(tiny: Recipe) -> None:
    texts = {"steps": "500", "lr": "1e-4", "class_token": "FALSE", "pool": "mean", "patch_size": "4,2", "d_model": "8"}
    texts |= {"norm_final_eps": "1e-5", "pool_d_mlp": "none"}
    found = tiny.override(texts)
    assert found.training == replace(tiny.training, steps=500, lr=1e-4)
    assert found.model == replace(
        tiny.model, class_token=False, pool="mean", patch_size=(4, 2), d_model=8, d_head=4, norm_final_eps=1e-5
    )
    assert (found.name, found.task) == (tiny.name, tiny.task)
    assert tiny.override({}) == tiny


def test_every_setting_has_one_home() -> None:
    assert not {field.name for field in fields(TrainConfig)} & {field.name for field in fields(ViTConfig)}


@pytest.mark.parametrize(
    ("key", "text", "expected"),
    [
        ("stepz", "1", "no setting 'stepz'; the nearest: steps"),
        ("steps", "many", "expected steps to be a whole number; found 'many'"),
        ("steps", "1.5", "expected steps to be a whole number; found '1.5'"),
        ("lr", "fast", "expected lr to be a number; found 'fast'"),
        ("lr", "nan", "expected lr to be from 1e-12 to 1,000; found nan"),
        ("lr", "-1", "expected lr to be from 1e-12 to 1,000; found -1.0"),
        ("init_seed", "-1", "expected init_seed to be from 0 to 4,294,967,295; found -1"),
        ("qk_norm", "maybe", "expected qk_norm to be true or false; found 'maybe'"),
        (
            "patch_size",
            "4x4",
            "patch_size to be a whole number or a pair of whole numbers such as 4,2; found '4x4'",
        ),
        ("CHOICES", "3", "no setting 'CHOICES'"),
        ("pool_heads", "many", "expected pool_heads to be a whole number or none; found 'many'"),
        ("n_heads", "3", "d_model=16 contradicts n_heads=3"),
        ("warmup", "70", "warmup=70 contradicts steps=70"),
        ("n_classes", "3", "expected the model's n_classes to be 10 for the task digits; found 3"),
        ("image_size", "16", r"image_sides to be \(8, 8\) for the task digits"),
    ],
)
def test_what_cannot_be_is_refused_with_a_sentence(tiny: Recipe, key: str, text: str, expected: str) -> None:
    with pytest.raises(PrismaError, match=expected.replace("^", r"\^")):
        tiny.override({key: text})


def test_wrong_types_and_unknown_tasks_are_refused(tiny: Recipe) -> None:
    with pytest.raises(PrismaError, match="expected steps to be a whole number; found True"):
        replace(tiny.training, steps=True)
    with pytest.raises(PrismaError, match="no task 'digit'; the nearest: digits"):
        replace(tiny, task="digit")
    assert type(replace(tiny.training, turn=5).turn) is float  # so that equal settings are written alike


def test_settings_that_came_later_are_stated_where_they_differ(tiny: Recipe) -> None:
    stated = tiny.training.to_dict()
    assert not set(TrainConfig.LATER) & set(stated) and stated["threads"] == 1
    changed = tiny.override({"precision": "bfloat16", "decay_every": "7"}).training
    assert changed.to_dict() == {**stated, "precision": "bfloat16", "decay_every": 7}
    assert from_dict(TrainConfig, changed.to_dict(), "it") == changed
    for field, choices in (("precision", "float32, bfloat16"), ("init", "fan_in, kaiming")):
        with pytest.raises(PrismaError, match=f"expected {field} to be one of {choices}; found 'half'"):
            tiny.override({field: "half"})
