"""Files that version 0.1.0 wrote are still read: results, tuned lenses, checkpoints, and runs to resume and publish."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from prisma import PrismaError
from prisma.analysis.lens.tuned_lens import TunedLens, read_tuned_lens
from prisma.analysis.patching.ablation import Ablation
from prisma.checkpoint import CONFIG, config_from_dict
from prisma.files import read_json, write_json
from prisma.publish import publish
from prisma.recipes import recipe
from prisma.run_folder import RECIPE, RESULTS, checkpoint_folders
from prisma.train import train
from tests.conftest import SMALL
from tests.run_edits import without_hashes

OLD = {"head_dim": None}  # of an architecture: today `d_head`, which holds d_model / n_heads


def as_of_0_1_0(path: Path, *keys: str) -> None:
    """Rewrite a JSON file with the architecture; found below `keys`, in the words of 0.1.0."""
    content = read_json(path)
    architecture = content
    for key in keys:
        architecture = architecture[key]
    del architecture["d_head"]
    architecture |= OLD
    write_json(path, content)


def test_a_saved_result(tmp_path: Path) -> None:
    metadata = {"analysis": "ablation", "axis": "head"}
    found = Ablation(metadata=metadata, values=torch.ones(2, 3, 4), clean=torch.zeros(2))
    with np.load(found.to_npz(tmp_path / "new.npz")) as file:
        arrays = {{"__metadata__": "__produced__"}.get(name, name): file[name] for name in file.files}
    np.savez(tmp_path / "old.npz", **arrays)
    again = Ablation.from_npz(tmp_path / "old.npz")
    assert again.metadata == metadata and torch.equal(again.effect, found.effect)


def test_a_tuned_lens(tmp_path: Path) -> None:
    metadata = {"analysis": "tuned_lens", "steps": 1}
    lens = TunedLens(metadata=metadata, losses=torch.ones(1, 2), weight=torch.ones(2, 3, 3), bias=torch.ones(2, 3))
    lens.write(tmp_path / "lens")
    path = tmp_path / "lens" / "tuned_lens.json"
    content = json.loads(path.read_text())
    content["produced"] = content.pop("metadata")
    path.write_text(json.dumps(content))
    assert read_tuned_lens(tmp_path / "lens").metadata == metadata


def test_an_architecture() -> None:
    today = recipe("digits").model
    fields = {name: value for name, value in vars(today).items() if name != "d_head"}
    assert config_from_dict({**fields, "head_dim": None}, "config.json") == today
    wide = replace(today, d_head=7)
    assert config_from_dict({**fields, "head_dim": 7}, "config.json") == wide


def test_a_run_is_resumed_and_published(run: Path, tmp_path: Path) -> None:
    """Its earlier checkpoints have the old words, the later ones the new."""
    final = (run / "model.safetensors").read_bytes()
    content = read_json(run / RECIPE)
    for folder in checkpoint_folders(run)[:-1]:
        as_of_0_1_0(folder / CONFIG, "architecture")
    as_of_0_1_0(run / RECIPE, "model")
    without_hashes(run)
    (run / RESULTS).unlink()
    with pytest.warns(UserWarning, match="recorded no hashes"):
        train(recipe("digits").override(SMALL), run, resume=True, progress=False)
    assert read_json(run / RECIPE)["run"] == content["run"]
    assert (run / "model.safetensors").read_bytes() == final
    assert publish(run, "lab/old", tmp_path / "hub", progress=False).changed
    with pytest.raises(PrismaError, match=r"to have model\.n_layers=2; found 1"):
        train(recipe("digits").override({**SMALL, "n_layers": "2"}), run, resume=True, progress=False)
