"""How fast checkpoints reach the Hub: our publisher next to a loop of the client's own calls, side by side.

    python -m benchmarks.publish [--rounds 3] [--checkpoints 100] [--megabytes 5] [--delays 0 0.1] [--json FILE]

The Hub is that of the tests, in a process of its own on this machine. The loop is what people write: for each
checkpoint `create_branch` and `upload_folder(revision=...)`, which verifies nothing. Ours hashes the files, commits,
verifies and labels each checkpoint, and publishes `main`. Both run in fresh processes, once in every round, in an order
that rotates; a ratio is the median over rounds. `delay` is how much later every answer comes, as over a network: on
loopback itself, the time is that of the server, which writes the bytes to disk. The weights are random bytes.
"""

import argparse
import platform
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median

import torch
from huggingface_hub import HfApi, __version__
from huggingface_hub.utils.tqdm import disable_progress_bars

from benchmarks.disturbing import client
from benchmarks.timing import rotated, write
from prisma.publish.publishing import send
from tests import processes
from tests.hubserver.running import Hub
from tests.publish.small_plans import plan_of, remote_hub, write_checkpoints

Measured = tuple[float, float, float]  # seconds, requests, MiB by which memory grew
NOBODY = "lab/nobody"
TARGETS = {"seconds": 1 / 3, "requests": 1 / 3, "MiB of memory": 1.0}
"""What is measured -> the largest ratio of ours to the loop's that is aimed at."""


@dataclass(frozen=True)
class Line:
    """One line of the table."""

    delay: float  # seconds
    what: str
    ours: float  # median
    loop: float  # median
    ratio: float  # median of the ratios of one round
    target: float


def ours(folder: Path, repo: str) -> None:
    send(plan_of(folder / "run"), remote_hub(folder / repo.replace("/", "-"), repo), progress=False)


def loop(folder: Path, repo: str) -> None:
    api = HfApi()
    api.create_repo(repo, private=True)
    for checkpoint in sorted((folder / "run").iterdir()):
        api.create_branch(repo, branch=checkpoint.name)
        api.upload_folder(repo_id=repo, folder_path=checkpoint, revision=checkpoint.name)


CONTENDERS: dict[str, Callable[[Path, str], None]] = {"publish": ours, "loop of upload_folder": loop}


def contend(name: str, url: str, folder: Path, repo: str, told: Connection) -> None:
    """What a process does: one contender, once."""
    with client(url, folder):
        disable_progress_bars()
        HfApi().repo_exists(NOBODY)  # what the client imports, and the connection, are made before
        before, began = _memory(), time.perf_counter()
        CONTENDERS[name](folder, repo)
        told.send((time.perf_counter() - began, _memory() - before))


def _memory() -> float:
    """MiB at the most, so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(name: str, server: Hub, folder: Path, repo: str) -> Measured:
    context = processes.context()
    ours_end, theirs = context.Pipe()
    server.forget()
    child = context.Process(target=contend, args=(name, server.url, folder, repo, theirs))
    child.start()
    seconds, memory = ours_end.recv()
    processes.ended(child)
    requests = sum(row["origin"] == "hub" and NOBODY not in row["path"] for row in server.requests)
    return seconds, requests, memory


def compare(server: Hub, folder: Path, rounds: int, delay: float) -> list[Line]:
    """Lines of time, requests and memory."""
    server.heal()
    if delay:
        server.fail("slow", times=None, seconds=delay)
    found = {name: list[Measured]() for name in CONTENDERS}
    for i in range(rounds):
        for name in rotated(CONTENDERS, i):
            repo = f"lab/{name.split()[0]}-{round(1000 * delay)}-{i}"
            found[name].append(measure(name, server, folder, repo))
    lines = []
    for i, (what, target) in enumerate(TARGETS.items()):
        ratio = median(a[i] / b[i] for a, b in zip(*found.values(), strict=True))
        ours, theirs = (median(row[i] for row in rows) for rows in found.values())
        lines.append(Line(delay, what, ours, theirs, ratio, target))
    return lines


def table(lines: Sequence[Line]) -> str:
    """Markdown."""
    rows = [
        f"| {1000 * line.delay:.0f} ms | {line.what} | {line.ours:.1f} | {line.loop:.1f} | {line.ratio:.2f} | "
        f"{line.target:.2f} |"
        for line in lines
    ]
    return "\n".join(["| delay | | publish | loop | ratio | target |", "|---|---|---|---|---|---|", *rows])


def main() -> None:
    parser = argparse.ArgumentParser(description="How fast checkpoints reach the Hub.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--checkpoints", type=int, default=100)
    parser.add_argument("--megabytes", type=float, default=5.0)
    parser.add_argument("--delays", type=float, nargs="*", default=[0.0, 0.1], help="seconds")
    parser.add_argument("--json", type=Path, help="write the table here as well")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, Hub(Path(name) / "server", process=True) as server:
        folder = Path(name)
        write_checkpoints(folder / "run", args.checkpoints, round(args.megabytes * 1e6))
        lines = [line for delay in args.delays for line in compare(server, folder, args.rounds, delay)]
    where = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "huggingface_hub": __version__,
        "device": platform.machine(),
        "rounds": args.rounds,
        "checkpoints": args.checkpoints,
        "megabytes": args.megabytes,
    }
    write(where, lines, table(lines), args.json)


if __name__ == "__main__":
    main()
