"""How fast pretrained models are in Prisma, next to their own libraries, and what loading costs.

    python -m benchmarks.pretrained [--rounds 15] [--batches 1 8] [--device cuda] [--dtype bfloat16] [--compile]

Forwards: a ViT-B/16 of each family, idle, on the same images (see `benchmarks.timing`); weights are random, which
changes no speed. Loading (on the CPU): ViT-L/16 from a folder that timm saved; each load is a process of its own, and
the peak of its memory is what the kernel says, less what importing the libraries takes.
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from importlib.metadata import version
from importlib.util import find_spec
from statistics import median
from typing import Any

import torch
from torch import nn

import prisma
from benchmarks.timing import CLOCKS, Line, arguments, interleave, ratio, report

FORWARD, LOADING, MEMORY = 1.03, 1.3, 1.2
NARROW = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}


def timm_vit() -> nn.Module:
    import timm

    return timm.create_model("vit_base_patch16_224")


def timm_eva() -> nn.Module:
    import timm

    return timm.create_model("vit_base_patch16_dinov3", img_size=224)


def transformers_vit() -> nn.Module:
    import transformers

    return transformers.ViTForImageClassification(transformers.ViTConfig(**NARROW, attn_implementation="sdpa"))


def transformers_clip() -> nn.Module:
    import transformers

    config = transformers.CLIPVisionConfig(**NARROW, patch_size=16, projection_dim=512, attn_implementation="sdpa")
    return transformers.CLIPVisionModelWithProjection(config)


def open_clip_vit() -> nn.Module:
    import open_clip

    return open_clip.create_model("ViT-B-16")


FAMILIES: Mapping[str, tuple[Callable[[], nn.Module], Callable[[Any, torch.Tensor], object]]] = {
    "timm VisionTransformer": (timm_vit, lambda module, images: module(images)),
    "timm Eva (DINOv3)": (timm_eva, lambda module, images: module(images)),
    "transformers ViT": (transformers_vit, lambda module, images: module(images)),
    "transformers CLIP": (transformers_clip, lambda module, images: module(images)),
    "open_clip CLIP": (open_clip_vit, lambda module, images: module.encode_image(images)),
}
"""Family -> how its own library builds it, and how it is asked."""


def forwards(family: str, batches: list[int], args: Any) -> list[Line]:
    build, ask = FAMILIES[family]
    place = (args.device, getattr(torch, args.dtype))
    theirs = build().eval()
    ours: Any = prisma.load(theirs).model.to(*place)
    theirs = theirs.to(*place)
    if args.compile:
        ours, theirs = torch.compile(ours), torch.compile(theirs)
    lines = []
    for batch in batches:
        images = torch.randn(batch, 3, 224, 224, generator=torch.Generator().manual_seed(0)).to(*place)
        contenders = {"its library": lambda x=images: ask(theirs, x), family: lambda x=images: ours(x)}
        with torch.inference_mode():
            seconds = interleave(contenders, args.rounds, CLOCKS[args.clock])
        lines.append(ratio(seconds, family, "its library", FORWARD, f"batch {batch}"))
    return lines


IMPORTS = "import resource, sys, timm, torch, prisma; from prisma.loaded import load; torch.set_num_threads({threads})"
LOADS = {
    "timm": "kept = timm.create_model('local-dir:' + sys.argv[1], pretrained=True).eval()",
    "prisma": "kept = load(sys.argv[1])",
}
TIMED = """
import time
before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
{load}
print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def loading(rounds: int, threads: int) -> list[Line]:
    """Seconds and peak memory of loading ViT-L/16 from a folder, ours over timm's."""
    import timm
    from timm.models import save_for_hf

    with tempfile.TemporaryDirectory() as folder:
        module = timm.create_model("vit_large_patch16_224")
        size = sum(x.numel() * x.element_size() for x in module.parameters())
        save_for_hf(module, folder, safe_serialization=True)
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in LOADS}
        for _ in range(rounds):
            for name, load in LOADS.items():
                code = IMPORTS.format(threads=threads) + TIMED.format(load=load)
                done = subprocess.run([sys.executable, "-c", code, folder], check=True, capture_output=True, text=True)
                seconds, kilobytes = done.stdout.split()
                found[name].append((float(seconds), float(kilobytes) * 1024))
    (ours, our_peak), (peer, peer_peak) = (
        (median(row[0] for row in found[name]), median(row[1] for row in found[name])) for name in ("prisma", "timm")
    )
    beyond = (our_peak - peer_peak) / size
    return [
        Line("load ViT-L/16 from a folder", "timm", ours, peer, ours / peer, "x", LOADING),
        Line("memory beyond timm's peak, in weights", "", 0.0, 0.0, beyond, "x", MEMORY),
    ]


def main() -> None:
    parser = arguments("How fast pretrained models are in Prisma, next to their own libraries.")
    parser.add_argument("--compile", action="store_true", help="with torch.compile, both sides")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    lines: list[Line] = []
    for family in FAMILIES:
        try:
            lines += forwards(family, args.batches, args)
        except ModuleNotFoundError as error:
            print(f"{family} is left out: {error.name} is not installed", file=sys.stderr)
    if args.device == "cpu":
        lines += loading(max(3, args.rounds // 3), args.threads)
    packages = [name for name in ("timm", "transformers", "open_clip_torch") if find_spec(name.partition("_torch")[0])]
    report(lines, args, {name: version(name) for name in packages})


if __name__ == "__main__":
    main()
