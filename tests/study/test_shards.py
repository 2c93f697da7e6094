"""However a data set is cut into shards, stopped and shared among processes, the result is the same."""

import json
import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from prisma import PrismaError
from prisma.analysis.patching.activation_patching import ActivationPatching
from prisma.study import shards
from prisma.study.catalog import ANALYSES
from prisma.study.inputs import ShardInputs
from prisma.study.shards import Study, fingerprint, run_study
from tests import processes
from tests.study.study import study_of
from tests.variants import model_of

DRAWN_BY_SHARD = {"causal_tracing"}
"""Whose noise is drawn for a shard, so that sizes of shards change it."""


def run(study: Study, **options: object) -> dict[str, object]:
    return run_study(study, progress=False, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", sorted(set(ANALYSES) - DRAWN_BY_SHARD))
def test_shards_add_up_to_one_call_on_all_images(name: str, tmp_path: Path) -> None:
    study = study_of(name, tmp_path / "out")
    summary = run(study)
    whole = ANALYSES[name].function(ShardInputs(study.model, study.pictures, range(5), study.options))
    joined = ANALYSES[name].result.from_npz(tmp_path / "out" / "result.npz")
    assert sorted(path.name for path in (tmp_path / "out").glob("shard-*")) == [f"shard-0000{i}.npz" for i in range(3)]
    assert summary["images"] == 5
    assert joined.axes == whole.axes
    for array, values in whole.arrays.items():
        torch.testing.assert_close(joined.arrays[array], values, rtol=1e-9, atol=1e-9, equal_nan=True)


def test_what_is_drawn_for_a_shard_follows_its_first_image(tmp_path: Path) -> None:
    first, again = (run(study_of("causal_tracing", tmp_path / out, samples="2")) for out in "ab")
    assert first == again
    found = json.loads((tmp_path / "a" / "summary.json").read_text())["arrays"]["indirect"]
    assert found["shape"] == [5, 2, 3] and found["axes"] == ["image", "layer", "role"]


def test_a_second_run_does_only_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study, done = study_of("rollout", tmp_path / "out"), list[range]()
    analysis = ANALYSES["rollout"]
    counted = replace(analysis, function=lambda x: (done.append(x.rows), analysis.function(x))[1])
    monkeypatch.setattr(shards, "analysis", lambda name: counted)
    summary = run(study)
    assert done == [range(2), range(2, 4), range(4, 5)]
    assert run(study) == summary and len(done) == 3
    for name in ("summary.json", "shard-00001.npz"):
        (study.out / name).unlink()
    assert run(study) == summary
    assert done[3:] == [range(2, 4)]


def test_other_settings_are_refused_and_the_first_is_named(tmp_path: Path) -> None:
    run(study_of("rollout", tmp_path / "out"))
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    others = {
        "residual=0.5, and this one has 0.25": study_of("rollout", tmp_path / "out", residual="0.25"),
        "pictures=5, and this one has 4": study_of("rollout", tmp_path / "out", n=4),
        "shard_size=2, and this one has 3": study_of("rollout", tmp_path / "out", shard_size=3),
        "analysis='rollout', and this one has 'artifacts'": study_of("artifacts", tmp_path / "out"),
        "model_sha256='": study_of("rollout", tmp_path / "out", variant="registers"),
    }
    for sentence, study in others.items():
        with pytest.raises(PrismaError, match=sentence):
            run(study)
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_a_start_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(PrismaError, match=r"attn\.nowhere"):
        run(study_of("activation_patching", tmp_path / "out", site="attn.nowhere"))
    assert not list(tmp_path.iterdir())
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").write_text("mine")
    with pytest.raises(PrismaError, match=r"new or empty folder .*; use another --out"):
        run(study_of("activation_patching", tmp_path / "thesis"))
    assert [path.name for path in tmp_path.rglob("*")] == ["thesis", "thesis.tex"]
    with pytest.raises(PrismaError, match="at least one image; found 0"):
        run(study_of("activation_patching", tmp_path / "out", shard_size=0))


def slowly(out: Path) -> None:
    """An analysis whose third shard never ends."""
    study = study_of("activation_patching", out, shard_size=1)
    read = study.pictures.read

    def stuck(rows: Sequence[int]) -> Tensor:
        if (out / "shard-00001.npz").exists():
            time.sleep(600)
        return read(rows)

    run(replace(study, pictures=replace(study.pictures, read=stuck)))


def test_killed_it_goes_on_from_the_last_whole_shard(tmp_path: Path) -> None:
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
    run(study_of("activation_patching", out, shard_size=1))
    run(study_of("activation_patching", tmp_path / "whole"))
    assert (out / "shard-00000.npz").stat().st_mtime_ns == kept
    resumed, whole = (ActivationPatching.from_npz(folder / "result.npz").values for folder in (out, tmp_path / "whole"))
    torch.testing.assert_close(resumed, whole, rtol=1e-12, atol=1e-12)


def test_one_run_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = study_of("rollout", tmp_path / "out")
    sentences = []

    def again(*_: object) -> None:
        with pytest.raises(PrismaError, match="the only one to analyze") as error:
            run(study)
        sentences.append(str(error.value))
        raise KeyboardInterrupt

    monkeypatch.setattr(shards, "_work", again)
    with pytest.raises(KeyboardInterrupt):
        run(study)
    assert len(sentences) == 1


def test_the_fingerprint_sees_every_weight() -> None:
    model = model_of("base")
    before = fingerprint(model)
    assert before == fingerprint(model_of("base"))
    with torch.no_grad():
        model.readout.head.bias[3] += 1e-6
    assert fingerprint(model) != before
