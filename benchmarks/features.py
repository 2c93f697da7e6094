"""How fast features are visualised: 64 units of one layer of a CNN, beside lucent's loop on the same network.

    python -m benchmarks.features [--steps 32] [--units 64] [--of 16] [--side 224] [--rounds 3] [--threads N]
    python -m benchmarks.features --transfer REF --steps 200 [--json benchmarks/features-transfer.json]

Ours: all units in batches, a forward that ends at the layer, one resampling for all changes of an image. Lucent's loop
as it is by default, in our own words, because torch-lucent 0.1.8 does not install beside this (it pins kornia at 0.4.1
at most): one unit after the other, hooks on every layer and a whole forward, the FFT parameterisation, pad, jitter,
scale, rotation and jitter one after the other, Adam, and gradients of the weights too, as the network comes. Both make
the same number of steps. Lucent's loop makes one unit in `--of`, since its time is a loop over them, and is multiplied.
Target: at least three times as fast. Weights are random, which changes no speed.

With `--transfer` it measures instead whether another mouse, REF, agrees on the classes of the sprites mouse's optima;
docs/features.md has it for `prisma train sprites --set init_seed=1 --set order_seed=1`.
"""

import json
import math
import random
from argparse import Namespace
from pathlib import Path
from statistics import median
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import prisma
from benchmarks.timing import CLOCKS, Line, arguments, interleave, report
from prisma.data import task
from prisma.data.transform import Transform
from prisma.features import FFT, MACO, Channel, Pyramid, visualize
from prisma.features.images import frequencies

NETWORK, LAYER = "tf_efficientnet_lite0", "blocks.3"  # whose output has 80 channels
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TARGET = 1 / 3
"""Ours takes at most this share of lucent's time."""


def rotated(x: Tensor, angle: float) -> Tensor:
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    theta = torch.tensor([[[cos, -sin, 0.0], [sin, cos, 0.0]]], device=x.device)
    return F.grid_sample(x, F.affine_grid(theta, list(x.shape), align_corners=False), align_corners=False)


def moved(x: Tensor, by: int) -> Tensor:
    top, left = random.randint(0, by), random.randint(0, by)
    return x[..., top : x.shape[-2] - by + top, left : x.shape[-1] - by + left]


def lucents(network: nn.Module, unit: int, steps: int, side: int, device: str) -> Tensor:
    """One image, as lucent's `render_vis` makes it."""
    found: dict[str, Tensor] = {}
    hooks = [
        part.register_forward_hook(lambda _, __, output, name=name: found.__setitem__(name, output))
        for name, part in network.named_modules()
        if name
    ]
    spectrum = (0.01 * torch.randn(1, 3, side, side // 2 + 1, 2)).to(device).requires_grad_()
    scale = (1 / frequencies(side, side).clamp(min=1 / side))[..., None].to(device)
    mean, std = (torch.tensor(x, device=device).view(1, 3, 1, 1) for x in (MEAN, STD))
    adam = torch.optim.Adam([spectrum], lr=0.05)
    for _ in range(steps):
        x = torch.fft.irfft2(torch.view_as_complex(spectrum * scale), s=(side, side), norm="ortho") / 4
        x = moved(F.pad(torch.sigmoid(x), (12,) * 4, value=0.5), 8)
        x = F.interpolate(x, scale_factor=random.choice([0.9 + 0.02 * i for i in range(11)]), mode="bilinear")
        x = moved(rotated(x, random.uniform(-10, 10)), 4)
        network(F.interpolate((x - mean) / std, size=(side, side), mode="bilinear"))
        adam.zero_grad()
        (-found[LAYER][:, unit].mean()).backward()
        adam.step()
    for hook in hooks:
        hook.remove()
    return spectrum.detach()


def speed(args: Namespace) -> list[Line]:
    torch.manual_seed(0)
    network = timm.create_model(NETWORK).eval().to(args.device)
    transform, few = Transform((args.side, args.side), MEAN, STD), max(args.units // args.of, 1)
    units = [Channel(LAYER, i) for i in range(args.units)]

    def ours() -> object:
        return visualize(network, units, FFT(), steps=args.steps, transform=transform, batch=args.batch)

    def loop() -> object:
        return [lucents(network, unit, args.steps, args.side, args.device) for unit in range(few)]

    seconds = interleave({"ours": ours, "lucent's loop": loop}, args.rounds, CLOCKS[args.clock])
    seconds["lucent's loop"] = [x * args.units / few for x in seconds["lucent's loop"]]
    pairs = zip(seconds["ours"], seconds["lucent's loop"], strict=True)
    value = median(a / b for a, b in pairs)
    of = f"{args.units} units of {LAYER}, {args.steps} steps at {args.side} pixels"
    times = (median(seconds["ours"]), median(seconds["lucent's loop"]))
    rates = [args.units / x for x in times]
    return [
        Line(f"features: {of}", "lucent's loop", *times, value, "x", TARGET),
        Line("images per second, ours", "", times[0], 0.0, rates[0], "/s", None),
        Line("images per second, lucent's loop", "", times[1], 0.0, rates[1], "/s", None),
    ]


def transfer(ref: str, steps: int, device: str) -> dict[str, Any]:
    """How many of the sprites mouse's optima, one for each class, it and another mouse classify as that class."""
    ours, other = prisma.load("mice/sprites"), prisma.load(ref)
    for loaded in (ours, other):
        loaded.model.to(device)
    images, _ = task("sprites").inputs("test", 400)
    lines = []
    for image in (FFT(), Pyramid(), MACO()):
        found = visualize(ours, range(40), image, steps=steps, data=images.to(device), second=other, k=1)
        of_second = torch.as_tensor(found.second_answer)
        shares = {"itself": share(found.answer.eq(found.target)), "another": share(of_second.eq(found.target))}
        lines.append({"image": type(image).__name__, **shares})
        print(*(f"{name}: {value}" for name, value in lines[-1].items()), sep="; ")
    return {"steps": steps, "classes": len(ours.labels), "lines": lines}


def share(right: Tensor) -> list[float]:
    """A mean and the ends of its interval over images."""
    x = right.double()
    interval = prisma.bootstrap_interval(lambda rows: x[rows].mean(), len(x))
    return [round(value, 3) for value in (x.mean().item(), *interval.tolist())]


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--units", type=int, default=64)
    parser.add_argument("--of", type=int, default=16, help="lucent's loop makes one unit in so many")
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--batch", type=int, default=None, help="images of ours at once")
    parser.add_argument("--transfer", metavar="REF", help="another mouse, instead of measuring speed")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.transfer:
        measured = transfer(args.transfer, args.steps, args.device)
        if args.json:
            Path(args.json).write_text(json.dumps(measured, indent=2) + "\n")
        return
    report(speed(args), args, {"timm": timm.__version__})


if __name__ == "__main__":
    main()
