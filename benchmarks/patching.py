"""How fast patching is: whole sweeps of ViT-B/16 against as many plain forwards, and against a loop of hooks.

    python -m benchmarks.patching [--rounds 5] [--threads N] [--device cuda] [--dtype bfloat16] [--json FILE] [--tiny]

The exact 12 x 12 sweep over heads, next to timm's forward in the same round (144 of them is what one forward per head
costs), in float32 and with all but the ten largest cells in bfloat16, and to the loop of the main peer, `vit-prisma`,
where that is installed (`pip install --no-deps vit-prisma fancy_einsum line_profiler jaxtyping plotly`); the sweep over
tokens next to its naive loop, on tokens spread evenly; attribution of all heads, tokens and edges next to timm's
forward. Loops are timed on one run in each layer. Weights are random, which changes no speed. The last lines say how
far the sweep is from one forward per head, and the memory.
"""

import resource
from argparse import Namespace
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from statistics import median
from typing import Any

import timm
import torch
from torch import Tensor

import prisma
from benchmarks.core import BASE
from benchmarks.timing import CLOCKS, Line, arguments, interleave, report
from prisma.analysis.circuits.attribution_patching import attribute_nodes_and_edges
from prisma.analysis.patching.activation_patching import activation_patching

METRIC = prisma.LogitDiff(3, 5)
TOKENS = range(4, 197, 8)  # of those that a token sweep visits; the class token costs no more than another
TARGETS = {"cpu": 0.35, "cuda": 0.03}
LOW_TARGETS = {"cpu": 0.25, "cuda": 0.02}  # with all but the ten largest cells in bfloat16
CELLS = BASE.n_layers * BASE.n_heads
TINY = replace(BASE, d_model=48, d_mlp=192, d_head=4)


def loop(model: prisma.ViT, clean: Tensor, corrupt: Tensor, site: str, cells: list[dict[str, int]]) -> Tensor:
    """The naive way: for each cell [layer, head or token] one whole forward with one edit."""
    found = []
    with torch.no_grad():
        _, acts = prisma.record(model, corrupt, f"blocks.*.{site}")
        for cell in cells:
            name = f"blocks.{cell['layer']}.{site}"
            where = {axis: index for axis, index in cell.items() if axis != "layer"}
            found.append(METRIC(prisma.run(model, clean, {name: prisma.Set(acts[name]).at(**where)})).mean())
    return torch.stack(found)


def peer_loop(clean: Tensor, corrupt: Tensor, device: str, dtype: torch.dtype) -> Callable[[], object] | None:
    """The main peer's demo, one head in each layer; None where the peer is not installed."""
    try:
        from vit_prisma.configs.HookedViTConfig import HookedViTConfig
        from vit_prisma.models.base_vit import HookedViT
    except ImportError as error:
        print(f"no line for vit-prisma: {error}")
        return None
    config = HookedViTConfig(
        n_layers=12, d_model=768, d_head=64, n_heads=12, d_mlp=3072, patch_size=16, image_size=224, n_classes=1000,
        return_type="class_logits", device=device, dtype=torch.float32,
    )  # fmt: skip
    model = HookedViT(config).eval().to(device, dtype)
    with torch.no_grad():
        _, cache = model.run_with_cache(corrupt)

    def put(z: Tensor, hook: Any) -> Tensor:
        z[:, :, 3] = cache[hook.name][:, :, 3]
        return z

    def run() -> None:
        with torch.no_grad():
            for layer in range(12):
                model.run_with_hooks(clean, fwd_hooks=[(f"blocks.{layer}.attn.hook_z", put)])

    return run


def contenders(args: Namespace) -> tuple[dict[str, Callable[[], object]], dict[str, float]]:
    """What is timed, and how many forwards (or cells) each stands for."""
    dtype = getattr(torch, args.dtype)
    width = {"embed_dim": TINY.d_model} if args.tiny else {}
    ours = prisma.ViT(TINY if args.tiny else BASE).eval().to(args.device, dtype)
    timms = timm.create_model("vit_base_patch16_224", pretrained=False, **width).eval().to(args.device, dtype)
    clean, corrupt = torch.randn(2, 1, 3, 224, 224, generator=torch.Generator().manual_seed(0)).to(args.device, dtype)
    spread = [{"layer": layer, "token": TOKENS[layer]} for layer in range(12)]
    groups = [[token] for token in TOKENS]

    def forwards() -> None:
        with torch.inference_mode():
            for _ in range(12):
                timms(clean)

    timed: dict[str, Callable[[], object]] = {
        "timm forward": forwards,
        "head sweep": partial(prisma.sweep, ours, clean, corrupt, "attn.z", METRIC),
        "head sweep, 10 exact": partial(
            prisma.sweep, ours, clean, corrupt, "attn.z", METRIC, precision="bfloat16", exact_top=10
        ),
        "token sweep": partial(
            activation_patching, ours, clean, corrupt, "resid_pre", METRIC, axis="token", groups=groups
        ),
        "naive token loop": partial(loop, ours, clean, corrupt, "resid_pre", spread),
        "attribution of heads, tokens, edges": partial(attribute_nodes_and_edges, ours, clean, corrupt, METRIC),
    }
    if not args.tiny and (peer := peer_loop(clean, corrupt, args.device, dtype)) is not None:
        timed["vit-prisma hook loop"] = peer
    cells = {
        "head sweep": CELLS,
        "head sweep, 10 exact": CELLS,
        "token sweep": 12 * len(TOKENS),
        "naive token loop": 13,  # a recording, and a run in each layer
        "timm forward": 12,
    }
    return timed, {**cells, "vit-prisma hook loop": 12}


def compared(seconds: dict[str, list[float]], counts: dict[str, float], args: Namespace) -> list[Line]:
    """The table: time per cell over the peer's time per forward; of attribution, in forwards."""
    each = {name: [second / counts.get(name, 1) for second in values] for name, values in seconds.items()}
    rows = [
        ("head sweep", "timm forward", TARGETS[args.device]),
        ("head sweep", "vit-prisma hook loop", TARGETS[args.device]),
        ("head sweep, 10 exact", "timm forward", LOW_TARGETS[args.device]),
        ("token sweep", "naive token loop", 0.45),
        ("attribution of heads, tokens, edges", "timm forward", 6.0),
    ]
    lines = []
    for what, against, target in rows:
        if against in each:
            value = median(a / b for a, b in zip(each[what], each[against], strict=True))
            lines.append(Line(what, against, median(seconds[what]), median(each[against]), value, "x", target))
    return lines


def exactness(args: Namespace) -> Line:
    """The largest difference of the sweep from one forward per head, over the largest effect."""
    torch.manual_seed(0)
    model = prisma.ViT(TINY if args.tiny else BASE).eval().to(args.device)
    clean, corrupt = torch.randn(2, 1, 3, 224, 224).to(args.device)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = prisma.sweep(model, clean, corrupt, "attn.z", METRIC).flatten()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"peak memory of a head sweep over what the process had: at most {grown:.0f} MiB more")
    cells = [{"layer": layer, "head": head} for layer in range(12) for head in range(12)]
    expected = loop(model, clean, corrupt, "attn.z", cells)
    return Line(
        "head sweep, difference from the naive loop", "", 0.0, 0.0, (found - expected).abs().max().item(), "", 1e-5
    )


def main() -> None:
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="a width at which nothing is measured, to see that it runs")
    parser.set_defaults(rounds=5)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    exact = exactness(args)
    timed, counts = contenders(args)
    seconds = interleave(timed, args.rounds, CLOCKS[args.clock])
    report([*compared(seconds, counts, args), exact], args, {"timm": timm.__version__})


if __name__ == "__main__":
    main()
