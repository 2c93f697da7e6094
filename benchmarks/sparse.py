"""How fast sparse coders train, and how well, beside the libraries whose coders people train today.

    python -m benchmarks.sparse [--rounds 5] [--threads N] [--clock cpu] [--json FILE] [--tiny]
    python -m benchmarks.sparse --device cuda [--tf32] --json benchmarks/sparse-cuda.json
    python -m benchmarks.sparse --quality --json FILE     (the FVU at equal steps, in place of the speed)
    python -m benchmarks.sparse --page          (the tables of docs/sparse.md, from the files in benchmarks/)

The same activations, sizes, batch and threads in one process; the order rotates from round to round. A contender trains
a coder of the same kind for the same number of steps on the same tokens. Peers are used where they are installed:
sae-lens 6.54.12, eai-sparsify 1.3.3 and overcomplete 0.3.0, which go together. On a GPU, capturing our graph is part of
the time, and products are in float32 for all, or, with --tf32, in TensorFloat-32 for all.

Quality is the FVU on tokens that no coder was trained on, and the share of latents that are active on none of them. A
contender whose rate rises and falls is trained anew for each number of steps; of one without, which has the same
weights after 50 steps of 1,000 as of 50, a single training is looked at on its way.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks.sparse_contenders import CONTENDERS, NEVER, Size, there
from benchmarks.timing import CLOCKS, interleave
from prisma.sparse.coders import unit
from prisma.sparse.scaling import Scaling

SIZES = ((64, 1024, 16), (384, 6144, 32))
TINY = ((16, 64, 4),)
KINDS = ("topk", "batchtopk")
COUNTS = (10, 50, 100, 300, 1000)
"""Steps after which quality is measured."""
BATCHES = {64: 512, 384: 256}
"""Tokens of a step there, by the width of the tokens: at the larger size few, since a peer takes a second for 1,000."""
HELD_OUT = 4096
STEPS = {"cpu": 20, "cuda": 300}
"""Steps of a training whose time is measured."""
DISTINCT = 20  # batches of it
ROOT = Path(__file__).parents[1]
PAGE, FOUND = ROOT / "docs" / "sparse.md", ROOT / "benchmarks" / "sparse-cpu.json"
ON_GPU, OPERATORS = ROOT / "benchmarks" / "sparse-cuda.json", ROOT / "benchmarks" / "sparse-operators.json"
BEGIN, END = "<!-- table -->", "<!-- /table -->"


def activations(n: int, d: int, m: int, k: int, device: torch.device) -> Tensor:
    """Tokens [n, d] that are sums of k of m directions, with noise: scaled as every peer's trainer wants them."""
    generator = torch.Generator().manual_seed(0)
    directions = unit(torch.randn(m // 2, d, generator=generator))
    parts = []
    for size in [4096] * (n // 4096) + [n % 4096] * (n % 4096 > 0):
        codes = torch.rand(size, k, generator=generator) + 0.5
        chosen = torch.randint(m // 2, (size, k), generator=generator)
        parts.append(torch.nn.functional.embedding_bag(chosen, directions, per_sample_weights=codes, mode="sum"))
    x = torch.cat(parts)
    x = x + 0.1 * torch.randn(x.shape, generator=generator)
    return Scaling.of(x, "benchmark")(x).to(device)


def peak_memory(train: Callable[[], object], device: torch.device) -> float:
    """MiB of GPU memory that a training takes beside the tokens, at most; nan on a CPU."""
    if device.type != "cuda":
        return float("nan")
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    train()
    return (torch.cuda.max_memory_allocated(device) - before) / 2**20


def measure(
    shape: tuple[int, int, int],
    kind: str,
    batch: int,
    steps: int,
    rounds: int,
    device: torch.device,
    clock: Callable[[], float],
) -> list[dict[str, Any]]:
    """A row for each contender: tokens per second, the ratio to ours, and its memory."""
    size = Size(kind, *shape)
    distinct = min(steps, DISTINCT)
    batches = activations(batch * distinct, size.d, size.m, size.k, device).view(distinct, batch, size.d)

    def training(name: str) -> Callable[[], object]:
        def run() -> object:
            one = CONTENDERS[name](size, steps, device, NEVER)
            for i in range(steps):
                one.step(batches[i % distinct])
            return one

        return run

    names = [name for name in CONTENDERS if there(name, kind, device)]
    seconds = interleave({name: training(name) for name in names}, rounds, clock)
    return [
        {
            "kind": kind, "d": size.d, "m": size.m, "k": size.k, "library": name,
            "tokens_per_second": batch * steps / median(seconds[name]),
            "ours_is_faster_by": median(a / b for a, b in zip(seconds[name], seconds["prisma"], strict=True)),
            "gpu_mib": peak_memory(training(name), device),
        }
        for name in names
    ]  # fmt: skip


def qualities(size: Size, name: str, batches: Tensor, held: Tensor, counts: Sequence[int]) -> list[dict[str, Any]]:
    """A row for each number of steps, of one contender."""
    rows, device = [], held.device
    dead_after = max(len(batches) * batches.shape[1] // 10, batches.shape[1])
    torch.manual_seed(0)
    training = CONTENDERS[name](size, max(counts), device, dead_after)
    for taken, x in enumerate(batches[: max(counts)], 1):
        training.step(x)
        if taken in counts and (not training.scheduled or taken == max(counts)):
            with torch.no_grad():
                guess, on = training.code(held)
            fvu = ((held - guess).square().sum() / (held - held.mean(0)).square().sum()).item()
            dead = (~on.any(0)).double().mean().item()
            rows.append({"steps": taken, "fvu_held_out": round(fvu, 4), "dead": round(dead, 4)})
    return rows


def quality(
    shape: tuple[int, int, int], kind: str, batch: int, counts: Sequence[int], device: torch.device
) -> list[dict[str, Any]]:
    """FVU and dead latents on held-out tokens after equal steps, for each contender."""
    size, most = Size(kind, *shape), max(counts)
    x = activations(batch * most + HELD_OUT, size.d, size.m, size.k, device)
    batches, held = x[: batch * most].view(most, batch, size.d), x[batch * most :]
    rows = []
    for name in (name for name in CONTENDERS if there(name, kind, device)):
        scheduled = CONTENDERS[name](size, 1, device, NEVER).scheduled
        for some in [[count] for count in counts] if scheduled else [counts]:
            found = qualities(size, name, batches[: max(some)], held, some)
            rows += [{"kind": kind, **vars(size), "batch": batch, "library": name, **row} for row in found]
            print(kind, size.d, name, found, flush=True)
    return rows


def speed_table(found: Mapping[str, Any]) -> list[str]:
    """The lines of the table of speeds, on a GPU with the memory that a training takes at most beside its tokens."""
    on_gpu = found["device"] != "cpu"
    how = f"products in {found['products']}" if on_gpu else f"{found['threads']} thread, processor's time"
    return [
        f"On {found['device']}, {how}, {found['steps']} steps with batches of {found['batch']:,}, {found['rounds']} "
        "rounds:",
        "",
        f"| kind | d | m | k | library | tokens per second | ours is faster by |{' MiB |' if on_gpu else ''}",
        f"|---|---|---|---|---|---|---|{'---|' if on_gpu else ''}",
        *(
            f"| {row['kind']} | {row['d']} | {row['m']:,} | {row['k']} | {row['library']} "
            f"| {row['tokens_per_second']:,.0f} | {row['ours_is_faster_by']:.2f} |"
            f"{' {:,.0f} |'.format(row['gpu_mib']) if on_gpu else ''}"
            for row in found["rows"]
        ),
    ]


def operator_table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The lines of the table of what a step asks of a GPU (`benchmarks.sparse_operators`)."""
    one = rows[0]
    return [
        f"What one step asks of a GPU, counted without one, d {one['d']}, m {one['m']:,}, k {one['k']}, batches of "
        f"{one['batch']:,}: operators of torch, waits of the host for a number, matrix products, and what all else "
        "reads and writes:",
        "",
        "| kind | library | operators | waits | products, GFLOP | the rest, MB |",
        "|---|---|---|---|---|---|",
        *(
            f"| {row['kind']} | {row['library']} | {row['operators']} | {row['waits']} | {row['gflop']:.0f} "
            f"| {row['moved_mb']:,} |"
            for row in rows
        ),
    ]


def quality_table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The lines of a table of qualities, of one size."""
    counts, one = sorted({row["steps"] for row in rows}), rows[0]
    known = {(row["kind"], row["library"], row["steps"]): row for row in rows}
    lines = [
        f"FVU on {HELD_OUT:,} tokens that were held out, d {one['d']}, m {one['m']:,}, k {one['k']}, batches of "
        f"{one['batch']:,}, and in brackets the percentage of latents that are active on none of them:",
        "",
        f"| kind | library | {' | '.join(f'{steps:,} steps' for steps in counts)} |",
        f"|---|---|{'---|' * len(counts)}",
    ]
    for kind, name in dict.fromkeys((row["kind"], row["library"]) for row in rows):
        cells = [known[kind, name, steps] for steps in counts]
        told = " | ".join(f"{cell['fvu_held_out']:.3f} ({100 * cell['dead']:.1f})" for cell in cells)
        lines.append(f"| {kind} | {name} | {told} |")
    return lines


def tables() -> str:
    """What was measured, in Markdown."""
    found = json.loads(FOUND.read_text())
    lines = speed_table(found)
    if ON_GPU.exists():
        lines += ["", *speed_table(json.loads(ON_GPU.read_text()))]
    lines += ["", *operator_table(json.loads(OPERATORS.read_text()))]
    for d in dict.fromkeys(row["d"] for row in found["quality"]):
        lines += ["", *quality_table([row for row in found["quality"] if row["d"] == d])]
    return "\n".join(lines)


def write_page() -> None:
    """The tables of the page, from what was measured."""
    text = PAGE.read_text()
    start, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    PAGE.write_text(f"{text[:start]}\n{tables()}\n{text[end:]}")


def speeds(given: argparse.Namespace) -> dict[str, Any]:
    """All rows of speed, and how they were measured."""
    on_gpu = given.device != "cpu"
    batch, steps = (64, 3) if given.tiny else (given.batch, given.steps or STEPS["cuda" if on_gpu else "cpu"])
    rows = [
        row
        for shape in (TINY if given.tiny else SIZES)
        for kind in KINDS
        for row in measure(shape, kind, batch, steps, given.rounds, torch.device(given.device), CLOCKS[given.clock])
    ]
    for row in rows:
        cells = (f"{name} {value:,.4g}" if isinstance(value, float) else str(value) for name, value in row.items())
        print("  ".join(cells))
    name = torch.cuda.get_device_name() if on_gpu else "cpu"
    products = "TensorFloat-32" if given.tf32 else "float32"
    told = {"device": name, "products": products, "threads": torch.get_num_threads(), "clock": given.clock}
    return told | {"rounds": given.rounds, "batch": batch, "steps": steps, "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--steps", type=int, help=f"of a training whose time is measured; by default {STEPS}")
    parser.add_argument("--tf32", action="store_true", help="products in TensorFloat-32, for all contenders")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--tiny", action="store_true", help="a size at which nothing is measured, to see that it runs")
    parser.add_argument("--quality", action="store_true", help="the FVU at equal steps, instead of the speed")
    parser.add_argument("--page", action="store_true", help="only write the tables of docs/sparse.md")
    given = parser.parse_args()
    if given.page:
        write_page()
        return
    if given.threads:
        torch.set_num_threads(given.threads)
    if given.tf32:
        torch.set_float32_matmul_precision("high")
    if given.quality:
        shapes, counts, device = TINY if given.tiny else SIZES, (2, 4) if given.tiny else COUNTS, given.device
        found: dict[str, Any] = {"quality": [
            row
            for shape in shapes
            for kind in KINDS
            for row in quality(shape, kind, BATCHES.get(shape[0], 16), counts, torch.device(device))
        ]}  # fmt: skip
    else:
        found = speeds(given)
    if given.json:
        before = json.loads(given.json.read_text()) if given.json.exists() else {}
        given.json.write_text(json.dumps(before | found, indent=1) + "\n")


if __name__ == "__main__":
    main()
