"""The recipe of MNIST: its size, and that it trains on files in the set's format, whose place stays out of the run."""

import json
import sys
from pathlib import Path

import pytest

from prisma.cli import main
from prisma.recipes import recipe
from prisma.run_folder import read_recipe
from tests.data.test_mnist import a_set


def test_it_has_the_sizes_of_vit_prismas_settings() -> None:
    m = recipe("mnist").model
    assert (m.image_size, m.patch_size, m.n_tokens, m.d_model, m.n_heads, m.n_layers, m.d_mlp) == (
        28, 7, 17, 128, 4, 4, 512,
    )  # fmt: skip
    assert recipe("mnist").expected_accuracy is None


def test_it_trains_on_a_folder_of_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "somewhere").mkdir()
    a_set(tmp_path / "somewhere")
    settings = [word for s in ("steps=2", "warmup=1", "batch_size=4", "n_layers=1") for word in ("--set", s)]
    command = ["prisma", "train", "mnist", *settings, "--out", str(tmp_path / "run"), "--json"]
    monkeypatch.setattr(sys, "argv", [*command, "--data", str(tmp_path / "somewhere")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    results = json.loads(capsys.readouterr().out)
    assert [row["n"] for row in results["results"][:2]] == [20, 30]
    stated = read_recipe(tmp_path / "run")
    assert stated["task"]["name"] == "mnist" and stated["task"]["images"] == {"train": 30, "test": 20}
    assert stated["command"].endswith("--data PATH")
    assert "somewhere" not in (tmp_path / "run" / "recipe.json").read_text()
    monkeypatch.setattr(sys, "argv", [*command[:-3], "--out", str(tmp_path / "other")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code and "expected the place of the data of mnist" in capsys.readouterr().err
