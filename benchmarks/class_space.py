"""How fast the analyses of class space are: images per second of ViT-B/16 against plain forwards of timm's model.

    python -m benchmarks.class_space [--images 64] [--rounds 5] [--threads N] [--device cuda] [--json FILE]

In forwards per image of timm's model in the same round: projection, identifiability and similarity change together
(target 1.5), the same with the memories of both kinds of layers (2.5), and each analysis alone. The last line is the
memory: the peak with twice as many images over the peak with these, which is 1 where memory is bounded by the batch.
Weights are random, which changes no speed. On a CPU, peaks are those of tensors that torch allocates in a pass.
"""

from argparse import Namespace
from collections.abc import Callable, Mapping
from functools import partial

import timm
import torch
from torch import Tensor

import prisma
from benchmarks.core import BASE
from benchmarks.timing import CLOCKS, Line, arguments, interleave, ratio, report
from prisma.analysis.class_space.in_one_pass import ANALYSES, in_one_pass
from prisma.config import ViTConfig

Analysis = Callable[[prisma.ViT, Tensor, Tensor], object]
EACH: Mapping[str, Analysis] = {
    "identifiability": prisma.class_identifiability,
    "similarity change": prisma.class_similarity_change,
    "memories of MLPs": partial(prisma.memories, site="mlp"),
    "memories of attention": partial(prisma.memories, site="attn"),
    "attention perturbation": prisma.attention_perturbation,
}
TOGETHER: Mapping[str, tuple[tuple[str, ...], float]] = {
    "projection to change (1 to 3)": (ANALYSES[:2], 1.5),
    "with memories (1 to 3, 6)": (ANALYSES, 2.5),
}


def contenders(
    model: prisma.ViT, plain: torch.nn.Module, images: Tensor, labels: Tensor, batch: int
) -> dict[str, Callable[[], object]]:
    """What is timed; the plain forwards have the same batches."""

    def forwards() -> None:
        with torch.no_grad():
            for some in images.split(batch):
                plain(some)

    calls: dict[str, Callable[[], object]] = {"timm": forwards}
    for name, analysis in EACH.items():
        calls[name] = partial(analysis, model, images, labels, batch=batch)  # type: ignore[call-arg]
    for name, (parts, _) in TOGETHER.items():
        calls[name] = partial(in_one_pass, model, images, labels, analyses=parts, batch=batch)
    return calls


def peak(call: Callable[[], object], device: str) -> float:
    """MiB that a call allocates at the same time, at most."""
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        return float(torch.cuda.max_memory_allocated(device) - before) / 2**20
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        call()
    now = most = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most / 2**20


def measure(args: Namespace, config: ViTConfig, plain: torch.nn.Module) -> list[Line]:
    dtype = getattr(torch, args.dtype)
    model = prisma.ViT(config).eval().to(args.device, dtype)
    draw = torch.Generator().manual_seed(0)
    images = torch.randn(2 * args.images, *config.input_shape, generator=draw).to(args.device, dtype)
    labels = torch.randint(config.n_classes, (2 * args.images,), generator=draw).to(args.device)
    calls = contenders(model, plain, images[: args.images], labels[: args.images], args.batch)
    seconds = interleave(calls, args.rounds, CLOCKS[args.clock])
    targets = {name: target for name, (_, target) in TOGETHER.items()}
    lines = []
    for name in calls:
        if name != "timm":
            line = ratio(seconds, name, "timm", targets.get(name, 0.0), "forwards an image")
            lines.append(line if name in targets else Line(**{**vars(line), "target": None}))
    small, large = (
        peak(partial(prisma.class_identifiability, model, images[:n], labels[:n], batch=args.batch), args.device)
        for n in (args.images, 2 * args.images)
    )
    print(f"peak memory of identifiability: {small:.0f} MiB for {args.images} images, {large:.0f} for twice as many")
    return [*lines, Line("peak of twice as many images", "", 0.0, 0.0, large / small, "x", 1.2)]


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--batch", type=int, default=8)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    plain = timm.create_model("vit_base_patch16_224", pretrained=False).eval()
    lines = measure(args, BASE, plain.to(args.device, getattr(torch, args.dtype)))
    report(lines, args, {"timm": timm.__version__, "images": str(args.images), "batch": str(args.batch)})


if __name__ == "__main__":
    main()
