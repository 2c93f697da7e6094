"""The result is the same however a data set is divided into shards, stopped, or shared among processes."""

import json
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from prisma import PrismaError
from prisma.analysis.patching.activation_patching import ActivationPatching
from prisma.study import shards, together
from prisma.study.catalog import ANALYSES
from prisma.study.inputs import ShardInputs
from prisma.study.shards import DatasetAnalysis, model_hash, run_dataset_analysis
from tests import processes
from tests.study.study import job_of
from tests.study.test_catalog import GIVEN
from tests.variants import model_of

RANDOM_BY_SHARD = {"causal_tracing"}
"""Analyses whose noise has one seed per shard, so that their results depend on the shard size."""


def run(job: DatasetAnalysis, **options: object) -> dict[str, object]:
    return run_dataset_analysis(job, progress=False, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", sorted(set(ANALYSES) - RANDOM_BY_SHARD))
def test_shards_add_up_to_one_call_on_all_images(name: str, tmp_path: Path) -> None:
    job = job_of(name, tmp_path / "out", **GIVEN.get(name, {}))
    summary = run(job)
    whole = ANALYSES[name].function(ShardInputs(job.model, job.pictures, range(5), job.options))
    joined = ANALYSES[name].result.from_npz(tmp_path / "out" / "result.npz")
    assert sorted(path.name for path in (tmp_path / "out").glob("shard-*")) == [f"shard-0000{i}.npz" for i in range(3)]
    assert summary["images"] == 5
    assert joined.axes == whole.axes
    for array, values in whole.arrays.items():
        torch.testing.assert_close(joined.arrays[array], values, rtol=1e-9, atol=1e-9, equal_nan=True)


def test_noise_of_a_shard_depends_on_its_first_image(tmp_path: Path) -> None:
    first, again = (run(job_of("causal_tracing", tmp_path / out, samples="2")) for out in "ab")
    assert first == again
    found = json.loads((tmp_path / "a" / "summary.json").read_text())["arrays"]["indirect"]
    assert found["shape"] == [5, 2, 3] and found["axes"] == ["image", "layer", "role"]


def test_a_second_run_does_only_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job, done = job_of("rollout", tmp_path / "out"), list[range]()
    analysis = ANALYSES["rollout"]
    counted = replace(analysis, function=lambda x: (done.append(x.rows), analysis.function(x))[1])
    monkeypatch.setattr(together, "analysis", lambda name: counted)
    summary = run(job)
    assert done == [range(2), range(2, 4), range(4, 5)]
    assert run(job) == summary and len(done) == 3
    for name in ("summary.json", "shard-00001.npz"):
        (job.out / name).unlink()
    assert run(job) == summary
    assert done[3:] == [range(2, 4)]


def test_other_settings_are_refused_and_the_first_is_named(tmp_path: Path) -> None:
    run(job_of("rollout", tmp_path / "out"))
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    others = {
        "residual=0.5; this one has 0.25": job_of("rollout", tmp_path / "out", residual="0.25"),
        "images=5; this one has 4": job_of("rollout", tmp_path / "out", n=4),
        "shard_size=2; this one has 3": job_of("rollout", tmp_path / "out", shard_size=3),
        "analysis='rollout'; this one has 'artifacts': use another --out": job_of("artifacts", tmp_path / "out"),
        "model_sha256='": job_of("rollout", tmp_path / "out", variant="registers"),
    }
    for sentence, other in others.items():
        with pytest.raises(PrismaError, match=sentence):
            run(other)
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_the_progress_bar_counts_images_on_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_dataset_analysis(job_of("rollout", tmp_path / "out"))
    captured = capsys.readouterr()
    assert captured.out == "" and "rollout: 100%" in captured.err and "5/5" in captured.err


def test_a_failed_start_leaves_no_files(tmp_path: Path) -> None:
    with pytest.raises(PrismaError, match=r"attn\.nowhere"):
        run(job_of("activation_patching", tmp_path / "out", site="attn.nowhere"))
    assert not list(tmp_path.iterdir())
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("mine")
    with pytest.raises(PrismaError, match=r"new or empty folder .*; use another --out"):
        run(job_of("activation_patching", tmp_path / "thesis"))
    assert [path.name for path in tmp_path.rglob("*")] == ["thesis", "thesis.tex"]
    with pytest.raises(PrismaError, match="one image or more; found shard_size=0 and batch=None"):
        run(job_of("activation_patching", tmp_path / "out", shard_size=0))
    with pytest.raises(PrismaError, match="one image or more; found shard_size=2 and batch=0"):
        run(job_of("activation_patching", tmp_path / "out"), batch=0)


def slowly(out: Path) -> None:
    """An analysis whose third shard never ends."""
    job = job_of("activation_patching", out, shard_size=1)
    read = job.pictures.read

    def stuck(rows: Sequence[int]) -> Tensor:
        if (out / "shard-00001.npz").exists():
            time.sleep(600)
        return read(rows)

    run(replace(job, pictures=replace(job.pictures, read=stuck)))


def test_a_killed_run_continues_after_the_last_complete_shard(tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = processes.context().Process(target=slowly, args=(out,))
    process.start()
    deadline = time.monotonic() + 120
    while not (out / "shard-00001.npz").exists():
        assert process.is_alive() and time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    assert processes.ended(process) == -signal.SIGKILL
    kept = (out / "shard-00000.npz").stat().st_mtime_ns
    run(job_of("activation_patching", out, shard_size=1))
    run(job_of("activation_patching", tmp_path / "whole"))
    assert (out / "shard-00000.npz").stat().st_mtime_ns == kept
    resumed, whole = (ActivationPatching.from_npz(folder / "result.npz").values for folder in (out, tmp_path / "whole"))
    torch.testing.assert_close(resumed, whole, rtol=1e-12, atol=1e-12)


def test_one_run_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = job_of("rollout", tmp_path / "out")
    sentences = []

    def again(*_: object) -> None:
        with pytest.raises(PrismaError, match="the only process to analyze") as error:
            run(job)
        sentences.append(str(error.value))
        raise KeyboardInterrupt

    monkeypatch.setattr(shards, "_compute_shards", again)
    with pytest.raises(KeyboardInterrupt):
        run(job)
    assert len(sentences) == 1


def test_the_model_hash_depends_on_architecture_and_every_weight() -> None:
    model = model_of("base")
    before = model_hash(model)
    assert before == model_hash(model_of("base"))
    with torch.no_grad():
        model.readout.head.bias[3] += 1e-6
    assert model_hash(model) != before
    same_weights = type(model)(replace(model.config, activation="relu"))
    same_weights.load_state_dict(model_of("base").state_dict())
    assert model_hash(same_weights) != before


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "an empty summary": (
        lambda out: (out / "summary.json").write_text("{}"),
        "the summary of an analysis in .*summary",
    ),
    "a scalar for arrays": (lambda out: edit(out / "summary.json", arrays=3), "the summary of an analysis in"),
    "a scalar for an array": (lambda out: edit(out / "summary.json", arrays={"x": 3}), "the summary of an analysis in"),
    "a scalar for files": (lambda out: edit(out / "summary.json", files=3), "the summary of an analysis in"),
    "a list of settings": (lambda out: edit(out / "analysis.json", settings=[]), "the settings of an analysis in"),
    "no settings": (lambda out: edit(out / "analysis.json", settings=None), "the settings of an analysis in"),
    "a torn shard": (lambda out: tear(out / "shard-00001.npz"), "a saved .* at .*shard-00001.npz; found"),
    "a copied shard": (
        lambda out: put(out / "shard-00000.npz", out / "shard-00001.npz"),
        "the shard for images 2 to 3 .* at .*shard-00001.npz; found 'images 0 to 1 ",
    ),
    "a shard of other settings": (
        lambda out: put(out.parent / "other" / "shard-00001.npz", out / "shard-00001.npz"),
        "the shard for images 2 to 3 .* at .*shard-00001.npz; found 'images 2 to 3 ",
    ),
}


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def tear(shard: Path) -> None:
    put(shard, shard, size=shard.stat().st_size // 2)


def put(source: Path, target: Path, size: int | None = None) -> None:
    target.write_bytes(source.read_bytes()[:size])
    (target.parent / "summary.json").unlink()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two finished analyses, `out` and `other`, which nobody may change."""
    folder = tmp_path_factory.mktemp("finished")
    run(job_of("rollout", folder / "out"))
    run(job_of("rollout", folder / "other", residual="0.25"))
    return folder


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_named_and_can_be_made_again(damage: str, finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    job = job_of("rollout", tmp_path / "out")
    summary = json.loads((job.out / "summary.json").read_text())
    spoil, sentence = DAMAGE[damage]
    spoil(job.out)
    with pytest.raises(PrismaError, match=rf"^expected {sentence}.*: remove (it and run|the folder)") as error:
        run(job)
    if "settings of an analysis" not in sentence:
        next(path for path in job.out.iterdir() if path.name in str(error.value)).unlink()
        assert run(job) == summary
