"""The loop, and that a run which is stopped, killed or out of disk ends with the same bits as one which is not."""

import json
import random
import re
import resource
import signal
import time
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from prisma.checkpoint import read_checkpoint, read_tensors
from prisma.data import task
from prisma.data.task import Split
from prisma.errors import PrismaError
from prisma.files import exclusive, sha256
from prisma.ledger import Ledger
from prisma.run_folder import checkpoint_folder, checkpoint_steps, read_metrics
from prisma.train import Recipe, train
from prisma.train.clock import CLOCK, Clock
from prisma.train.evaluate import evaluate
from prisma.train.loop import initial_model
from prisma.train.machine import cpu_threads
from prisma.train.metrics_log import MetricsLog
from prisma.train.optimizer import EPS, learning_rate, make_optimizer
from prisma.train.order import batch
from prisma.train.provenance import describe
from prisma.train.resume import start
from prisma.train.run import Run
from prisma.train.steps import update
from tests import processes
from tests.run_edits import timeless


def hashes(out: Path) -> dict[str, str]:
    """Every file of a run but `recipe.json`, which tells of the environment; the time that it took is left out."""
    files = (path for path in sorted(out.rglob("*")) if path.is_file() and path.name != "recipe.json")
    return {str(path.relative_to(out)): timeless(path) for path in files}


def test_the_folder_holds_what_the_architecture_promises(tiny: Recipe, whole: Path) -> None:
    steps = checkpoint_steps(tiny.training.steps, tiny.training.checkpoint_every)
    assert [path.name for path in sorted((whole / "checkpoints").iterdir())] == [f"step-{s:06d}" for s in steps]
    assert not list(whole.rglob(".*"))
    for step in steps:
        checkpoint = read_checkpoint(checkpoint_folder(whole, step))
        assert checkpoint.header == {"step": str(step), "run": json.loads((whole / "recipe.json").read_text())["run"]}
        assert checkpoint.labels == task("digits").labels
    last = checkpoint_folder(whole, tiny.training.steps)
    for name in ("config.json", "model.safetensors"):
        assert sha256(whole / name) == sha256(last / name)
    probe, _ = read_tensors(whole / "probe.safetensors")
    assert list(probe["images"].shape) == [64, 1, 8, 8] and 0 <= probe["images"].min() < probe["images"].max() <= 1


def test_the_metrics_have_a_line_for_every_step(tiny: Recipe, whole: Path) -> None:
    metrics = read_metrics(whole / "metrics.jsonl")
    config = tiny.training
    assert [line["step"] for line in metrics] == list(range(config.steps + 1))
    assert [line["lr"] for line in metrics] == [learning_rate(config, step) for step in range(config.steps + 1)]
    assert tuple(line["step"] for line in metrics if "test_accuracy" in line) == checkpoint_steps(
        config.steps, config.checkpoint_every
    )
    assert metrics[-1]["test_loss"] < metrics[0]["test_loss"]


def test_results_are_the_final_weights_on_the_splits(whole: Path) -> None:
    results = json.loads((whole / "results.json").read_text())
    model = read_checkpoint(whole).model
    found = {row["name"]: row for row in results["results"]}
    assert list(found) == ["test accuracy", "train accuracy", "test loss", "train loss"]
    for split, n in (("train", 1437), ("test", 360)):
        loss, accuracy = evaluate(model, *task("digits").inputs(split))
        assert found[f"{split} accuracy"] == {"name": f"{split} accuracy", "value": accuracy, "split": split, "n": n}
        assert found[f"{split} loss"]["value"] == pytest.approx(loss, rel=1e-6)
    assert results["parameters"] == sum(p.numel() for p in model.parameters())
    assert (results["recipe"], results["seeds"], results["steps"]) == ("tiny", {"init": 0, "order": 0}, 70)


def test_of_a_large_split_the_first_images_are_evaluated(
    tiny: Recipe, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prisma.train.loop.EVALUATED", 500)
    found = {row["name"]: row for row in train(tiny, tmp_path / "run", device="cpu", progress=False)["results"]}
    assert (found["test accuracy"]["n"], found["train accuracy"]["n"]) == (360, 500)
    images, labels = task("digits").inputs("train", 500)
    with cpu_threads(1):
        assert found["train loss"]["value"] == evaluate(read_checkpoint(tmp_path / "run").model, images, labels)[0]
    assert sha256(tmp_path / "run" / "model.safetensors") == sha256(whole / "model.safetensors")


@pytest.mark.parametrize("step", [0, 1, 16, 70])
def test_the_batch_of_a_step_rebuilt_gives_the_logged_loss_from_its_checkpoint(
    tiny: Recipe, whole: Path, step: int
) -> None:
    digits = task("digits")
    images, labels = batch(digits.splits["train"], digits.transform, tiny.training, step)
    with cpu_threads(1):
        loss = F.cross_entropy(read_checkpoint(checkpoint_folder(whole, step)).model(images), labels)
    assert loss.item() == read_metrics(whole / "metrics.jsonl")[step]["loss"]


def test_the_first_weights_are_the_seed_s_and_the_first_update_changes_them(tiny: Recipe, whole: Path) -> None:
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    first, other = (initial_model(tiny.model, seed).state_dict() for seed in (0, 1))
    assert torch.equal(torch.random.get_rng_state(), state)
    zero, one = (read_checkpoint(checkpoint_folder(whole, step)).model.state_dict() for step in (0, 1))
    for name, x in first.items():
        assert torch.equal(x, zero[name]), name
        assert not torch.equal(x, one[name]), name
    assert not torch.equal(first["readout.head.weight"], other["readout.head.weight"])


@pytest.mark.parametrize("threads", [1, 2])
def test_training_again_gives_the_same_bytes_whatever_torch_was_told(
    tiny: Recipe, whole: Path, tmp_path: Path, threads: int
) -> None:
    with cpu_threads(threads):
        train(tiny, tmp_path / "run", device="cpu", command="prisma train", progress=False)
        assert torch.get_num_threads() == threads
    assert hashes(tmp_path / "run") == hashes(whole)


@pytest.mark.parametrize("steps", [(0,), (1,), (37,), (70,), (3, 3, 16, 63)])
def test_a_stopped_run_goes_on_to_the_same_bits(
    tiny: Recipe, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: tuple[int, ...]
) -> None:
    out = tmp_path / "run"
    write = MetricsLog.write
    for i, stop in enumerate(steps):

        def stopping(log: MetricsLog, line: dict[str, float], stop: int = stop) -> None:
            if line["step"] == stop:
                raise KeyboardInterrupt
            write(log, line)

        monkeypatch.setattr(MetricsLog, "write", stopping)
        with pytest.raises(KeyboardInterrupt):
            train(tiny, out, resume=i > 0, device="cpu", progress=False)
    monkeypatch.undo()
    train(tiny, out, resume=True, device="cpu", progress=False)
    assert hashes(out) == hashes(whole)


def test_killed_at_ten_moments_a_run_ends_with_the_same_bits(tiny: Recipe, whole: Path, tmp_path: Path) -> None:
    """SIGKILL at nine random moments of the loop and one after it, while curves and results are written."""
    out, metrics = tmp_path / "run", tmp_path / "run" / "metrics.jsonl"
    moments = random.Random(0)
    reached = 0
    for lines in [*sorted(moments.sample(range(1, 71), 9)), 71]:
        settings = {"resume": out.exists(), "device": "cpu", "progress": False}
        process = processes.context().Process(target=train, args=(tiny, out), kwargs=settings)
        process.start()
        wait_for_lines(process, metrics, lines)
        time.sleep(moments.uniform(0, 0.01))
        process.kill()
        assert processes.ended(process) == -signal.SIGKILL
        reached = max(reached, len(metrics.read_bytes().splitlines()))
    assert reached == 71 and not (out / "results.json").exists()
    train(tiny, out, resume=True, device="cpu", progress=False)
    assert hashes(out) == hashes(whole)


def wait_for_lines(process: ForkServerProcess, path: Path, n: int) -> None:
    """Until the process itself has brought the file to `n` lines."""
    before = path.stat().st_ino if path.exists() else None
    deadline = time.monotonic() + 120
    while not path.exists() or path.stat().st_ino == before or path.read_bytes().count(b"\n") < n:
        assert process.is_alive(), "it ended before it was killed"
        assert time.monotonic() < deadline, "it did not come so far"
        time.sleep(0.001)


def test_a_full_disk_is_a_sentence_and_costs_nothing_that_was_whole(tiny: Recipe, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (20_000, hard)
    )  # enough for the probe and the first weights, not for moments
    try:
        with pytest.raises(PrismaError, match=r"could not write .*: File too large"):
            train(tiny, out, device="cpu", progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(out.rglob("*.partial"))
    for file in set(hashes(out)) - {"metrics.jsonl", "state.safetensors", CLOCK}:  # which grow
        assert sha256(out / file) == sha256(whole / file)
    train(tiny, out, resume=True, device="cpu", progress=False)
    assert hashes(out) == hashes(whole)


def test_a_finished_run_is_left_as_it_is(tiny: Recipe, whole: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    results = train(tiny, whole, resume=True, device="cpu", progress=False)
    assert results == json.loads((whole / "results.json").read_text())
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*")} == before
    with pytest.raises(PrismaError, match="use --resume or another --out"):
        train(tiny, whole, device="cpu", progress=False)


def test_a_loss_that_explodes_stops_the_run(tiny: Recipe, tmp_path: Path) -> None:
    wild = tiny.override({"lr": "1000", "norm": "none", "warmup": "0"})
    expected = (
        r"expected a finite .*; found (nan|inf) at step (\d+) of the run .*; its newest checkpoint is step-(\d+);"
    )
    with pytest.raises(PrismaError, match=expected) as error:
        train(wild, tmp_path / "run", device="cpu", progress=False)
    found = re.search(expected, str(error.value))
    assert found is not None and int(found[3]) < int(found[2])
    assert read_checkpoint(checkpoint_folder(tmp_path / "run", int(found[3]))).model is not None  # it refuses NaN
    assert read_tensors(tmp_path / "run" / "state.safetensors")[1]["step"] == str(int(found[3]))


def test_the_bar_shows_loss_and_accuracy_on_stderr(
    tiny: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tiny.override({"steps": "2", "warmup": "1"}), tmp_path / "run", device="cpu")
    printed = capsys.readouterr()
    assert printed.out == "" and all(word in printed.err for word in ("tiny", "loss=", "accuracy=", "2/2"))


def test_one_update_is_clipped_adamw(tiny: Recipe) -> None:
    model = initial_model(tiny.model, 0)
    twin = [p.detach().clone() for p in model.parameters()]
    optimizer, config = make_optimizer(model, tiny.training), tiny.training
    data = Split(torch.rand(8, 1, 8, 8), torch.arange(8))
    run = Run(tiny, "id", Path(), model, optimizer, 0, data, {}, Ledger(Path()), Clock(Path(), 0))
    loss = 1000 * F.cross_entropy(model(data.images), data.labels)  # a gradient far above the clip
    gradients = torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
    norm = torch.cat([g.flatten() for g in gradients]).norm()
    assert norm > config.clip
    loss.backward()
    update(run, 0.01)
    decayed = {id(p) for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]}
    for parameter, before, gradient in zip(model.parameters(), twin, gradients, strict=True):
        g = gradient * config.clip / (norm + 1e-6)
        decay = 0.01 * config.weight_decay if id(parameter) in decayed else 0.0
        expected = before * (1 - decay) - 0.01 * g / (g.abs() + EPS)  # Adam's first step: both moments are g's own
        torch.testing.assert_close(parameter.detach(), expected, rtol=1e-4, atol=1e-6)


def test_two_trainers_in_one_folder_are_refused(tiny: Recipe, tmp_path: Path) -> None:
    start(tmp_path / "run", describe(tiny, torch.device("cpu"), ""))
    with (
        exclusive(tmp_path / "run", "be here"),
        pytest.raises(PrismaError, match="expected to be the only process to train"),
    ):
        train(tiny, tmp_path / "run", resume=True, progress=False)


@pytest.mark.parametrize("replaced", [False, True])
def test_a_folder_that_goes_while_it_trains_gets_nothing_more(
    tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replaced: bool
) -> None:
    """Neither in the place where it was, nor in a run that somebody began there meanwhile."""

    def moved(log: MetricsLog, line: dict[str, float]) -> None:
        write(log, line)
        if line["step"] == 5:
            out.rename(tmp_path / "gone")
            if replaced:
                start(out, describe(tiny, torch.device("cpu"), ""))

    out, write = tmp_path / "run", MetricsLog.write
    monkeypatch.setattr(MetricsLog, "write", moved)
    with pytest.raises(PrismaError, match=r"expected to be the only process to train in .* removed or replaced"):
        train(tiny, out, device="cpu", progress=False)
    assert [path.name for path in out.rglob("*")] == (["recipe.json"] if replaced else [])


def test_what_cannot_begin_leaves_nothing(tiny: Recipe, tmp_path: Path) -> None:
    with pytest.raises(
        PrismaError, match="the number of weights that are trained to be from 0 to 1,000,000,000; found"
    ):
        train(tiny.override({"d_model": "149998", "n_heads": "2"}), tmp_path / "run", progress=False)
    with pytest.raises(PrismaError, match="batch_size to be at most 1437, the number of training images; found 2000"):
        train(tiny.override({"batch_size": "2000"}), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


def test_the_present_folder_can_be_the_run_s(tiny: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    train(tiny, Path(), progress=False)
    assert (tmp_path / "results.json").is_file()
