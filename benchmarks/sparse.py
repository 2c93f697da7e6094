"""How fast sparse coders train, and how well, beside the libraries whose coders people train today.

    python -m benchmarks.sparse [--rounds 5] [--threads N] [--device cuda] [--clock cpu] [--json FILE] [--tiny]
    python -m benchmarks.sparse --page          (the tables of docs/sparse.md, from benchmarks/sparse-cpu.json)

The same activations, sizes, batch and threads in one process; the order rotates from round to round. A contender trains
a coder of the same kind for the same number of steps on the same tokens. Peers are used where they are installed:
sae-lens 6.54.12, eai-sparsify 1.3.3 and overcomplete 0.3.0, which go together. Beside the tokens per second stands the
FVU on held-out tokens after these steps, for every contender. At the smaller size it is measured again after more
steps, without timing, since 10 steps are few.
"""

import argparse
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from benchmarks.timing import CLOCKS, interleave
from prisma.sparse.coders import CoderConfig, unit
from prisma.sparse.learner import Learner, Plan
from prisma.sparse.scaling import Scaling

SIZES = ((64, 1024, 16), (384, 6144, 32))
TINY = ((16, 64, 4),)
LONGER = (50, 300)
"""Steps after which quality is measured again, at the smaller size, with batches of `LONGER_BATCH`."""
LONGER_BATCH = 2048
LR = 1e-3
ROOT = Path(__file__).parents[1]
PAGE, FOUND = ROOT / "docs" / "sparse.md", ROOT / "benchmarks" / "sparse-cpu.json"
BEGIN, END = "<!-- table -->", "<!-- /table -->"
Trained = Callable[[Tensor], Tensor]
"""What a contender returns: a function from tokens to their reconstruction."""
Contender = Callable[[str, int, int, Tensor, torch.device], Trained]


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


def ours(kind: str, m: int, k: int, batches: Tensor, device: torch.device) -> Trained:
    """Prisma's own steps."""
    config = CoderConfig(kind, batches.shape[-1], m, k)
    learner = Learner(Plan(config, 0, LR, None, 10_000_000), len(batches), device)
    for x in batches:
        learner.step(x, x)
    learner.calibrate(batches[-1])
    return learner.coder.forward


def sae_lens(kind: str, m: int, k: int, batches: Tensor, device: torch.device) -> Trained:
    """The training coder of sae-lens, with its own step."""
    from sae_lens import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig, TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.saes.sae import TrainStepInput

    d = batches.shape[-1]
    of_kind = {
        "topk": (TopKTrainingSAE, TopKTrainingSAEConfig),
        "batchtopk": (BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig),
    }
    coder_class, config_class = of_kind[kind]
    sae = coder_class(config_class(d_in=d, d_sae=m, k=k, device=str(device)))
    optimizer = torch.optim.Adam(sae.parameters(), lr=LR, fused=True)
    dead = torch.zeros(m, dtype=torch.bool, device=device)
    for step, x in enumerate(batches):
        optimizer.zero_grad()
        given = {
            "sae_in": x,
            "coefficients": {},
            "dead_neuron_mask": dead,
            "n_training_steps": step,
            "is_logging_step": False,
        }
        known = TrainStepInput.__dataclass_fields__
        sae.training_forward_pass(
            TrainStepInput(**{name: value for name, value in given.items() if name in known})
        ).loss.backward()
        optimizer.step()
    return sae.forward


def sparsify(kind: str, m: int, k: int, batches: Tensor, device: torch.device) -> Trained:
    """The coder of sparsify with Adam; it has no batchtopk."""
    if kind != "topk":
        raise NotImplementedError
    os.environ.setdefault("SPARSIFY_DISABLE_TRITON", "1")
    from sparsify import SparseCoder, SparseCoderConfig

    coder = SparseCoder(batches.shape[-1], SparseCoderConfig(num_latents=m, k=k), device=device)
    optimizer = torch.optim.Adam(coder.parameters(), lr=LR, fused=True)
    for x in batches:
        optimizer.zero_grad()
        coder(x).fvu.backward()
        coder.remove_gradient_parallel_to_decoder_directions()
        optimizer.step()
        coder.set_decoder_norm_to_unit_norm()
    return lambda x: coder(x).sae_out


def overcomplete(kind: str, m: int, k: int, batches: Tensor, device: torch.device) -> Trained:
    """The coder of overcomplete with Adam; its batchtopk keeps k in a whole batch, so it gets k for each token."""
    import matplotlib
    import matplotlib.cm as cm

    if not hasattr(cm, "get_cmap"):  # which it imports, and current versions lack
        cm.get_cmap = matplotlib.colormaps.get_cmap  # type: ignore[attr-defined]
    from overcomplete.sae import BatchTopKSAE, TopKSAE

    d = batches.shape[-1]
    total = k * batches.shape[1] if kind == "batchtopk" else k
    sae = (BatchTopKSAE if kind == "batchtopk" else TopKSAE)(d, m, top_k=total, device=str(device))
    optimizer = torch.optim.Adam(sae.parameters(), lr=LR, fused=True)
    for x in batches:
        optimizer.zero_grad()
        (sae(x)[-1] - x).square().mean().backward()
        optimizer.step()
    sae.eval()
    return lambda x: sae(x)[-1]


CONTENDERS: dict[str, Contender] = {
    "prisma": ours,
    "sae-lens": sae_lens,
    "sparsify": sparsify,
    "overcomplete": overcomplete,
}


def there(name: str, kind: str, device: torch.device) -> bool:
    """Whether a contender is installed and has this kind: it trains two steps."""
    try:
        CONTENDERS[name](kind, 8, 2, torch.randn(2, 16, 4, device=device), device)
    except (ImportError, NotImplementedError) as error:
        print(f"left out: {name} {kind} ({type(error).__name__} {error})")
        return False
    return True


def peak_memory(train: Callable[[], object], device: torch.device) -> float:
    """MiB of GPU memory that a training takes beside the tokens, at most; nan on a CPU."""
    if device.type != "cuda":
        return float("nan")
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    train()
    return (torch.cuda.max_memory_allocated(device) - before) / 2**20


@torch.no_grad()
def quality(trained: Trained, x: Tensor) -> float:
    """FVU on tokens [n, d]."""
    return ((x - trained(x)).square().sum() / (x - x.mean(0)).square().sum()).item()


def measure(
    size: tuple[int, int, int],
    kind: str,
    batch: int,
    steps: int,
    rounds: int,
    device: torch.device,
    clock: Callable[[], float],
) -> list[dict[str, Any]]:
    """A row for each contender: tokens per second, the ratio to ours, and the quality."""
    d, m, k = size
    x = activations(batch * (steps + 1), d, m, k, device)
    batches, held = x[: batch * steps].view(steps, batch, d), x[batch * steps :]
    last: dict[str, Trained] = {}

    def training(name: str) -> Callable[[], object]:
        def run() -> None:
            last[name] = CONTENDERS[name](kind, m, k, batches, device)

        return run

    names = [name for name in CONTENDERS if there(name, kind, device)]
    seconds = interleave({name: training(name) for name in names}, rounds, clock)
    return [
        {
            "kind": kind, "d": d, "m": m, "k": k, "library": name,
            "tokens_per_second": batch * steps / median(seconds[name]),
            "ours_is_faster_by": median(a / b for a, b in zip(seconds[name], seconds["prisma"], strict=True)),
            "fvu_held_out": quality(last[name], held), "gpu_mib": peak_memory(training(name), device),
        }
        for name in names
    ]  # fmt: skip


def longer(size: tuple[int, int, int], batch: int, counts: Sequence[int], device: torch.device) -> list[dict[str, Any]]:
    """FVU on held-out tokens after more steps, for each contender."""
    d, m, k = size
    x = activations(batch * (max(counts) + 1), d, m, k, device)
    batches, held = x[: batch * max(counts)].view(max(counts), batch, d), x[batch * max(counts) :]
    return [
        {
            "kind": kind, "d": d, "m": m, "k": k, "steps": steps, "batch": batch, "library": name,
            "fvu_held_out": round(quality(CONTENDERS[name](kind, m, k, batches[:steps], device), held), 4),
        }
        for kind in ("topk", "batchtopk")
        for name in CONTENDERS
        if there(name, kind, device)
        for steps in counts
    ]  # fmt: skip


def tables(found: Mapping[str, Any]) -> str:
    """What was measured, in Markdown."""
    lines = [
        f"On {found['device']}, {found['threads']} thread, processor's time, {found['steps']} steps with batches of "
        f"{found['batch']:,}, {found['rounds']} rounds:",
        "",
        "| kind | d | m | k | library | tokens per second | ours is faster by | FVU held out |",
        "|---|---|---|---|---|---|---|---|",
        *(
            f"| {row['kind']} | {row['d']} | {row['m']:,} | {row['k']} | {row['library']} "
            f"| {row['tokens_per_second']:,.0f} | {row['ours_is_faster_by']:.2f} | {row['fvu_held_out']:.3f} |"
            for row in found["rows"]
        ),
    ]
    if found["longer"]:
        counts = sorted({row["steps"] for row in found["longer"]})
        names = list(dict.fromkeys((row["kind"], row["library"]) for row in found["longer"]))
        fvu = {(row["kind"], row["library"], row["steps"]): row["fvu_held_out"] for row in found["longer"]}
        lines += [
            "",
            f"FVU held out after more steps, d 64, m 1,024, k 16, batches of {found['longer'][0]['batch']:,}:",
            "",
            f"| kind | library | {' | '.join(f'{steps} steps' for steps in counts)} |",
            f"|---|---|{'---|' * len(counts)}",
            *(
                f"| {kind} | {name} | {' | '.join(f'{fvu[kind, name, steps]:.3f}' for steps in counts)} |"
                for kind, name in names
            ),
        ]
    return "\n".join(lines)


def write_page() -> None:
    """The tables of the page, from what was measured."""
    text = PAGE.read_text()
    start, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    PAGE.write_text(f"{text[:start]}\n{tables(json.loads(FOUND.read_text()))}\n{text[end:]}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--batch", type=int, default=4096)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--tiny", action="store_true", help="a size at which nothing is measured, to see that it runs")
    parser.add_argument("--page", action="store_true", help="only write the tables of docs/sparse.md")
    given = parser.parse_args()
    if given.page:
        write_page()
        return
    if given.threads:
        torch.set_num_threads(given.threads)
    batch, steps = (64, 3) if given.tiny else (given.batch, given.steps)
    rows = [
        row
        for size in (TINY if given.tiny else SIZES)
        for kind in ("topk", "batchtopk")
        for row in measure(size, kind, batch, steps, given.rounds, torch.device(given.device), CLOCKS[given.clock])
    ]
    for row in rows:
        cells = (f"{name} {value:,.4g}" if isinstance(value, float) else str(value) for name, value in row.items())
        print("  ".join(cells))
    if given.json:
        told = {"device": given.device, "threads": torch.get_num_threads(), "clock": given.clock}
        told |= {"rounds": given.rounds, "batch": batch, "steps": steps, "rows": rows}
        sizes = (TINY[0], 16, (2, 4)) if given.tiny else (SIZES[0], LONGER_BATCH, LONGER)
        told["longer"] = longer(*sizes, torch.device(given.device))
        given.json.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
