"""How fast training is, next to a plain loop: ratios measured side by side in one process.

    python -m benchmarks.train [RECIPE ...] [--steps 20] [--rounds 5] [--clock wall] [--device cuda] [--json FILE]

The plain loop is what one writes first: a DataLoader that shuffles, timm's VisionTransformer of the same shape, AdamW,
no clipping; with the threads of the recipe, and with torch's own number. Every round runs each contender for the same
number of steps, in an order that rotates; a ratio is the median over rounds of our time over the loop's in the same
round. Neither evaluates. On a GPU, the products of a recipe in bfloat16 are in bfloat16 for us, and the loop, which
says nothing about precision, computes in float32; there is a second loop in bfloat16 (autocast).
"""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.timing import CLOCKS, Line, arguments, interleave, ratio, report
from prisma.config import ViTConfig
from prisma.data import task
from prisma.data.task import Task
from prisma.ledger import Ledger
from prisma.recipes import recipe
from prisma.train import Recipe
from prisma.train.clock import Clock
from prisma.train.data_on import data_on
from prisma.train.initial import initial_model
from prisma.train.machine import cpu_threads
from prisma.train.optimizer import make_optimizer
from prisma.train.run import Run
from prisma.train.stacked import Stacked
from prisma.train.steps import steps_of

RECIPES = ("digits", "induction", "circle", "sprites", "dsprites-tiny-full-cosine")
SMALL = 5_000_000  # parameters
PEAK = 989e12  # operations in bfloat16 per second of an H100, without sparsity, as its data sheet states
Steps = Callable[[], object]


class Pictures(Dataset[tuple[Tensor, Tensor]]):
    """A task's training images, normalised one at a time."""

    def __init__(self, data: Task) -> None:
        self.split, self.transform = data.splits["train"], data.transform

    def __len__(self) -> int:
        return len(self.split.labels)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        return self.transform.normalise(self.split.images[i]), self.split.labels[i]


class AttentionOnly(nn.Module):
    """A block of timm's without its MLP."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.norm1, self.attn = block.norm1, block.attn

    def forward(self, x: Tensor, **_: object) -> Tensor:
        return x + self.attn(self.norm1(x))


def peer(c: ViTConfig) -> VisionTransformer:
    """timm's model of the same shape."""
    model = VisionTransformer(
        img_size=c.image_size,
        patch_size=c.patch_size,
        in_chans=c.channels,
        num_classes=c.n_classes,
        embed_dim=c.d_model,
        depth=c.n_layers,
        num_heads=c.n_heads,
        mlp_ratio=(c.d_mlp or c.d_model) / c.d_model,
        qkv_bias=c.qkv_bias,
        act_layer=nn.ReLU if c.activation == "relu" else nn.GELU,
    )
    if not c.d_mlp:
        model.blocks = nn.Sequential(*map(AttentionOnly, model.blocks))
    return model


def plain(chosen: Recipe, device: str, threads: int, steps: int, half: bool = False) -> Steps:
    """A plain loop that goes on where it was."""
    model, training = peer(chosen.model).to(device), chosen.training
    optimizer = torch.optim.AdamW(model.parameters(), lr=training.lr, weight_decay=training.weight_decay)
    loader = DataLoader(Pictures(task(chosen.task)), training.batch_size, shuffle=True, drop_last=True)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield from loader

    source = batches()

    def go() -> None:
        with cpu_threads(threads):
            for _, (images, labels) in zip(range(steps), source, strict=False):
                with torch.autocast(device, torch.bfloat16) if half else nullcontext():
                    loss = F.cross_entropy(model(images.to(device)), labels.to(device))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

    return go


def runs_of(chosen: Recipe, device: str, seeds: int) -> list[Run]:
    """Runs at step 0 that write nothing."""
    images, inputs = data_on(chosen.task, device, 1000)
    runs = []
    for seed in range(seeds):
        training = replace(chosen.training, init_seed=seed, order_seed=seed)
        model = initial_model(chosen.model, seed, training.init).to(device)
        own, none = replace(chosen, training=training), Path()
        optimizer = make_optimizer(model, training)
        runs.append(Run(own, "", none, model, optimizer, 0, images, inputs, Ledger(none), Clock(none, 0)))
    return runs


def ours(chosen: Recipe, device: str, steps: int, seeds: int = 1) -> Steps:
    """Our steps, one after another."""
    runs = runs_of(chosen, device, seeds)
    way = steps_of(runs) if seeds == 1 else Stacked(runs)
    state = {"step": 0}

    def go() -> None:
        with cpu_threads(chosen.training.threads):
            last = state["step"] + steps
            while state["step"] < last:
                first, state["step"] = state["step"], min(state["step"] + way.at_once, last)
                way.advance(first, state["step"])

    return go


def measure(name: str, args: Any) -> list[Line]:
    """Lines of one recipe: our steps against the loops."""
    chosen, device = recipe(name), args.device
    own, machine = chosen.training.threads, args.threads
    contenders: dict[str, Steps] = {"ours": ours(chosen, device, args.steps)}
    if device == "cpu":
        contenders |= {f"loop, {n} threads": plain(chosen, device, n, args.steps) for n in {own, machine}}
    else:
        contenders["loop"] = plain(chosen, device, machine, args.steps)
        if chosen.training.precision == "bfloat16":
            contenders["loop, bfloat16"] = plain(chosen, device, machine, args.steps, half=True)
    seconds = interleave(contenders, args.rounds, CLOCKS[args.clock])
    parameters = sum(p.numel() for p in initial_model(chosen.model, 0).parameters())
    target = 1 / 10 if device != "cpu" and parameters < SMALL else 1 / 1.5 if name in FAST else 1 / 1.1
    lines = [ratio(seconds, "ours", against, target, name) for against in contenders if against != "ours"]
    if device != "cpu":
        done = 6 * chosen.model.n_weights * chosen.model.n_tokens * chosen.training.batch_size * args.steps
        print(f"{name}: {done / lines[0].seconds / PEAK:.1%} of {PEAK / 1e12:.0f} TFLOP/s", flush=True)
    return lines


FAST = ("circle", "dsprites-tiny-full-cosine")  # the two that must be far ahead of the loop on a CPU


def many(args: Any) -> Line:
    """32 seeds at once against one."""
    contenders = {f"{n} seeds": ours(recipe("circle"), args.device, args.steps, n) for n in (1, 32)}
    return ratio(interleave(contenders, args.rounds), "32 seeds", "1 seeds", 3.0, "circle")


def main() -> None:
    parser = arguments("How fast training is, next to a plain loop.")
    parser.add_argument("recipes", nargs="*", default=RECIPES)
    parser.add_argument("--steps", type=int, default=20)
    parser.set_defaults(rounds=5)
    args = parser.parse_args()
    lines = [line for name in args.recipes for line in measure(name, args)]
    if args.device != "cpu":
        lines.append(many(args))
    report(lines, args, {"timm": timm.__version__})


if __name__ == "__main__":
    main()
