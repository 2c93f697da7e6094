"""`prisma import`: an old checkpoint becomes a folder that `prisma.load` reads, for the recipe's task or not at all."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import prisma
from prisma import PrismaError
from prisma.cli import main
from prisma.data import task
from prisma.recipes import recipe
from prisma.recipes.importing import import_mouse
from tests.pretrained.test_vit_prisma import OldViT, old

FIELDS = {"image": 32, "patch": 8, "width": 32, "heads": 4, "layers": 1, "attention_only": True, "classes": 4}
LIKE = recipe("induction").override({"n_heads": "4"})


@pytest.fixture
def mouse(tmp_path: Path) -> tuple[Path, OldViT]:
    """An induction mouse as they trained them, narrower."""
    model = old(**FIELDS).float()
    torch.save({"model_state_dict": model.state_dict()}, tmp_path / "model_64.pth")
    return tmp_path / "model_64.pth", model


def test_an_imported_mouse_loads_and_answers_like_the_old_one(mouse: tuple[Path, OldViT], tmp_path: Path) -> None:
    path, model = mouse
    config = import_mouse(path, LIKE, tmp_path / "out")
    loaded = prisma.load(tmp_path / "out")
    assert loaded.config == config
    assert loaded.labels == task("induction").labels
    assert loaded.transform == task("induction").transform
    picture = np.random.default_rng(0).random((32, 32)).astype(np.float32)
    images = loaded.transform(picture)[None]
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(images), model(images), rtol=1e-5, atol=1e-5)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["config.json", "model.safetensors"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [({"classes": 5}, "n_classes to be 4 for the task induction; found 5"), ({"channels": 3}, "channels to be 1")],
)
def test_a_mouse_of_another_task_is_refused(changes: dict[str, int], sentence: str, tmp_path: Path) -> None:
    torch.save(old(**{**FIELDS, **changes}).state_dict(), tmp_path / "old.pth")
    with pytest.raises(PrismaError, match=sentence):
        import_mouse(tmp_path / "old.pth", LIKE, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_full_folder_is_left_alone(mouse: tuple[Path, OldViT], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("mine")
    with pytest.raises(PrismaError, match="expected a new or empty folder"):
        import_mouse(mouse[0], LIKE, tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["thesis.tex"]


def test_the_command_line_does_it(
    mouse: tuple[Path, OldViT], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(*options: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["prisma", "import", str(path), "--like", "induction", *options])
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0), *capsys.readouterr()

    path, _ = mouse
    code, out, err = command("--set", "n_heads=4", "--json")
    assert code == 0, err
    answer = json.loads(out)
    assert answer["folder"] == str(path.with_suffix(""))
    assert answer["architecture"]["n_heads"] == 4
    assert prisma.load(answer["folder"]).config.d_model == 32
    code, _, err = command()
    assert (code, len(err.strip().splitlines())) == (1, 1)
    assert "expected a new or empty folder" in err
