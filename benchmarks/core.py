"""How fast the core is, next to its peers: ratios measured side by side in one process.

    python benchmarks/core.py [--rounds 15] [--threads N] [--batches 1 8] [--clock wall] [--device cuda] [--json FILE]

Every round runs each contender once, in an order that rotates from round to round; a ratio is the median over rounds of
(this contender / its peer in the same round), so that what else the machine does falls on both sides. Weights are
random, which changes no speed. Two models of the same architecture: timm's `vit_base_patch16_224` and ours. Where
others use the machine, `--threads 1 --clock cpu` counts the processor time of this process alone.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import timm
import torch

import prisma
from prisma.inventory import site_names

BASE = prisma.ViTConfig(image_size=224, patch_size=16, n_layers=12, d_model=768, n_heads=12, d_mlp=3072, n_classes=1000)


@dataclass(frozen=True)
class Line:
    """One line of the table."""

    what: str
    against: str
    seconds: float  # median
    peer_seconds: float  # median
    value: float  # what is held against the target: a ratio, or seconds
    unit: str  # "x" or "s"
    target: float

    @property
    def met(self) -> bool:
        return self.value <= self.target


CLOCKS: Mapping[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


def interleave(
    contenders: Mapping[str, Callable[[], object]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds of each contender in each round; the order rotates. One round before the first is not counted."""
    names = list(contenders)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for i in range(-1, rounds):
        shift = i % len(names)
        for name in names[shift:] + names[:shift]:
            start = clock()
            kept = contenders[name]()
            if torch.cuda.is_initialized():
                torch.cuda.synchronize()
            elapsed = clock() - start
            del kept  # freeing what was recorded is the caller's time
            if i >= 0:
                seconds[name].append(elapsed)
    return seconds


def ratio(seconds: Mapping[str, Sequence[float]], what: str, against: str, target: float, label: str) -> Line:
    value = median(a / b for a, b in zip(seconds[what], seconds[against], strict=True))
    return Line(f"{what}, {label}", against, median(seconds[what]), median(seconds[against]), value, "x", target)


def difference(seconds: Mapping[str, Sequence[float]], what: str, against: str, target: float) -> Line:
    value = median(a - b for a, b in zip(seconds[what], seconds[against], strict=True))
    return Line(what, against, median(seconds[what]), median(seconds[against]), value, "s", target)


def models(batch: int, rounds: int, clock: Callable[[], float], device: str, dtype: torch.dtype) -> list[Line]:
    """Our forward against timm's, and recording against our forward."""
    peer = timm.create_model("vit_base_patch16_224", pretrained=False).eval().to(device, dtype)
    ours = prisma.ViT(BASE).eval().to(device, dtype)
    images = torch.randn(batch, 3, 224, 224, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    cheap = [site for site in site_names(BASE) if not site.endswith(("attn.scores", "attn.pattern", "attn.result"))]
    plain = [site for site in site_names(BASE) if not site.endswith("attn.result")]
    contenders: dict[str, Callable[[], object]] = {
        "timm forward": lambda: peer(images),
        "forward": lambda: ours(images),
        "record all resid_post": lambda: prisma.record(ours, images, "blocks.*.resid_post"),
        "record all but scores, pattern, result": lambda: prisma.record(ours, images, cheap),
        "record all but result": lambda: prisma.record(ours, images, plain),
        "record everything": lambda: prisma.record(ours, images, "*"),
    }
    with torch.inference_mode():
        seconds = interleave(contenders, rounds, clock)
    label = f"batch {batch}"
    return [
        ratio(seconds, "forward", "timm forward", 1.03, label),
        ratio(seconds, "record all resid_post", "forward", 1.05, label),
        *[
            ratio(seconds, what, "forward", 1.25, label)
            for what in contenders
            if "all but" in what or "everything" in what
        ],
    ]


def commands(rounds: int) -> list[Line]:
    """Fresh processes: importing, and the command line's help."""
    python = [sys.executable, "-c"]
    started = {
        "interpreter": [*python, "pass"],
        "import torch": [*python, "import torch"],
        "import prisma": [*python, "import torch, prisma"],
        "import prisma; prisma.ViT": [*python, "import torch, prisma; prisma.ViT; prisma.sweep"],
        "prisma --help": [str(Path(sys.executable).with_name("prisma")), "--help"],
    }
    run = {
        name: lambda command=command: subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        for name, command in started.items()
    }
    seconds = interleave(run, rounds)
    lines = [difference(seconds, name, "import torch", 0.3) for name in ("import prisma", "import prisma; prisma.ViT")]
    help_seconds = median(seconds["prisma --help"])
    return [*lines, Line("prisma --help", "", help_seconds, 0.0, help_seconds, "s", 1.0)]


def table(lines: Sequence[Line]) -> str:
    head = f"{'':<48}{'median':>10}  {'against':<14}{'median':>10}{'value':>10}{'target':>9}"
    return "\n".join([head, *map(row, lines)])


def row(line: Line) -> str:
    peer = f"{line.against:<14}{line.peer_seconds:>8.3f} s" if line.against else " " * 24
    verdict = "met" if line.met else "MISSED"
    return (
        f"{line.what:<48}{line.seconds:>8.3f} s  {peer}"
        f"{line.value:>8.3f} {line.unit}{line.target:>7.2f} {line.unit}  {verdict}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="How fast the core is, next to its peers.")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 8])
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="of the models; commands are timed by the wall")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", help="of weights and images: float32, bfloat16")
    parser.add_argument("--json", type=Path, help="write the table here as well")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    how = (args.rounds, CLOCKS[args.clock], args.device, getattr(torch, args.dtype))
    lines = [line for batch in args.batches for line in models(batch, *how)] + commands(args.rounds)
    where = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "timm": timm.__version__,
        "device": platform.machine() if args.device == "cpu" else torch.cuda.get_device_name(args.device),
        "dtype": args.dtype,
        "threads": args.threads,
        "rounds": args.rounds,
        "clock": args.clock,
    }
    print(", ".join(f"{name} {value}" for name, value in where.items()))
    print(table(lines))
    if args.json:
        args.json.write_text(json.dumps({**where, "lines": [asdict(line) for line in lines]}, indent=2) + "\n")


if __name__ == "__main__":
    main()
