"""Any file of a run, a hub or a study, damaged in any way: the same values, or one sentence; never anything else."""

import logging
import random
import shutil
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import pytest

import prisma
from prisma.checkpoint import CONFIG, WEIGHTS
from prisma.errors import PrismaError
from prisma.files import sha256
from prisma.publish import audit
from prisma.publish.plan import Plan, plan
from prisma.recipes import recipe
from prisma.repository import MANIFEST, Published
from prisma.run_folder import HASHES, METRICS, PROBE, RECIPE, RESULTS, STATE
from prisma.study.shards import run_dataset_analysis
from prisma.train import train
from tests.conftest import REPO, SMALL
from tests.mutations import mutate
from tests.run_edits import accept_changes
from tests.study.study import job_of

CHECKPOINT = "checkpoints/step-000002"
RUN_FILES = (RECIPE, METRICS, STATE, PROBE, RESULTS, HASHES, CONFIG, WEIGHTS, f"{CHECKPOINT}/{CONFIG}")
T = TypeVar("T")
COMMAND = "prisma train digits"  # what `finished_run` states
LOG = logging.getLogger(__name__)


def outcome(work: Callable[[], T]) -> T | None:
    """What the work returns; None if it ends with one short sentence."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return work()
    except PrismaError as error:
        said(str(error))
        return None


def said(text: str) -> None:
    assert text.isprintable() and 20 < len(text) < 500, text


@pytest.fixture(autouse=True)
def no_hang() -> Iterator[None]:
    def late(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def damaged(source: Path, folder: Path, name: str, seed: int) -> Path:
    """A copy of a folder in which one file is damaged; the copy of the last time is removed."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, folder, symlinks=True)
    path = folder / name
    if path.is_symlink():  # of a hub: the file, not the blob that others share
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)
    how = mutate(path, random.Random(f"{seed} {name}"))
    LOG.info("%s of seed %d: %s", name, seed, how)  # pytest shows it if a test fails
    return folder


def continued(run: Path) -> dict[str, object] | None:
    return outcome(lambda: train(recipe("digits").override(SMALL), run, resume=True, command=COMMAND, progress=False))


@pytest.fixture(autouse=True)
def no_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are drawn from the metrics alone, and take most of the time."""
    monkeypatch.setattr("prisma.train.finish.draw_curves", lambda *_: None)


@pytest.mark.parametrize("name", RUN_FILES)
def test_a_finished_run(finished_run: Path, tmp_path: Path, name: str) -> None:
    """Resumed, planned and loaded, as it is and if its hashes count as those of training."""
    results, commits = results_of(finished_run), commits_of(plan(finished_run, REPO))
    weights = sha256(finished_run / WEIGHTS)
    for seed in range(6):
        run = damaged(finished_run, tmp_path / "r", name, seed)
        if seed % 2:
            with suppress(PrismaError, OSError):
                accept_changes(run)
        planned, found = outcome(lambda at=run: plan(at, REPO)), continued(run)
        if not seed % 2:
            assert planned is None or commits_of(planned) == commits
            assert found in (None, results)
        loaded = outcome(lambda at=run: prisma.load(at))
        if name not in (CONFIG, WEIGHTS):
            assert loaded is not None and sha256(run / WEIGHTS) == weights


def results_of(run: Path) -> dict[str, object]:
    found = continued(run)
    assert found is not None
    return found


def commits_of(planned: Plan) -> dict[str, str]:
    commits = {step.label: step.commit.id for step in planned.steps}
    return {**commits, "main": planned.main(commits).id}


@pytest.mark.parametrize("name", [name for name in RUN_FILES if name not in (RESULTS, HASHES, CONFIG, WEIGHTS)])
def test_a_stopped_run(finished_run: Path, tmp_path: Path, name: str) -> None:
    """It goes on to the same bytes, or is refused."""
    stopped = tmp_path / "stopped"
    shutil.copytree(finished_run, stopped)
    (stopped / RESULTS).unlink()
    for seed in range(100, 106):
        run = damaged(stopped, tmp_path / "r", name, seed)
        if continued(run) is not None:
            for written in (WEIGHTS, METRICS, STATE, PROBE):
                assert sha256(run / written) == sha256(finished_run / written)


@pytest.mark.parametrize("name", [MANIFEST, CONFIG, WEIGHTS, PROBE, RECIPE, RESULTS, "refs"])
def test_a_published_mouse(finished_hub: Path, tmp_path: Path, name: str) -> None:
    """Audited and loaded. Whatever changed of its main is found, and nothing else."""
    repo = finished_hub / f"models--{REPO.replace('/', '--')}"
    commit = (repo / "refs" / "main").read_text()
    path = repo / "refs" / "main" if name == "refs" else repo / "snapshots" / commit / name
    whole = path.read_bytes()
    for seed in range(4):
        hub = damaged(finished_hub, tmp_path / "h", path.relative_to(finished_hub).as_posix(), seed)
        changed = hub / path.relative_to(finished_hub)
        is_same = changed.is_file() and changed.read_bytes() == whole
        findings = outcome(lambda at=hub: audit(REPO, at))
        assert findings is None or bool(findings) != is_same
        for finding in findings or ():
            said(finding.problem)
        for work in (lambda at=hub: prisma.load(REPO, hub=at), lambda at=hub: Published(REPO, at).checkpoints()):
            assert outcome(work) is not None or not is_same


@pytest.mark.parametrize("name", ["analysis.json", "shard-00001.npz", "summary.json"])
def test_a_study(tmp_path: Path, name: str) -> None:
    """It is merged from the shards that are there: to the same summary, or it is refused."""
    job = job_of("rollout", tmp_path / "study")
    summary = run_dataset_analysis(job, progress=False)
    study = tmp_path / "s"
    for seed in range(6):
        damaged(job.out, study, name, seed)
        if name != "summary.json":
            (study / "summary.json").unlink()
        again = outcome(lambda: run_dataset_analysis(job_of("rollout", study), progress=False))
        assert again in (None, summary) or (name == "summary.json" and again is not None)
