"""One training up to a step, in the folder from which the next goes on."""

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from prisma.recipes import recipe
from prisma.run_folder import is_finished, read_metrics, read_results
from prisma.smallest.trial import Work, carry_out
from prisma.train import train


def test_it_stops_at_the_step_and_goes_on_to_the_bits_of_one_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prisma.train.finish.draw_curves", lambda *_: None)
    settings = {"steps": "12", "checkpoint_every": "4", "warmup": "2", "batch_size": "16", "n_layers": "1"}
    short = recipe("digits").override(settings)
    work = Work(short, settings, tmp_path / "parts", 4, time.time() + 600, "cpu")
    assert replace(work, until=0.0).known is None and carry_out(replace(work, until=0.0)) is None
    assert not work.out.exists(), "there was no time"
    at_4 = carry_out(work)
    assert [line["step"] for line in read_metrics(work.out / "metrics.jsonl")] == [0, 1, 2, 3, 4]
    assert at_4 == work.known == read_metrics(work.out / "metrics.jsonl")[-1]["test_accuracy"]
    whole = replace(work, steps=12)
    assert whole.known is None and not is_finished(work.out)
    assert carry_out(replace(whole, until=0.0)) is None
    assert carry_out(replace(work, until=0.0)) == at_4, "what is known needs no time"
    train(short, tmp_path / "once", device="cpu", progress=False)
    assert carry_out(whole) == whole.known == read_results(tmp_path / "once")["results"][0]["value"]
    assert carry_out(work) == at_4
    for name in ("model.safetensors", "metrics.jsonl"):
        assert (work.out / name).read_bytes() == (tmp_path / "once" / name).read_bytes()
    assert work.command == "prisma train digits " + " ".join(f"--set {key}={value}" for key, value in settings.items())


def test_a_run_that_ends_early_has_the_accuracy_of_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prisma.train.finish.draw_curves", lambda *_: None)
    settings = {"steps": "12", "checkpoint_every": "4", "warmup": "2", "batch_size": "16", "n_layers": "1"}
    early = {"patience": "1", "stop_on": "train_accuracy", "lr": "1e-12"}
    work = Work(recipe("digits").override(settings | early), {}, tmp_path / "run", 12, time.time() + 600, "cpu")
    at_the_end = carry_out(work)
    last = read_metrics(work.out / "metrics.jsonl")[-1]
    assert last["step"] < 4 and at_the_end == last["test_accuracy"]
    assert at_the_end == replace(work, steps=8).known == replace(work, until=0.0).known


def test_the_torn_line_of_a_killed_run_does_not_count(tmp_path: Path) -> None:
    lines = [{"step": step, "test_accuracy": 0.25 * step} for step in range(3)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines)[:-5])
    work = Work(recipe("digits"), {}, tmp_path, 1, time.time() + 600, "cpu")
    assert work.known == 0.25 and replace(work, steps=2).known is None
