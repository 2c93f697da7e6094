"""Timing side by side: every round runs each contender once; a ratio is the median over rounds of two in one round."""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch


@dataclass(frozen=True)
class Line:
    """One line of the table."""

    what: str
    against: str
    seconds: float  # median
    peer_seconds: float  # median
    value: float  # what is held against the target: a ratio, or seconds
    unit: str  # "x" or "s"
    target: float | None  # at most this; None: it is measured and wants nothing

    @property
    def met(self) -> bool:
        return self.target is None or self.value <= self.target


CLOCKS: Mapping[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


def interleave(
    contenders: Mapping[str, Callable[[], object]],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
    warm_up: bool = True,
    told: Callable[[dict[str, list[float]]], object] = lambda seconds: None,
) -> dict[str, list[float]]:
    """Seconds of each contender in each round; the order rotates.

    Args:
        warm_up: one round before them is not counted.
        told: called with what is known after every round, the uncounted one included.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for i in range(-1 if warm_up else 0, rounds):
        for name in rotated(contenders, i):
            start = clock()
            kept = contenders[name]()
            if torch.cuda.is_initialized():
                torch.cuda.synchronize()
            elapsed = clock() - start
            del kept  # freeing what was recorded is the caller's time
            if i >= 0:
                seconds[name].append(elapsed)
        told(seconds)
    return seconds


def rotated(names: Iterable[str], i: int) -> list[str]:
    """The order of round `i`, so that none always comes first."""
    ordered = list(names)
    shift = i % len(ordered)
    return ordered[shift:] + ordered[:shift]


def ratio(seconds: Mapping[str, Sequence[float]], what: str, against: str, target: float, label: str) -> Line:
    value = median(a / b for a, b in zip(seconds[what], seconds[against], strict=True))
    return Line(f"{what}, {label}", against, median(seconds[what]), median(seconds[against]), value, "x", target)


def difference(seconds: Mapping[str, Sequence[float]], what: str, against: str, target: float) -> Line:
    value = median(a - b for a, b in zip(seconds[what], seconds[against], strict=True))
    return Line(what, against, median(seconds[what]), median(seconds[against]), value, "s", target)


def table(lines: Sequence[Line]) -> str:
    head = f"{'':<48}{'median':>10}  {'against':<14}{'median':>10}{'value':>10}{'target':>9}"
    return "\n".join([head, *map(row, lines)])


def row(line: Line) -> str:
    peer = f"{line.against:<14}{line.peer_seconds:>8.3f} s" if line.against else " " * 24
    verdict = "met" if line.met else "MISSED"
    wanted = "" if line.target is None else f"{line.target:>7.2f} {line.unit}  {verdict}"
    return f"{line.what:<48}{line.seconds:>8.3f} s  {peer}{line.value:>8.3f} {line.unit}{wanted}"


def arguments(description: str) -> argparse.ArgumentParser:
    """What every benchmark can be told."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 8])
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="of the models; commands are timed by the wall")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", help="of weights and images: float32, bfloat16")
    parser.add_argument("--json", type=Path, help="write the table here as well")
    return parser


def report(lines: Sequence[Line], args: argparse.Namespace, versions: Mapping[str, str]) -> None:
    """Print the table and where it was measured, and write both if asked to."""
    where = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        **versions,
        "device": platform.machine() if args.device == "cpu" else torch.cuda.get_device_name(args.device),
        "dtype": args.dtype,
        "threads": args.threads,
        "rounds": args.rounds,
        "clock": args.clock,
    }
    write(where, lines, table(lines), args.json)


def write(where: Mapping[str, Any], lines: Sequence[Any], text: str, path: Path | None) -> None:
    """Print where it was measured and the table, and write both, the lines as objects, to a file of JSON."""
    print(", ".join(f"{name} {value}" for name, value in where.items()))
    print(text)
    if path:
        path.write_text(json.dumps({**where, "lines": [asdict(line) for line in lines]}, indent=2) + "\n")
