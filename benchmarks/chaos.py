"""How safe publishing is: killed and disturbed at every moment, is it completed by the same command?

    python -m benchmarks.chaos [--kills 200] [--faults 500] [--seed 0] [--json FILE]

Every trial publishes a small run into a new repository, of a folder hub or of a Hub on this machine
(`tests/hubserver`), and is disturbed once: the process is killed by SIGKILL, before its n-th operation (of the file
system, or a request) or at a moment of the clock; or a fault happens, of the server at any route, before or after its
effect, once or twice, or of the disk at any operation. Then the labels that exist must serve their own weights, the
same call must complete the rest, and a call after that must find nothing to do. A run that is watched while it trains
must then audit clean. Audits of a published run are killed and disturbed too: they must leave it as it was, report
nothing that is not so, and find nothing the next time. All of it follows from the seed, except the moments of the
clock.
"""

import argparse
import errno
import os
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path

import pytest
from huggingface_hub import __version__ as version

from benchmarks.disturbing import Blow, Where, client, kill, told
from benchmarks.timing import write
from prisma.publish import diff
from prisma.recipes import recipe
from prisma.repository import MAIN
from prisma.run_folder import RESULTS
from prisma.train import train
from tests.hubserver.running import Hub as Server
from tests.publish.disturbing import before_operation
from tests.publish.small_plans import small_plan

SENT = ("refs", "create_repo", "commits", "create_branch", "preupload", "lfs_batch", "lfs_put", "lfs_verify")
ROUTES = (*SENT, "validate_yaml", "commit", "tree")
READ = ("refs", "tree", "paths_info", "resolve", "lfs_get")
"""The routes of an audit."""
KINDS = ("429", "500", "502", "503", "504", "408", "drop", "truncated_upload", "truncated_answer", "slow")
REFUSALS = ("401", "402", "403", "412")
DISK = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EACCES)
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


def kills(n: int, seed: int, folder: Path, server: Server | None) -> Line:
    """`n` processes killed: half of them before an operation or request, half by the clock."""
    draw, plan, died, labels = random.Random(seed), small_plan(LABELS), 0, 0
    moments = 30 if server else 75  # a publication has so many requests, or operations of the file system
    for i in range(n):
        where = Where(folder / f"kill-{seed}-{i}", server.url if server else None)
        where.folder.mkdir(parents=True)
        with client(where.url, where.folder):
            blow = Blow(draw.randrange(1, moments) if i % 2 else 0, draw.uniform(0, LONGEST))
            died += kill(where, partial(where.send, plan), blow)
            labels += where.expect_own_weights(plan)
            where.expect_complete(plan)
    return line("killed", n, died, labels, n, server)


def watched_kills(n: int, seed: int, folder: Path, finished: Path, server: Server | None) -> Line:
    """`n` processes killed that publish a run while it trains; then it is finished, and watched to its end."""
    draw, died, labels = random.Random(seed), 0, 0
    for i in range(n):
        where = Where(folder / f"watch-{seed}-{i}", server.url if server else None)
        run = where.folder / "run"
        shutil.copytree(finished, run)
        (run / RESULTS).rename(where.folder / RESULTS)  # it is not finished
        with client(where.url, where.folder):
            blow = Blow(draw.randrange(1, 75) if i % 2 else 0, draw.uniform(0, 2 * LONGEST))
            died += kill(where, partial(where.watch, run), blow, longest=10 * LONGEST)  # who watches does not end
            there = where.labels(run)
            assert MAIN not in there, "main of a run that still trains"
            labels += len(there)
            (where.folder / RESULTS).rename(run / RESULTS)
            where.watch(run)
            assert diff(run, where.repo, where.folder_hub) == []
            assert not where.watch(run), "it wrote again what was there"
            assert where.audit(deep=i % 2 == 0) == []
    return line("killed while watching", n, died, labels, n, server)


def audited_kills(n: int, seed: int, folder: Path, finished: Path, server: Server | None) -> Line:
    """`n` processes killed that audit a published run, every other one with all bytes; nothing may change."""
    draw, died, labels = random.Random(seed), 0, 0
    where = Where(folder / f"audit-{seed}", server.url if server else None)
    run = where.folder / "run"
    shutil.copytree(finished, run)
    with client(where.url, where.folder):
        where.publish(run)
        there = where.labels(run)
        for i in range(n):
            deep = i % 4 < 2
            moment = draw.randrange(1, 25 if server else 200) if i % 2 else 0
            blow = Blow(moment, draw.uniform(0, LONGEST), ("stat",))
            died += kill(where, partial(where.audit, deep), blow)
            assert where.labels(run) == there, "an audit changed a label"
            assert diff(run, where.repo, where.folder_hub) == []
            labels += len(there)
            assert where.audit(deep) == []
        assert not where.publish(run), "an audit changed a file"
    return line("killed while auditing", n, died, labels, n, server)


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
            failed += not told(partial(where.send, plan))
            server.heal()
            labels += where.expect_own_weights(plan)
            where.expect_complete(plan)
    return line("faults of the Hub", n, failed, labels, n, server)


def audited_faults(n: int, seed: int, folder: Path, finished: Path, server: Server) -> Line:
    """`n` faults of the Hub, each in an audit of a published run: one that passes is none, and a refusal is told."""
    draw, failed, labels = random.Random(seed), 0, 0
    where = Where(folder / f"audit-fault-{seed}", server.url)
    run = where.folder / "run"
    shutil.copytree(finished, run)
    cases = list(product(READ, KINDS + REFUSALS, (1, 2), range(3), (False, True)))
    draw.shuffle(cases)
    with client(where.url, where.folder):
        where.publish(run)
        there = where.labels(run)
        for route, kind, times, after, deep in (cases * (1 + n // len(cases)))[:n]:
            server.fail(kind, route, times=times, after=after, seconds=0.05 if kind == "slow" else None)
            found = list[str]()
            completed = told(lambda deep=deep, found=found: found.extend(where.audit(deep)))  # type: ignore[misc]
            server.heal()
            failed += not completed or bool(found)
            assert not found or kind in REFUSALS, (route, kind, found)
            assert where.labels(run) == there
            labels += len(there)
        assert where.audit(deep=True) == [] and not where.publish(run)
    return line("faults of the Hub while auditing", n, failed, labels, n, server)


def disk_faults(n: int, seed: int, folder: Path) -> Line:
    """`n` faults of the disk, each in a publication into a folder hub of its own."""
    draw, plan, failed, labels = random.Random(seed), small_plan(LABELS), 0, 0
    for i in range(n):
        where, number = Where(folder / f"disk-{seed}-{i}", None), draw.choice(DISK)
        where.folder.mkdir(parents=True)

        def fail(number: int = number) -> None:
            raise OSError(number, os.strerror(number))

        with pytest.MonkeyPatch.context() as patches:
            before_operation(patches, draw.randrange(1, 75), fail)
            failed += not told(partial(where.send, plan))
        labels += where.expect_own_weights(plan)
        where.expect_complete(plan)
    return line("faults of the disk", n, failed, labels, n, None)


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
    began, tenth, seed = time.monotonic(), args.kills // 10, args.seed
    with tempfile.TemporaryDirectory() as folder, Server(Path(folder) / "server", process=True) as server:
        here = Path(folder)
        run = finished_run(here)
        lines = [
            kills(3 * tenth, seed, here / "a", None),
            kills(args.kills - 7 * tenth, seed, here / "b", server),
            watched_kills(tenth, seed, here / "c", run, None),
            watched_kills(tenth, seed, here / "d", run, server),
            audited_kills(tenth, seed, here / "e", run, None),
            audited_kills(tenth, seed, here / "f", run, server),
            disk_faults(args.faults // 5, seed, here / "g"),
            server_faults(args.faults - 2 * (args.faults // 5), seed, here / "h", server),
            audited_faults(args.faults // 5, seed, here / "i", run, server),
        ]
        unknown = server.asked("unrouted")
    assert not unknown, unknown
    print(f"{time.monotonic() - began:.0f} s")
    write({"seed": seed, "huggingface_hub": version}, lines, table(lines), args.json)


if __name__ == "__main__":
    main()
