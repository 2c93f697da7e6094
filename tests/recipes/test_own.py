"""A recipe in a file, and its mistakes."""

from pathlib import Path

import pytest

from prisma.errors import PrismaError
from prisma.recipes.own import recipe_in

TEXT = """
from prisma.config import ViTConfig
from prisma.train import Recipe, TrainConfig

MODEL = ViTConfig(image_size=8, patch_size=4, channels=1, n_layers=1, d_model=8, n_heads=2, d_mlp=8, n_classes=10)
TRAINING = TrainConfig(steps=9, batch_size=8, lr=1e-3, warmup=1, weight_decay=0.1, checkpoint_every=4)
MINE = Recipe("mine", "digits", MODEL, TRAINING)
"""


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("x = 1\n", r"expected a recipe \(a prisma\.train\.Recipe\) in .*; found none"),
        (f"{TEXT}OTHER = MINE\n", "found several, MINE, OTHER: name one of them RECIPE"),
        ("import torch\nx = 1 / 0\n", "found an error in line 2: ZeroDivisionError: division by zero"),
        ("x = (\n", "found an error in line 1: SyntaxError"),
        (
            TEXT.replace("n_classes=10", "n_classes=9"),
            "found an error in line 7: PrismaError: expected the model's n_cl",
        ),
    ],
)
def test_a_mistake_is_a_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "r.py").write_text(text)
    with pytest.raises(PrismaError, match=sentence):
        recipe_in(tmp_path / "r.py")


def test_of_several_the_one_named_recipe_counts_and_no_file_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "r.py").write_text(f"{TEXT}RECIPE = Recipe('chosen', 'digits', MODEL, TRAINING)\n")
    assert recipe_in(tmp_path / "r.py").name == "chosen"
    with pytest.raises(PrismaError, match=r"expected a file of Python with a recipe at .*absent\.py; found none"):
        recipe_in(tmp_path / "absent.py")
