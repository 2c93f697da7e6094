import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from prisma.errors import PrismaError
from prisma.train.curves import draw_curves

METRICS = [
    {"step": step, "loss": 2 / (step + 1), "lr": 0.1 * step}
    | ({"train_loss": 1.0, "train_accuracy": 0.5, "test_loss": 1.5, "test_accuracy": 0.25} if step % 4 == 0 else {})
    for step in range(9)
]
NAMES = ["accuracy.png", "accuracy.svg", "dynamics.png", "loss.png", "loss.svg"]


def test_the_pictures_show_something_and_quote_the_last_values(tmp_path: Path) -> None:
    draw_curves(METRICS, tmp_path, "tiny")
    assert sorted(path.name for path in tmp_path.iterdir()) == NAMES
    for name in ("loss", "accuracy"):
        picture = np.asarray(Image.open(tmp_path / f"{name}.png").convert("RGB"))
        assert picture.shape == (570, 960, 3)
        red = (np.abs(picture.astype(int) - (0xD1, 0x49, 0x5B)).sum(-1) < 30).sum()
        assert red > 500  # the test curve
        svg = (tmp_path / f"{name}.svg").read_text()
        assert f"<!-- tiny: {name} -->" in svg
    dynamics = np.asarray(Image.open(tmp_path / "dynamics.png").convert("RGB"))
    assert dynamics.shape == (570, 1440, 3)
    blue = np.abs(dynamics.astype(int) - (0x30, 0x63, 0x8E)).sum(-1) < 30
    rows, columns = blue.nonzero()  # the rate rises from the lower left to the upper right
    assert len(rows) > 300 and rows[columns.argmin()] > 450 and rows[columns.argmax()] < 100
    assert "<!-- test, 1.500 at the end -->" in (tmp_path / "loss.svg").read_text()
    assert "<!-- test, 0.250 at the end -->" in (tmp_path / "accuracy.svg").read_text()


def test_the_same_numbers_give_the_same_bytes(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        draw_curves(METRICS, tmp_path / folder, "tiny")
    for name in NAMES:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_wide_numbers_are_not_cut_off(tmp_path: Path) -> None:
    """Margins are fixed: a million steps, a loss of hundreds and a tiny learning rate must have room there."""
    wide = [
        line | {"step": 125_000 * line["step"], "lr": 1e-5 * line["step"]} | ({"test_loss": 500.0} if i == 0 else {})
        for i, line in enumerate(METRICS)
    ]
    draw_curves(wide, tmp_path, "a-name-of-a-recipe")
    for name in ("loss", "accuracy", "dynamics"):
        picture = np.asarray(Image.open(tmp_path / f"{name}.png").convert("L"))
        edges = np.concatenate([picture[0], picture[-1], picture[:, 0], picture[:, -1]])
        assert (edges == 255).all() and (picture < 255).any(), name


def test_pyplot_and_its_global_state_are_left_alone(tmp_path: Path) -> None:
    before = "matplotlib.pyplot" in sys.modules
    draw_curves(METRICS, tmp_path, "tiny")
    assert ("matplotlib.pyplot" in sys.modules) == before


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "curves").write_text("a file")
    with pytest.raises(PrismaError, match="could not write"):
        draw_curves(METRICS, tmp_path / "curves", "tiny")


def test_a_loss_of_zero_has_a_place_on_the_logarithmic_axis(tmp_path: Path) -> None:
    nothing = dict.fromkeys(("loss", "train_loss", "test_loss"), 0.0)
    draw_curves([{**line, **{key: 0.0 for key in nothing if key in line}} for line in METRICS], tmp_path, "tiny")
    assert (tmp_path / "dynamics.png").stat().st_size > 5000
