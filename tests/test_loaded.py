"""`prisma.load`: a folder, a published mouse, and one sentence for anything else."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import prisma
from prisma.checkpoint import CONFIG, WEIGHTS, read_tensors
from prisma.data import task
from prisma.data.transform import Transform
from prisma.errors import PrismaError
from prisma.repository import MICE, Published


def same_weights(loaded: prisma.Loaded, path: Path) -> bool:
    tensors, _ = read_tensors(path)
    return all(torch.equal(x, tensors[name]) for name, x in loaded.model.state_dict().items())


def test_a_folder(run: Path) -> None:
    for ref in (run, str(run)):
        loaded = prisma.load(ref)
        assert same_weights(loaded, run / WEIGHTS)
        assert loaded.labels == tuple("0123456789")
        assert isinstance(loaded.transform, Transform)
        assert loaded.config is loaded.model.config


def test_a_model_comes_ready_for_use(run: Path) -> None:
    loaded = prisma.load(run)
    assert not loaded.model.training
    assert not any(p.requires_grad for p in loaded.model.parameters())
    assert loaded.transform
    x = loaded.transform(np.zeros((20, 20), dtype=np.uint8))
    assert loaded.model(x[None]).shape == (1, 10)


def test_a_published_mouse_at_any_step(run: Path, hub: Path) -> None:
    assert same_weights(prisma.load("lab/tiny", hub=hub), run / WEIGHTS)
    assert same_weights(prisma.load("lab/tiny", hub=str(hub)), run / WEIGHTS)
    for step in (0, 1, 2, 4, 6):
        label = f"step-{step:06d}"
        assert same_weights(prisma.load("lab/tiny", label, hub), run / "checkpoints" / label / WEIGHTS)


def test_a_hub_wins_over_a_folder_of_the_same_name(
    run: Path, hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lab/tiny").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert same_weights(prisma.load("lab/tiny", hub=hub), run / WEIGHTS)


def test_a_mouse_of_the_package_by_its_name(hub: Path) -> None:
    loaded = prisma.load("mice/digits")
    assert same_weights(loaded, MICE / "digits" / WEIGHTS)
    assert loaded.labels == tuple("0123456789")
    assert loaded.transform == task("digits").transform
    with pytest.raises(PrismaError, match="there is no mouse 'mice/digit' in this package; the nearest: mice/digits"):
        prisma.load("mice/digit")
    with pytest.raises(
        PrismaError,
        match=r"expected no revision for mice/digits, which is on this machine; found revision='step-000064'",
    ):
        prisma.load("mice/digits", "step-000064")
    with pytest.raises(PrismaError, match=r"not published .* lab/tiny"):
        prisma.load("mice/digits", hub=hub)


def test_loading_leaves_the_random_numbers_alone(run: Path) -> None:
    before = torch.random.get_rng_state()
    prisma.load(run)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_folder_has_no_revisions(run: Path) -> None:
    with pytest.raises(PrismaError, match=r"expected no revision for .*; found revision='main'"):
        prisma.load(run, revision="main")


@pytest.mark.parametrize(
    ("ref", "revision", "sentence"),
    [
        ("lab/tyni", None, "not published .* lab/tiny"),
        ("lab/tiny", "step-9", "no revision 'step-9'; the nearest: step-000"),
        ("not a name", None, "expected OWNER/NAME .* 'not a name'"),
    ],
)
def test_what_is_not_published_is_one_sentence(hub: Path, ref: str, revision: str | None, sentence: str) -> None:
    with pytest.raises(PrismaError, match=sentence):
        prisma.load(ref, revision, hub)


def test_a_folder_that_is_no_checkpoint_is_one_sentence(run: Path, tmp_path: Path) -> None:
    with pytest.raises(PrismaError, match="expected a checkpoint folder"):
        prisma.load(tmp_path / "absent")
    (run / CONFIG).unlink()
    with pytest.raises(PrismaError, match=r"expected a checkpoint folder with config\.json"):
        prisma.load(run)


def test_damaged_weights_are_one_sentence(hub: Path) -> None:
    weights = hub / "models--lab--tiny/refs/step-000002"
    blob = (hub / "models--lab--tiny/snapshots" / weights.read_text() / WEIGHTS).resolve()
    blob.write_bytes(blob.read_bytes()[:50])
    with pytest.raises(PrismaError, match="whole safetensors weights"):
        prisma.load("lab/tiny", "step-000002", hub)


def test_a_transform_to_other_pictures_than_the_model_takes_is_refused(run: Path) -> None:
    config = json.loads((run / CONFIG).read_text())
    config["transform"]["size"] = [16, 16]
    (run / CONFIG).write_text(json.dumps(config))
    with pytest.raises(PrismaError, match=r"expected a transform whose output .*\(8, 8\).*; found \(\(16, 16\), 1\)"):
        prisma.load(run)


@pytest.mark.parametrize(
    ("ref", "sentence"),
    [
        ("/absent/folder", "expected a checkpoint folder"),
        ("./absent", "expected a checkpoint folder"),
        (3, "expected a folder, a name or a module.*found 3"),
        (torch.nn.Linear(1, 1), "expected a model of a class that Prisma reads.*found torch.nn.modules.linear.Linear"),
    ],
)
def test_what_cannot_be_loaded_is_said_at_once(ref: Any, sentence: str) -> None:
    with pytest.raises(PrismaError, match=sentence):
        prisma.load(ref)


def test_a_model_of_another_library_in_the_hub_is_told_its_name(hub: Path) -> None:
    config = Published("lab/tiny", hub).file("config.json")
    config.unlink()
    config.write_text('{"model_type": "vit"}')
    with pytest.raises(PrismaError, match="found a model of transformers: load it as hf/lab/tiny"):
        prisma.load("lab/tiny", hub=hub)


def test_a_file_is_not_a_folder(run: Path) -> None:
    with pytest.raises(PrismaError, match="found a file"):
        prisma.load(run / "config.json")


def test_a_live_model_is_in_no_hub(hub: Path) -> None:
    with pytest.raises(PrismaError, match=r"expected no hub for a live Linear; found hub='.*hub'"):
        prisma.load(torch.nn.Linear(1, 1), hub=hub)


def test_a_hub_is_a_folder() -> None:
    with pytest.raises(PrismaError, match="expected a folder as the hub, or None; found 3"):
        prisma.load("lab/tiny", hub=3)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [8, (8, 8), [8, 8]])
def test_a_checkpoint_has_its_image_size(run: Path, size: Any) -> None:
    assert prisma.load(run, image_size=size).config.image_sides == (8, 8)
    with pytest.raises(PrismaError, match=r"was trained, \(8, 8\); found image_size=16"):
        prisma.load(run, image_size=16)


@pytest.mark.parametrize(("revision", "hub"), [("", None), (None, ""), ("", "hub")])
def test_an_empty_revision_or_hub_is_refused(revision: str | None, hub: str | None) -> None:
    with pytest.raises(PrismaError, match=f"expected a revision and a hub, or None; found revision={revision!r}"):
        prisma.load("lab/tiny", revision, hub)


def test_a_model_of_prisma_needs_no_loading() -> None:
    with pytest.raises(PrismaError, match=r"a module of another library; found a prisma.ViT"):
        prisma.load(prisma.load("mice/digits").model)
