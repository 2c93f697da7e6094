"""Checkpoints are published while training runs; a kill on either side loses nothing."""

import shutil
import threading
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from prisma.errors import PrismaError
from prisma.publish import diff, publish, watch
from prisma.publish.things import hub_for
from prisma.run_folder import revision_of
from tests.hubserver.running import Hub, use
from tests.run_edits import accept_changes

LABELS = [revision_of(step) for step in (0, 1, 2, 4, 6)]
LAST = ("results.json", "hashes.json", "config.json", "model.safetensors", "curves")
"""What training writes at its end, the last file first."""


@pytest.fixture(params=["folder", "Hub"])
def empty(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path | None]:
    """Where nothing is published: a folder hub, or (None) the Hugging Face Hub."""
    if request.param == "folder":
        yield tmp_path / "hub"
        return
    with Hub(tmp_path / "server") as server:
        use(monkeypatch, server.url, tmp_path / "cache")
        yield None


class Trainer:
    """Makes a finished run appear file by file, as training does."""

    def __init__(self, finished: Path, out: Path) -> None:
        self.finished, self.out = finished, out

    def begin(self) -> None:
        self.out.mkdir()
        for name in ("recipe.json", "probe.safetensors", "metrics.jsonl"):
            shutil.copy(self.finished / name, self.out / name)

    def checkpoint(self, label: str) -> None:
        shutil.copytree(self.finished / "checkpoints" / label, self.out / "checkpoints" / f".{label}.partial")
        (self.out / "checkpoints" / f".{label}.partial").rename(self.out / "checkpoints" / label)

    def finish(self) -> None:
        for name in reversed(LAST):
            copy = shutil.copytree if (self.finished / name).is_dir() else shutil.copy
            copy(self.finished / name, self.out / name)


def test_each_checkpoint_is_published_as_soon_as_it_is_there(run: Path, tmp_path: Path, empty: Path | None) -> None:
    trainer, said = Trainer(run, tmp_path / "training"), list[str]()
    steps = iter([trainer.begin, *(lambda label=label: trainer.checkpoint(label) for label in LABELS), trainer.finish])
    served = list[list[str]]()

    def train_on(_: float) -> None:
        if not trainer.out.exists():
            served.append([])
        else:
            served.append(sorted(hub_for(trainer.out, "lab/tiny", empty).labels()))
        next(steps)()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("prisma.publish.watching.time.sleep", train_on)
        report = watch(trainer.out, "lab/tiny", empty, say=said.append)
    assert served == [[], *(LABELS[:i] for i in range(len(LABELS) + 1))]
    assert report.revisions == tuple(LABELS)
    assert report.made == ("main",)
    waiting = f"waiting until training begins in {trainer.out}"
    assert said == [waiting, *(f"published {label} of lab/tiny" for label in LABELS)]
    assert not diff(run, "lab/tiny", empty)


MOST_REQUESTS = 6  # that a checkpoint may take


def test_a_checkpoint_takes_few_requests(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the repository is there: how to send the weights and where to, their check, commit, listing, label."""
    with Hub(tmp_path / "server") as server:
        use(monkeypatch, server.url, tmp_path / "cache")
        trainer, asked = Trainer(run, tmp_path / "training"), list[int]()
        labels = iter(LABELS)
        trainer.begin()

        def train_on(_: float) -> None:
            asked.append(sum(row["origin"] == "hub" for row in server.requests))
            trainer.checkpoint(label) if (label := next(labels, None)) else trainer.finish()

        monkeypatch.setattr("prisma.publish.watching.time.sleep", train_on)
        watch(trainer.out, "lab/tiny")
    taken = [after - before for before, after in pairwise(asked)]
    assert len(taken) == len(LABELS)
    assert taken[1:] == [MOST_REQUESTS] * (len(LABELS) - 1)


def test_a_label_that_somebody_makes_meanwhile_is_not_moved(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Hub(tmp_path / "server") as server:
        use(monkeypatch, server.url, tmp_path / "cache")
        trainer = Trainer(run, tmp_path / "training")
        trainer.begin()
        trainer.checkpoint(LABELS[0])

        def train_on(_: float) -> None:
            server.api.create_branch("lab/tiny", branch=LABELS[1], revision="main")
            trainer.checkpoint(LABELS[1])

        monkeypatch.setattr("prisma.publish.watching.time.sleep", train_on)
        with pytest.raises(PrismaError, match=f"expected the Hub to make the branch {LABELS[1]} of lab/tiny; found"):
            watch(trainer.out, "lab/tiny")
        heads = {branch.name: branch.target_commit for branch in server.api.list_repo_refs("lab/tiny").branches}
    assert heads[LABELS[1]] == heads["main"]


def test_it_goes_on_where_it_was_stopped(run: Path, tmp_path: Path, empty: Path | None) -> None:
    trainer = Trainer(run, tmp_path / "training")
    trainer.begin()
    trainer.checkpoint(LABELS[0])
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("prisma.publish.watching.time.sleep", lambda _: _stop())
        watch(trainer.out, "lab/tiny", empty)
    for label in LABELS[1:]:
        trainer.checkpoint(label)
    trainer.finish()
    assert watch(trainer.out, "lab/tiny", empty).made == (*LABELS[1:], "main")
    assert not watch(trainer.out, "lab/tiny", empty).changed


def test_the_labels_of_another_run_are_not_moved(run: Path, hub: Path, tmp_path: Path) -> None:
    path = run / "checkpoints" / LABELS[0] / "config.json"
    path.write_text(path.read_text() + "\n")
    (run / "config.json").write_text((run / "config.json").read_text() + "\n")
    accept_changes(run)
    trainer = Trainer(run, tmp_path / "training")
    trainer.begin()
    trainer.checkpoint(LABELS[0])
    with pytest.raises(PrismaError, match=f"expected {LABELS[0]} of lab/tiny to serve this run, or not to be there"):
        watch(trainer.out, "lab/tiny", hub)


def test_a_real_training_is_followed(tmp_path: Path) -> None:
    """From another thread, started before the training."""
    from prisma.recipes import recipe
    from prisma.train import train
    from tests.conftest import SMALL

    out, hub, reports = tmp_path / "run", tmp_path / "hub", []
    follower = threading.Thread(target=lambda: reports.append(watch(out, "lab/tiny", hub, every=0.02)))
    follower.start()
    train(recipe("digits").override(SMALL), out, progress=False)
    follower.join(120)
    assert reports[0].revisions == tuple(LABELS)
    assert not publish(out, "lab/tiny", hub, progress=False).changed


def _stop() -> None:
    raise KeyboardInterrupt


def test_what_does_not_train_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "tuned_lens.json").touch()
    for what in ("task:circle-7", tmp_path):
        with pytest.raises(PrismaError, match=r"expected a run to watch; found .*: publish it without --watch"):
            watch(what, "lab/x", tmp_path / "hub")
