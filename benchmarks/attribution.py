"""How fast attribution is: KernelSHAP of ViT-B/16 against captum, and curves of removal against plain forwards.

    python -m benchmarks.attribution [--samples 2048] [--of 16] [--rounds 3] [--threads N] [--device cuda] [--json FILE]

KernelSHAP of 196 patches: ours, with tokens that are left out and with tokens that are the baseline's, next to captum's
KernelShap, which drives timm's model with one sample per call. Captum, and ours with the baseline's tokens, run one
part in `--of` of the samples and are multiplied: all their runs take equally long. Target: at least three times as
fast. A curve of all points next to as many plain forwards of timm's model as half the tokens. Weights are random, which
changes no speed.
"""

from argparse import Namespace
from collections.abc import Callable
from statistics import median

import captum
import timm
import torch
from captum.attr import KernelShap

import prisma
from benchmarks.core import BASE
from benchmarks.timing import CLOCKS, Line, arguments, interleave, report

TARGET = 1 / 3
"""Ours takes at most this share of captum's time."""


def part_of(args: Namespace) -> int:
    """The samples of what runs one part of them."""
    return max(args.samples // args.of, 2)


def contenders(args: Namespace) -> dict[str, Callable[[], object]]:
    """What is timed."""
    dtype = getattr(torch, args.dtype)
    ours = prisma.ViT(BASE).eval().to(args.device, dtype).requires_grad_(False)
    timms = timm.create_model("vit_base_patch16_224", pretrained=False).eval().to(args.device, dtype)
    image = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0)).to(args.device, dtype)
    mask = torch.arange(196).view(14, 14).repeat_interleave(16, 0).repeat_interleave(16, 1).to(args.device)
    options = {"feature_mask": mask[None, None], "target": 3, "perturbations_per_eval": 1}

    def kernel_shap(absent: str, samples: int) -> object:
        return prisma.attribute(ours, image, 3, "kernel_shap", absent=absent, samples=samples).map

    def captums() -> object:
        with torch.no_grad():
            return KernelShap(timms).attribute(image, n_samples=part_of(args), **options)

    def forwards() -> None:
        with torch.inference_mode():
            for _ in range(BASE.n_tokens // 2):
                timms(image)

    def curve() -> object:
        maps = torch.rand(1, 196, generator=torch.Generator().manual_seed(0)).to(image)
        return prisma.map_curves(ours, image, maps, 3, absent="dropped").curve

    return {
        "KernelSHAP, dropped": lambda: kernel_shap("dropped", args.samples),
        "KernelSHAP, baseline": lambda: kernel_shap("baseline", part_of(args)),
        "captum's KernelShap with timm": captums,
        "a curve and its random one": curve,
        "98 forwards of timm": forwards,
    }


def main() -> None:
    parser = arguments("How fast attribution is.")
    parser.add_argument("--samples", type=int, default=2048, help="runs of KernelSHAP")
    parser.add_argument("--of", type=int, default=16, help="captum runs one part in this many")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    seconds = interleave(contenders(args), args.rounds, CLOCKS[args.clock], warm_up=False)  # minutes, not milliseconds
    lines, theirs = [], seconds["captum's KernelShap with timm"]
    parts = args.samples / part_of(args)
    peers = [x * parts for x in theirs]
    for name, times, target in (("KernelSHAP, dropped", 1, TARGET), ("KernelSHAP, baseline", parts, None)):
        own = [x * times for x in seconds[name]]
        ratio = median(a / b for a, b in zip(own, peers, strict=True))
        lines.append(Line(name, "captum with timm", median(own), median(peers), ratio, "x", target))
    own, plain = seconds["a curve and its random one"], seconds["98 forwards of timm"]
    ratio = median(a / 2 / b for a, b in zip(own, plain, strict=True))
    lines.append(Line("a curve of 197 points", "98 forwards of timm", median(own) / 2, median(plain), ratio, "x", 1.0))
    report(lines, args, {"timm": timm.__version__, "captum": captum.__version__, "samples": str(args.samples)})


if __name__ == "__main__":
    main()
