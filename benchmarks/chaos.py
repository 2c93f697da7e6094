"""How safe publishing is: killed and disturbed at every moment, is it completed by the same command?

    python -m benchmarks.chaos [--kills 200] [--faults 500] [--seed 0] [--json FILE]

Every trial publishes a small run into a new repository, of a folder hub or of a Hub on this machine
(`tests/hubserver`), and is disturbed once: the process is killed by SIGKILL, before its n-th operation (of the file
system, or a request) or at a moment of the clock; or a fault happens, of the server at any route, before or after its
effect, once or twice, or of the disk at any operation. Then the labels that exist must serve their own weights, the
same call must complete the rest, and a call after that must find nothing to do. All of it follows from the seed, except
the moments of the clock.
"""

import argparse
import errno
import json
import os
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import product
from multiprocessing.synchronize import Event
from pathlib import Path
from unittest.mock import patch

import pytest
from huggingface_hub import __version__ as version
from huggingface_hub.utils import _http

from prisma.errors import PrismaError
from prisma.publish import audit, diff
from prisma.publish.calls import Calls
from prisma.publish.commits import Hub
from prisma.publish.folder_hub import FolderHub
from prisma.publish.plan import Plan
from prisma.publish.publishing import send
from prisma.publish.things import hub_for
from prisma.publish.watching import watch
from prisma.recipes import recipe
from prisma.repository import MAIN, Published
from prisma.run_folder import RESULTS
from prisma.train import train
from tests import processes
from tests.hubserver.running import TOKEN, use
from tests.hubserver.running import Hub as Server
from tests.publish.small_plans import expect_served, remote_hub, small_plan

ROUTES = ("refs", "create_repo", "commits", "create_branch", "preupload", "lfs_batch", "lfs_put", "lfs_verify")
ROUTES += ("validate_yaml", "commit", "tree")
KINDS = ("429", "500", "502", "503", "504", "408", "drop", "truncated_upload", "truncated_answer", "slow")
REFUSALS = ("401", "402", "403", "412")
DISK = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EACCES)
OPERATIONS = ("fsync", "replace", "symlink", "mkdir")
SMALL = {"steps": "4", "warmup": "1", "n_layers": "1", "d_model": "8", "n_heads": "2", "d_mlp": "8"}
LABELS = 3  # checkpoints of a run
LONGEST = 0.4  # seconds after which a process is killed at the latest


@dataclass(frozen=True)
class Line:
    """What happened in one kind of trial."""

    what: str
    trials: int
    stopped: int  # of them, those that ended without having published everything
    labels: int  # that were there when it had ended, all right ones
    completed: int  # by the same call again
    uploads: int  # of large files to the Hub
    twice: int  # of them, those of a file that the Hub had already


@dataclass(frozen=True)
class Where:
    """A place to publish in, as another process can be told about it."""

    folder: Path
    url: str | None  # of a Hub; None is a folder hub

    def hub(self) -> Hub:
        if self.url is None:
            return FolderHub(Published("lab/tiny", self.folder / "hub"))
        return remote_hub(self.folder, self.repo)

    @property
    def repo(self) -> str:
        return "lab/tiny" if self.url is None else f"lab/{self.folder.name}"

    def publish(self, plan: Plan) -> bool:
        """Whether anything was written."""
        return send(plan, self.hub(), progress=False).changed

    def expect_own_weights(self, plan: Plan) -> int:
        """Every label that exists serves the files of its own step; how many there are."""
        if self.url is None and not (self.folder / "hub").exists():
            return 0
        hub, wanted = self.hub(), {step.label: step.commit for step in plan.steps}
        labels = hub.labels()
        for label, commit in labels.items():
            assert label == MAIN or hub.differing(commit, wanted[label]) == [], f"{label} serves something else"
        assert MAIN not in labels or wanted.keys() <= labels.keys(), "main before its checkpoints"
        return len(labels)

    def expect_complete(self, plan: Plan) -> None:
        """The same call completes it, and the next finds nothing to do."""
        self.publish(plan)
        assert not self.publish(plan), "it wrote again what was there"
        hub = self.hub()
        labels = hub.labels()
        assert labels.keys() == {MAIN, *(step.label for step in plan.steps)}
        assert hub.differing(labels[MAIN], plan.main(labels)) == []
        self.expect_own_weights(plan)
        if self.url is not None:
            expect_served(plan, self.repo)


@contextmanager
def client(url: str | None, folder: Path) -> Iterator[None]:
    """The Hub's client speaks to this Hub, and nothing waits."""
    with pytest.MonkeyPatch.context() as patches:
        if url is not None:
            use(patches, url, folder / "cache")
            patches.setattr(_http.time, "sleep", lambda _: None)
        yield


def before_operation(moment: int, strike: Callable[[], object]) -> list[str]:
    """Call `strike` before file-system operation number `moment`, from now on; the list grows by each."""
    done: list[str] = []

    def watched(name: str, original: Callable[..., object]) -> Callable[..., object]:
        def operation(*arguments: object, **options: object) -> object:
            done.append(name)
            if len(done) == moment:
                strike()
            return original(*arguments, **options)

        return operation

    for name in OPERATIONS:
        setattr(os, name, watched(name, getattr(os, name)))
    return done


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def doomed(where: Where, what: Plan | Path, moment: int, begun: Event) -> None:
    """What a process does that is killed: by itself before operation or request number `moment`, or from outside."""
    if moment and where.url is None:
        before_operation(moment, _die)
    asked: list[object] = []
    honest = Calls._count

    def counting(calls: Calls, request: object) -> None:
        asked.append(request)
        if len(asked) == moment:
            _die()
        honest(calls, request)

    with client(where.url, where.folder), patch.object(Calls, "_count", counting):
        begun.set()
        with suppress(PrismaError):
            if isinstance(what, Plan):
                where.publish(what)
            else:
                watch(what, where.repo, where.folder / "hub" if where.url is None else None)


def kill(where: Where, what: Plan | Path, moment: int, seconds: float) -> bool:
    """Publish a plan, or watch a run, in another process that is killed; whether it died of it."""
    begun = processes.context().Event()
    child = processes.context().Process(target=doomed, args=(where, what, moment, begun))
    child.start()
    assert begun.wait(timeout=120), "it did not begin"
    if not moment or isinstance(what, Path):  # who watches does not end
        child.join(seconds if not moment else 10 * LONGEST)
        child.kill()
    return processes.ended(child) == -signal.SIGKILL


def kills(n: int, seed: int, folder: Path, server: Server | None) -> Line:
    """`n` processes killed: half of them before an operation or request, half by the clock."""
    draw, plan, died, labels = random.Random(seed), small_plan(LABELS), 0, 0
    moments = 30 if server else 75  # a publication has so many requests, or operations of the file system
    for i in range(n):
        where = Where(folder / f"kill-{seed}-{i}", server.url if server else None)
        where.folder.mkdir(parents=True)
        with client(where.url, where.folder):
            died += kill(where, plan, draw.randrange(1, moments) if i % 2 else 0, draw.uniform(0, LONGEST))
            labels += where.expect_own_weights(plan)
            where.expect_complete(plan)
    return line("killed", n, died, labels, n, server)


def watched_kills(n: int, seed: int, folder: Path, finished: Path, server: Server | None) -> Line:
    """`n` processes killed that publish a run while it trains; then it is finished, and watched to its end."""
    draw, died, labels = random.Random(seed), 0, 0
    for i in range(n):
        where = Where(folder / f"watch-{seed}-{i}", server.url if server else None)
        run, hub = where.folder / "run", where.folder / "hub" if where.url is None else None
        shutil.copytree(finished, run)
        (run / RESULTS).rename(where.folder / RESULTS)  # it is not finished
        with client(where.url, where.folder):
            died += kill(where, run, draw.randrange(1, 75) if i % 2 else 0, draw.uniform(0, 2 * LONGEST))
            there = hub_for(run, where.repo, hub).labels() if hub is None or hub.exists() else {}
            assert MAIN not in there, "main of a run that still trains"
            labels += len(there)
            (where.folder / RESULTS).rename(run / RESULTS)
            watch(run, where.repo, hub)
            assert diff(run, where.repo, hub) == []
            assert not watch(run, where.repo, hub).changed, "it wrote again what was there"
            assert hub is None or audit(where.repo, hub) == []
    return line("killed while watching", n, died, labels, n, server)


def server_faults(n: int, seed: int, folder: Path, server: Server, kinds: Sequence[str] = KINDS + REFUSALS) -> Line:
    """`n` faults of the Hub, each in a publication of its own."""
    draw, plan, failed, labels = random.Random(seed), small_plan(LABELS), 0, 0
    cases = list(product(ROUTES, kinds, (1, 2), (False, True), range(3)))
    draw.shuffle(cases)
    for i, (route, kind, times, effect, after) in enumerate((cases * (1 + n // len(cases)))[:n]):
        where = Where(folder / f"fault-{seed}-{i}", server.url)
        where.folder.mkdir(parents=True)
        with client(where.url, where.folder):
            server.fail(kind, route, times=times, effect=effect, after=after, seconds=0.05 if kind == "slow" else None)
            failed += not told(lambda where=where: where.publish(plan))
            server.heal()
            labels += where.expect_own_weights(plan)
            where.expect_complete(plan)
    return line("faults of the Hub", n, failed, labels, n, server)


def disk_faults(n: int, seed: int, folder: Path) -> Line:
    """`n` faults of the disk, each in a publication into a folder hub of its own."""
    draw, plan, failed, labels = random.Random(seed), small_plan(LABELS), 0, 0
    for i in range(n):
        where, number = Where(folder / f"disk-{seed}-{i}", None), draw.choice(DISK)
        where.folder.mkdir(parents=True)

        def fail(number: int = number) -> None:
            raise OSError(number, os.strerror(number))

        with patch.multiple(os, **{name: getattr(os, name) for name in OPERATIONS}):
            before_operation(draw.randrange(1, 75), fail)
            failed += not told(lambda where=where: where.publish(plan))
        labels += where.expect_own_weights(plan)
        where.expect_complete(plan)
    return line("faults of the disk", n, failed, labels, n, None)


def told(call: Callable[[], object]) -> bool:
    """Whether it succeeded; if not, it must have said why in a sentence, without the token."""
    try:
        call()
    except PrismaError as error:
        text = str(error)
        assert text.startswith("expected") or ": " in text, text
        assert "\n" not in text, text
        assert TOKEN not in text, text
        return False
    return True


def line(what: str, n: int, stopped: int, labels: int, completed: int, server: Server | None) -> Line:
    """What the server's log says about the uploads since the last line."""
    sent = Counter[str]()
    for row in server.asked("lfs_put") if server else ():
        sent[row["path"]] += row["status"] == 200  # what was broken off, or answered by a fault, is sent again
    if server:
        server.forget()
    place = "the Hub" if server else "a folder hub"
    return Line(f"{what}, {place}", n, stopped, labels, completed, sum(sent.values()), sum(sent.values()) - len(+sent))


def finished_run(folder: Path) -> Path:
    """A run that is watched, trained once."""
    if not (run := folder / "run").exists():
        train(recipe("digits").override(SMALL), run, progress=False)
    return run


def table(lines: Sequence[Line]) -> str:
    """Markdown."""
    rows = [f"| {' | '.join(str(value) for value in asdict(line).values())} |" for line in lines]
    head = "| disturbed by | trials | stopped by it | labels then, all right | completed | uploads | uploaded twice |"
    return "\n".join([head, "|---|---|---|---|---|---|---|", *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description="How safe publishing is.")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--faults", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the table here as well")
    args = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, Server(Path(folder) / "server", process=True) as server:
        here, seed = Path(folder), args.seed
        lines = [
            kills(args.kills // 2, seed, here / "a", None),
            kills(args.kills - args.kills // 2, seed, here / "b", server),
            disk_faults(args.faults // 5, seed, here / "c"),
            server_faults(args.faults - args.faults // 5, seed, here / "d", server),
            watched_kills(args.kills // 20, seed, here / "e", finished_run(here), None),
            watched_kills(args.kills // 20, seed, here / "f", finished_run(here), server),
        ]
        unknown = server.asked("unrouted")
    assert not unknown, unknown
    print(table(lines))
    print(f"{time.monotonic() - began:.0f} s, seed {args.seed}, huggingface_hub {version}")
    if args.json:
        found = {"seed": args.seed, "huggingface_hub": version, "lines": [asdict(line) for line in lines]}
        args.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
