"""How fast the core is, next to its peers: ratios measured side by side in one process.

    python -m benchmarks.core [--rounds 15] [--threads N] [--batches 1 8] [--clock wall] [--device cuda] [--json FILE]

Every round runs each contender once, in an order that rotates from round to round; a ratio is the median over rounds of
(this contender / its peer in the same round), so that what else the machine does falls on both sides. Weights are
random, which changes no speed. Two models of the same architecture: timm's `vit_base_patch16_224` and ours. Where
others use the machine, `--threads 1 --clock cpu` counts the processor time of this process alone.
"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median

import timm
import torch

import prisma
from benchmarks.timing import CLOCKS, Line, arguments, difference, interleave, ratio, report
from prisma.inventory import site_names

BASE = prisma.ViTConfig(image_size=224, patch_size=16, n_layers=12, d_model=768, n_heads=12, d_mlp=3072, n_classes=1000)


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


def main() -> None:
    parser = arguments("How fast the core is, next to its peers.")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    how = (args.rounds, CLOCKS[args.clock], args.device, getattr(torch, args.dtype))
    lines = [line for batch in args.batches for line in models(batch, *how)]
    if args.device == "cpu":  # how fast a process starts does not depend on the GPU
        lines += commands(args.rounds)
    report(lines, args, {"timm": timm.__version__})


if __name__ == "__main__":
    main()
