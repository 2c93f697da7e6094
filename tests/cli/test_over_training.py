"""`prisma analyze --revisions`: every checkpoint of a run folder or of a published mouse, and what changed."""

import json
from pathlib import Path

import pytest
import torch

import prisma as library
from prisma import checkpoint, loaded
from prisma.cli.analyze import _Asked
from prisma.cli.over_training import At, checkpoints_of
from prisma.data import pictures, task
from prisma.errors import NotFiniteError
from prisma.launched import Processes
from prisma.study.trajectory import Trajectory
from tests.cli.running import Prisma, one_sentence

STEPS = [0, 1, 2, 4, 6]
DIGITS = ("--images", "digits", "--limit", "6", "--device", "cpu")


def test_every_checkpoint_of_a_published_mouse_is_analysed(prisma: Prisma, hub: Path, tmp_path: Path) -> None:
    arguments = ("analyze", "logit_lens", "--model", "lab/tiny", "--hub", str(hub), *DIGITS, "--revisions", "all")
    code, out, err = prisma(*arguments, "--array", "divergence", "--out", "mine")
    assert code == 0, err
    assert "logit_lens: divergence at 5 checkpoints, in mine" in out and "changes at step" in out
    found = Trajectory.from_npz(tmp_path / "mine" / "trajectory.npz")
    assert found.metadata["steps"] == STEPS and found.metadata["axes"] == ["stage"]
    images = task("digits").inputs("test", 6)[0]
    for i, step in enumerate(STEPS):
        model = library.load("lab/tiny", f"step-{step:06d}", hub).model
        expected = library.logit_lens(model, images).divergence.double().mean(0)
        torch.testing.assert_close(found.mean[i], expected, rtol=1e-4, atol=1e-6)
    assert found.jump[-1] == 0 and "stage 1  no single step" in out, (
        "what the model answers itself is as far from it at every step"
    )
    kept = json.loads((tmp_path / "mine" / "step-000004" / "analysis.json").read_text())
    assert not (tmp_path / "mine" / "step-000004" / "plot.png").exists(), "a plot takes longer than the analysis"
    assert (kept["model"], kept["revision"]) == ("lab/tiny", "step-000004")
    assert (tmp_path / "mine" / "trajectory.png").stat().st_size > 1000
    assert prisma(*arguments, "--array", "divergence", "--out", "mine")[1] == out, "a second run reads what is there"


def test_some_checkpoints_of_a_run_folder(prisma: Prisma, run: Path, tmp_path: Path) -> None:
    arguments = ("analyze", "rollout", "--model", str(run), *DIGITS, "--revisions", "step-000006, step-000001")
    code, out, err = prisma(*arguments, "--json", "--out", "mine")
    assert code == 0, err
    rows = json.loads(out)["rollout"]
    steps = {row["changes at step"] for row in rows}
    assert "6 (6 to 6)" in steps and steps <= {"6 (6 to 6)", "no single step"}
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == [
        "step-000001", "step-000006", "trajectory.npz", "trajectory.png",
    ]  # fmt: skip
    assert [at.label for at in checkpoints_of(str(run), None, "all")] == [f"step-{step:06d}" for step in STEPS]


def test_what_has_no_checkpoints_is_refused(prisma: Prisma, run: Path) -> None:
    for model in ("mice/digits", "timm/vit_tiny_patch16_224"):
        code, _, err = prisma("analyze", "rollout", "--model", model, *DIGITS, "--revisions", "all")
        assert code == 1 and "expected a published mouse or a run folder with checkpoints for --revisions" in err
        assert model in one_sentence(err)
    code, _, err = prisma("analyze", "rollout", "--model", str(run), *DIGITS, "--revisions", "step-000005")
    assert code == 1 and "found 'step-000005'; the nearest: step-000" in one_sentence(err)
    twice = "step-000002,step-000002"
    code, _, err = prisma("analyze", "rollout", "--model", str(run), *DIGITS, "--revisions", twice, "--out", "mine")
    assert code == 1 and "expected two revisions or more, to see what changed between them; found" in one_sentence(err)
    code, _, err = prisma("analyze", "rollout", "--model", str(run), *DIGITS, "--array", "map")
    assert code == 1 and "expected --array together with --revisions; found it alone" in one_sentence(err)


def test_a_wrong_array_is_refused_before_anything_runs(prisma: Prisma, run: Path, tmp_path: Path) -> None:
    arguments = ("analyze", "rollout,head_scores", "--model", str(run), *DIGITS, "--revisions", "all", "--out", "mine")
    code, _, err = prisma(*arguments, "--array", "maps")
    assert code == 1 and not (tmp_path / "mine").exists()
    assert "expected an array of rollout with an image axis; found 'maps'; the nearest: " in one_sentence(err)
    code, _, err = prisma("analyze", "modularity", "--model", str(run), "--revisions", "all", "--out", "mine")
    assert code == 1 and not (tmp_path / "mine").exists()
    assert "expected an array of modularity with an image axis" in one_sentence(err)


def test_an_array_that_these_options_leave_out_is_refused_after_one_checkpoint(
    prisma: Prisma, run: Path, tmp_path: Path
) -> None:
    arguments = ("analyze", "logit_lens", "--model", str(run), *DIGITS, "--revisions", "all", "--out", "mine")
    code, _, err = prisma(*arguments, "--array", "tokens")
    assert code == 1 and "found 'tokens'; the nearest: " in one_sentence(err)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["step-000000"]


def test_weights_and_pictures_are_read_once_for_several_analyses(
    prisma: Prisma, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, rows = list[str](), list[str]()
    read, of_task = loaded.read_checkpoint, pictures._of_task
    monkeypatch.setattr(loaded, "read_checkpoint", lambda folder: weights.append(folder.name) or read(folder))
    monkeypatch.setattr(pictures, "_of_task", lambda *asked: rows.append(asked[0]) or of_task(*asked))
    arguments = ("analyze", "rollout,head_scores,logit_lens", "--model", str(run), *DIGITS, "--revisions", "all")
    code, _, err = prisma(*arguments, "--out", "mine")
    assert code == 0, err
    assert weights == [f"step-{step:06d}" for step in STEPS] and rows == ["digits"]


def test_a_checkpoint_that_has_diverged_is_named_and_left_out(prisma: Prisma, run: Path, tmp_path: Path) -> None:
    damaged = checkpoint.read_checkpoint(run / "checkpoints" / "step-000002")
    arguments = ("analyze", "rollout", "--model", str(run), *DIGITS, "--revisions", "all", "--out", "mine")
    file = run / "checkpoints" / "step-000002" / checkpoint.WEIGHTS
    before = file.read_bytes()
    damaged.model.embed.patch.weight.data[0, 0] = torch.nan
    file.write_bytes(checkpoint.to_safetensors(damaged.model.state_dict(), damaged.header))
    code, out, err = prisma(*arguments)
    assert code == 0, err
    assert "prisma: step-000002 is left out: expected finite weights in " in err and "embed.patch.weight has NaN" in err
    assert "at 4 checkpoints, in mine; not finite, and left out: step-000002\n" in out
    assert not (tmp_path / "mine" / "step-000002").exists()
    left = Trajectory.from_npz(tmp_path / "mine" / "trajectory.npz")
    assert left.metadata["steps"] == STEPS and left.metadata["missing"] == [2] and 2 not in left.change
    assert left.mean[2].isnan().all() and not left.mean[[0, 1, 3, 4]].isnan().any()
    assert json.loads(prisma(*arguments, "--json")[1])["left out"] == ["step-000002"]
    code, _, err = prisma(*arguments, "--revisions", "step-000001,step-000002")
    assert code == 1 and err.endswith("prisma: expected the results of two checkpoints or more; found 1\n")
    file.write_bytes(before)
    assert prisma(*arguments)[0] == 0, "the same command goes on"
    whole = Trajectory.from_npz(tmp_path / "mine" / "trajectory.npz")
    assert whole.metadata["steps"] == STEPS and not whole.metadata["missing"]
    assert torch.equal(whole.mean[[0, 1, 3, 4]], left.mean[[0, 1, 3, 4]])


def test_a_damaged_revision_of_a_hub_is_named(prisma: Prisma, hub: Path) -> None:
    refs = hub / "models--lab--tiny" / "refs"
    (refs / "step-000004").unlink()
    arguments = ("analyze", "rollout", "--model", "lab/tiny", "--hub", str(hub), *DIGITS, "--revisions", "all")
    code, _, err = prisma(*arguments, "--out", "mine")
    assert code == 1 and "step-000004" in one_sentence(err)


def test_a_checkpoint_that_diverged_is_named_among_several_processes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """There it cannot be left out: the others wait for its results."""

    def diverged(*_: object) -> None:
        raise NotFiniteError("expected finite weights; found nan")

    monkeypatch.setattr(_Asked, "_analysed", diverged)
    asked = _Asked({"rollout": {}}, "run", None, None, "", None, None, 64, None)
    at = At(4, "step-000004", "run", None)
    with pytest.raises(NotFiniteError, match=r"^step-000004: expected finite weights; found nan$"):
        asked._at(at, Processes(0, 2), {})
    assert asked._at(at, Processes(), {}) == {"rollout": None}
