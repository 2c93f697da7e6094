import os
import signal
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest

from prisma.errors import PrismaError
from prisma.files import read_json, write_json
from prisma.run_folder import read_metrics
from prisma.train import Recipe, train
from prisma.train.metrics_log import MetricsLog
from prisma.train.tracking import note_page, numbers_in, tracking
from tests import processes

PAGE = "https://wandb.ai/lab/prisma/runs/1"


class FakeRun:
    url: str | None = PAGE

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.lines: list[dict[str, Any]] = []
        self.ended = False

    def log(self, values: dict[str, Any], step: int) -> None:
        self.lines.append({"step": step, **values})

    def __enter__(self) -> "FakeRun":
        return self

    def __exit__(self, *_: object) -> None:
        self.ended = True


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[FakeRun]:
    """What was sent to a wandb that only listens."""
    found: list[FakeRun] = []

    def init(**settings: Any) -> FakeRun:
        (Path(settings["dir"]) / "wandb" / "offline-run").mkdir(parents=True)  # as the real one does
        found.append(FakeRun(settings))
        return found[-1]

    fake = ModuleType("wandb")
    fake.__spec__ = ModuleSpec("wandb", None)
    fake.init = init  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return found


def test_wandb_gets_every_line_under_the_name_of_the_run(tiny: Recipe, tmp_path: Path, runs: list[FakeRun]) -> None:
    short = tiny.override({"steps": "3", "warmup": "1"})
    results = train(short, tmp_path / "run", use_wandb=True, device="cpu", progress=False)
    (run,) = runs
    metrics = read_metrics(tmp_path / "run" / "metrics.jsonl")
    assert run.lines == [{"step": line["step"], **numbers_in(line)} for line in metrics] and len(run.lines) == 4
    assert run.lines[-1]["heads/entropy/0.1"] == metrics[-1]["heads"]["entropy"][0][1]
    assert run.settings["id"] == results["run"] and run.settings["resume"] == "allow"
    assert run.settings["name"] == f"tiny-{results['run']}"
    assert run.settings["config"]["training"]["steps"] == 3
    assert run.ended
    assert read_json(tmp_path / "run" / "recipe.json")["wandb"] == PAGE


def test_a_run_without_a_page_notes_none(tiny: Recipe, tmp_path: Path, runs: list[FakeRun]) -> None:
    write_json(tmp_path / "recipe.json", {"run": "r"})
    note_page(tmp_path, None)
    assert read_json(tmp_path / "recipe.json") == {"run": "r"}
    with tracking((), {}, tmp_path) as (_, page):
        assert page is None


def test_it_is_not_touched_unless_asked_for(tiny: Recipe, tmp_path: Path, runs: list[FakeRun]) -> None:
    short = tiny.override({"steps": "2", "warmup": "1"})
    train(short, tmp_path / "run", device="cpu", progress=False)
    assert not runs


def test_asked_for_and_absent_it_is_a_sentence_before_anything_is_written(
    tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(PrismaError, match="expected the package wandb; found none"):
        train(tiny, tmp_path / "run", use_wandb=True, device="cpu", progress=False)
    assert not (tmp_path / "run").exists()


def test_without_a_login_it_is_a_sentence_and_the_run_is_not_begun(
    tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the real wandb."""
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    for name, value in {"WANDB_MODE": "online", "WANDB_BASE_URL": "http://127.0.0.1:9", "HOME": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    out = tmp_path / "runs" / "new"
    with pytest.raises(
        PrismaError, match=r"expected wandb to begin a run; found that it cannot \(.*\): log in with"
    ) as error:
        train(tiny, out, use_wandb=True, device="cpu", progress=False)
    assert "\n" not in str(error.value)
    assert not out.parent.exists()


def test_what_wandb_leaves_when_it_cannot_begin_is_removed(
    tiny: Recipe, tmp_path: Path, runs: list[FakeRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    def init(**settings: Any) -> FakeRun:
        (Path(settings["dir"]) / "wandb" / "logs").mkdir(parents=True)
        raise OSError("no network")

    listening = sys.modules["wandb"].init
    monkeypatch.setattr(sys.modules["wandb"], "init", init)
    short, out = tiny.override({"steps": "2", "warmup": "1"}), tmp_path / "run"
    settings: dict[str, Any] = {"use_wandb": True, "device": "cpu", "progress": False}
    with pytest.raises(PrismaError, match=r"cannot \(no network\)"):
        train(short, out, **settings)
    assert not out.exists()
    monkeypatch.setattr(sys.modules["wandb"], "init", listening)
    train(short, out, **settings)
    assert len(runs) == 1 and (out / "wandb" / "offline-run").is_dir()


def killed(recipe: Recipe, out: Path) -> None:
    """What a process does that is killed when wandb has begun and nothing of the run is written."""

    def init(**settings: Any) -> None:
        (Path(settings["dir"]) / "wandb" / "offline-run").mkdir(parents=True)
        os.kill(os.getpid(), signal.SIGKILL)

    fake = ModuleType("wandb")
    fake.__spec__ = ModuleSpec("wandb", None)
    fake.init = init  # type: ignore[attr-defined]
    sys.modules["wandb"] = fake
    train(recipe, out, use_wandb=True, device="cpu", progress=False)


def test_a_kill_when_only_wandb_has_begun_leaves_a_folder_to_begin_in(
    tiny: Recipe, tmp_path: Path, runs: list[FakeRun]
) -> None:
    short, out = tiny.override({"steps": "2", "warmup": "1"}), tmp_path / "run"
    child = processes.context().Process(target=killed, args=(short, out))
    child.start()
    assert processes.ended(child) == -signal.SIGKILL
    assert sorted(path.name for path in out.iterdir()) == [".lock", "wandb"]
    with pytest.raises(PrismaError, match=r"expected a run to resume at .*; found no recipe\.json; train without"):
        train(short, out, resume=True, use_wandb=True, device="cpu", progress=False)
    (out / "wandb" / "offline-run").rename(out / "wandb" / "offline-run-before")
    results = train(short, out, use_wandb=True, device="cpu", progress=False)
    assert runs[0].settings["id"] == results["run"] and len(runs[0].lines) == 3
    assert sorted(path.name for path in (out / "wandb").iterdir()) == ["offline-run", "offline-run-before"]


def test_an_error_when_only_wandb_has_begun_leaves_a_folder_to_begin_in(
    tiny: Recipe, tmp_path: Path, runs: list[FakeRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise PrismaError("could not write recipe.json: No space left on device")

    short, out = tiny.override({"steps": "2", "warmup": "1"}), tmp_path / "run"
    with monkeypatch.context() as patch, pytest.raises(PrismaError, match="No space left"):
        patch.setattr("prisma.train.loop.start", full)
        train(short, out, use_wandb=True, device="cpu", progress=False)
    assert [path.name for path in out.iterdir()] == ["wandb"] and runs[0].ended
    (out / "wandb" / "offline-run").rmdir()
    assert train(short, out, use_wandb=True, device="cpu", progress=False)["steps"] == 2


class FakeWriter:
    made: ClassVar[list["FakeWriter"]] = []

    def __init__(self, log_dir: str, purge_step: int | None) -> None:
        self.settings, self.scalars, self.ended = (log_dir, purge_step), list[tuple[str, float, int]](), False
        self.made.append(self)

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.scalars.append((name, value, step))

    def close(self) -> None:
        self.ended = True


@pytest.fixture
def writers(monkeypatch: pytest.MonkeyPatch) -> list[FakeWriter]:
    """What was sent to a TensorBoard that only listens."""
    package, module = ModuleType("tensorboard"), ModuleType("torch.utils.tensorboard")
    package.__spec__ = ModuleSpec("tensorboard", None)
    module.SummaryWriter = FakeWriter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tensorboard", package)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    monkeypatch.setattr(FakeWriter, "made", [])
    return FakeWriter.made


def test_tensorboard_gets_every_number_and_forgets_what_a_resumed_run_repeats(
    tiny: Recipe, tmp_path: Path, writers: list[FakeWriter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prisma.train.finish.draw_curves", lambda *_: None)
    short, out, write = tiny.override({"steps": "6", "warmup": "1"}), tmp_path / "run", MetricsLog.write

    def stopping(log: MetricsLog, line: dict[str, Any]) -> None:
        if line["step"] == 5:
            raise KeyboardInterrupt
        write(log, line)

    monkeypatch.setattr(MetricsLog, "write", stopping)
    with pytest.raises(KeyboardInterrupt):
        train(short, out, use_tensorboard=True, device="cpu", progress=False)
    monkeypatch.setattr(MetricsLog, "write", write)
    train(short, out, resume=True, use_tensorboard=True, device="cpu", progress=False)
    assert [writer.settings for writer in writers] == [(str(out / "tensorboard"), step) for step in (None, 4)]
    assert all(writer.ended for writer in writers)
    expected = [
        (name, value, line["step"])
        for line in read_metrics(out / "metrics.jsonl")
        for name, value in numbers_in(line).items()
    ]
    before = [scalar for scalar in writers[0].scalars if scalar[2] < 4]
    assert before + writers[1].scalars == expected
    assert {"loss", "lr", "test_accuracy", "weight_norm", "heads/class_token/0.0"} <= {name for name, _, _ in expected}


def test_without_tensorboard_it_is_a_sentence_before_anything_is_written(
    tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    sentence = r"expected the package tensorboard; found none: install it with pip install 'prisma-vit\[tensorboard\]'"
    with pytest.raises(PrismaError, match=sentence):
        train(tiny, tmp_path / "run", use_tensorboard=True, device="cpu", progress=False)
    assert not (tmp_path / "run").exists()
