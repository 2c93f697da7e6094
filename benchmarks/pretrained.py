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
from pathlib import Path
from statistics import median
from typing import Any, cast

import torch
from torch import nn

import prisma
from benchmarks.timing import CLOCKS, Line, arguments, interleave, ratio, report

FORWARD, LOADING, MEMORY = 1.03, 1.3, 1.2
NARROW: Mapping[str, Any] = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
}


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
        ours, theirs = torch.compile(ours), cast(nn.Module, torch.compile(theirs))
    lines = []
    for batch in batches:
        images = torch.randn(batch, 3, 224, 224, generator=torch.Generator().manual_seed(0)).to(*place)
        contenders = {"its library": lambda x=images: ask(theirs, x), family: lambda x=images: ours(x)}
        with torch.inference_mode():
            seconds = interleave(contenders, args.rounds, CLOCKS[args.clock])
        lines.append(ratio(seconds, family, "its library", FORWARD, f"batch {batch}"))
    return lines


LIBRARIES: Mapping[str, tuple[str, str]] = {
    "timm": (
        "timm.models.save_for_hf(timm.create_model('vit_large_patch16_224'), folder, safe_serialization=True)",
        "timm.create_model('local-dir:' + folder, pretrained=True).eval()",
    ),
    "transformers": (
        "transformers.ViTForImageClassification(transformers.ViTConfig(hidden_size=1024, num_hidden_layers=24, "
        "num_attention_heads=16, intermediate_size=4096, num_labels=1000)).save_pretrained(folder)",
        "transformers.ViTForImageClassification.from_pretrained(folder).eval()",
    ),
}
"""Library -> how it saves a ViT-L/16 to a folder, and how it loads one."""
TIMED = """
import resource, sys, time
import {library}, torch, prisma
from prisma.loaded import load
torch.set_num_threads({threads})
folder, images = sys.argv[1], torch.zeros(1, 3, 224, 224)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before, start = peak(), time.perf_counter()
model = {load}
loaded = time.perf_counter() - start
with torch.inference_mode():
    model(images)
print(loaded, time.perf_counter() - start, peak() - before)
"""


def loading(library: str, rounds: int, threads: int) -> list[Line]:
    """ViT-L/16 from a folder, ours over the library's: seconds to the model, to its first answer, and peak memory.

    Loading alone says little of a library that maps the file and reads it when it is used.
    """
    save, load = LIBRARIES[library]
    loads = {library: load, "prisma": "load(folder).model"}
    found: dict[str, list[tuple[float, ...]]] = {name: [] for name in loads}
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            [sys.executable, "-c", f"import sys, {library}; folder = sys.argv[1]; {save}", folder], check=True
        )
        size = sum(path.stat().st_size for path in Path(folder).glob("*.safetensors"))
        for _ in range(rounds):
            for name, how in loads.items():
                command = [sys.executable, "-c", TIMED.format(library=library, threads=threads, load=how), folder]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
                found[name].append(tuple(map(float, done.stdout.split())))
    ours, theirs = (list(zip(*found[name], strict=True)) for name in ("prisma", library))
    (load_ours, first_ours, peak_ours), (load_theirs, first_theirs, peak_theirs) = (
        tuple(map(median, side)) for side in (ours, theirs)
    )
    ratios = [median(a / b for a, b in zip(ours[i], theirs[i], strict=True)) for i in (0, 1)]
    return [
        Line("load ViT-L/16", library, load_ours, load_theirs, ratios[0], "x", LOADING),
        Line("load ViT-L/16 and answer once", library, first_ours, first_theirs, ratios[1], "x", LOADING),
        Line(
            f"peak memory beyond {library}'s, in weights", "", 0.0, 0.0, (peak_ours - peak_theirs) / size, "x", MEMORY
        ),
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
        lines += [line for name in LIBRARIES for line in loading(name, 3, args.threads)]
    packages = [name for name in ("timm", "transformers", "open_clip_torch") if find_spec(name.partition("_torch")[0])]
    report(lines, args, {name: version(name) for name in packages})


if __name__ == "__main__":
    main()
