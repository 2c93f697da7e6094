"""When do the circuits of the circle mouse and of the induction mouse form? Their checkpoints, measured.

python -m tools.circuit_formation --measure   trains them with many checkpoints (about 10 minutes of a core; finished
                                              runs are kept), and writes docs/circuit-formation.json
python -m tools.circuit_formation             writes docs/circuit-formation.md and its picture from the numbers
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

import prisma
from prisma.analysis.directions.fourier_components import FourierComponents, fourier_components
from prisma.analysis.result import Result
from prisma.data import task
from prisma.data.task import coverage
from prisma.recipes import recipe
from prisma.run_folder import checkpoint_folders
from prisma.study.trajectory import Trajectory, trajectory
from tools.circuit_formation_page import NUMBERS, ROOT, write

RUNS = ROOT / "runs" / "circuit-formation"
SEEDS = {"circle": (0, 1, 2), "induction": (0, 1, 2)}
EVERY = {"circle": 100, "induction": 50}
THIRD = slice(None, None, 3)
"""The test images of the induction mouse that are measured."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Answers(Result):
    """What the induction mouse answers to each image."""

    AXES: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "loss": ("image",), "orientation": ("image",), "sameness": ("image",), "embedding_loss": ("image",),
        "object": ("image", "head"), "previous_patch": ("image", "head"),
    }  # fmt: skip

    loss: Tensor  # in nats
    orientation: Tensor  # whether the answer to this question is right, of the likelier half of the classes
    sameness: Tensor
    embedding_loss: Tensor  # of the lens before the first block
    object: Tensor  # attention of the class token to the glyphs
    previous_patch: Tensor  # attention of a patch to the one before it


def trained(name: str, seed: int) -> dict[int, Path]:
    """Step -> the folder of a checkpoint of a run, which is trained if it is not there."""
    out = RUNS / f"{name}-{seed}"
    if not (out / "results.json").exists():
        prisma.train(
            recipe(name), out=out, resume=(out / "recipe.json").exists(), device="cpu", live=False, init_seed=seed,
            order_seed=seed, checkpoint_every=EVERY[name],
        )  # fmt: skip
    return {int(folder.name.removeprefix("step-")): folder for folder in checkpoint_folders(out)}


def pairs_of_circle() -> tuple[Tensor, Tensor, int]:
    """(images, numbers) of the training pairs and then the test pairs, and how many are for training."""
    data = task("circle")
    images = [data.inputs(split)[0] for split in ("train", "test")]
    columns = [torch.cat([data.splits[s].factors[n] for s in ("train", "test")]) for n in ("first", "second")]
    return torch.cat(images), torch.stack(columns, 1), len(images[0])


def circle(folders: Mapping[int, Path]) -> dict[str, Any]:
    """The losses and shares of every checkpoint at the key frequencies of the last."""
    images, numbers, n = pairs_of_circle()
    last = max(folders)
    keys = fourier_components(prisma.load(folders[last]).model, images, numbers).frequencies
    found = {
        step: fourier_components(prisma.load(folder).model, images, numbers, frequencies=keys)
        for step, folder in folders.items()
    }
    apart = {  # the logits of training pairs, which are known by heart, are no part of these means
        step: fourier_components(prisma.load(folder).model, images[n:], numbers[n:], frequencies=keys)
        for step, folder in folders.items()
    }
    index = [k - 1 for k in keys]
    curves = {
        "training loss": [x.loss[:n].mean() for x in found.values()],
        "test loss": [x.loss[n:].mean() for x in found.values()],
        "restricted loss": [x.restricted_loss.mean() for x in found.values()],
        "restricted, test alone": [x.restricted_loss.mean() for x in apart.values()],
        "excluded loss": [x.excluded_loss[:n].mean() for x in found.values()],
        "embedding": [x.embedding[index].sum() for x in found.values()],
        "logits": [x.logits[index].sum() for x in found.values()],
    }
    each = {f"frequency {k}": [x.contribution[n:, k - 1].mean() for x in found.values()] for k in keys}
    test = {step: _rows(x, slice(n, None), index) for step, x in found.items()}
    changes = {
        "test loss": trajectory(test, "loss"),
        "restricted loss": trajectory(test, "restricted_loss"),
        "restricted, test alone": trajectory(apart, "restricted_loss"),
        "excluded loss": trajectory({step: _rows(x, slice(n), index) for step, x in found.items()}, "excluded_loss"),
    }
    by_key = trajectory(test, "contribution")
    return {
        "frequencies": keys, "steps": list(folders), "curves": _listed(curves), "each": _listed(each),
        "changes": {name: change(x, 0) for name, x in changes.items()}
        | {f"frequency {k}": change(by_key, i) for i, k in enumerate(keys)},
    }  # fmt: skip


def _rows(found: FourierComponents, rows: slice, keys: list[int]) -> FourierComponents:
    """The result of some images, with the contributions of the key frequencies alone."""
    arrays = {name: getattr(found, name)[rows] for name in ("loss", "restricted_loss", "excluded_loss")}
    return replace(found, contribution=found.contribution[rows][:, keys], **arrays)


@torch.no_grad()
def answers(model: prisma.ViT) -> Answers:
    """Of a third of the test images."""
    data = task("induction")
    images, labels = (x[THIRD] for x in data.inputs("test"))
    masks = coverage(data.splits["test"].images[THIRD, 0] > 0, model.config.patch_size)
    lens = prisma.logit_lens(model, images).readout
    halves = lens[:, -1].softmax(1).view(-1, 2, 2)  # [image, orientation, sameness]
    scores = {
        name: prisma.head_scores(model, images, [name], masks=masks, queries=queries).scores[:, 0, 0]
        for name, queries in (("object", "class"), ("previous_patch", "all"))
    }
    return Answers(
        metadata={"analysis": "answers"},
        loss=F.cross_entropy(lens[:, -1], labels, reduction="none"),
        orientation=(halves.sum(2).argmax(1) == labels // 2).float(),
        sameness=(halves.sum(1).argmax(1) == labels % 2).float(),
        embedding_loss=F.cross_entropy(lens[:, 0], labels, reduction="none"),
        **scores,
    )


def induction(folders: Mapping[int, Path]) -> dict[str, Any]:
    """What every checkpoint answers, and where its heads look."""
    found = {step: answers(prisma.load(folder).model) for step, folder in folders.items()}
    names = ("loss", "embedding_loss", "orientation", "sameness")
    curves = {name.replace("_", " "): [getattr(x, name).mean() for x in found.values()] for name in names}
    heads = {
        f"{name.replace('_', ' ')} {head}": [getattr(x, name)[:, head].mean() for x in found.values()]
        for name in ("object", "previous_patch")
        for head in range(found[0].object.shape[1])
    }
    changes = {name: change(trajectory(found, name), 0) for name in names[:1] + names[2:]}
    by_head = {name: trajectory(found, name) for name in ("object", "previous_patch")}
    return {
        "steps": list(folders), "curves": _listed(curves), "each": _listed(heads),
        "changes": changes
        | {
            f"{name.replace('_', ' ')} {head}": change(x, head)
            for name, x in by_head.items()
            for head in range(found[0].object.shape[1])
        },
    }  # fmt: skip


def change(found: Trajectory, number: int) -> dict[str, list[float]]:
    """When a number changed most, and by how much: value, lower and upper end."""
    return {
        "step": [int(found.change[number]), *(int(x) for x in found.change_interval[:, number])],
        "jump": [_short(found.jump[number]), *(_short(x) for x in found.jump_interval[:, number])],
    }


def _listed(curves: Mapping[str, list[Tensor]]) -> dict[str, list[float]]:
    return {name: [_short(x) for x in values] for name, values in curves.items()}


def _short(x: Tensor) -> float:
    """Four digits."""
    return float(f"{x.item():.4g}")


def measured() -> dict[str, Any]:
    measure = {"circle": circle, "induction": induction}
    found: dict[str, Any] = {}
    for name, seeds in SEEDS.items():
        found[name] = []
        for seed in seeds:
            found[name].append({"seed": seed, **measure[name](trained(name, seed))})
            print(name, seed, found[name][-1]["changes"], flush=True)  # noqa: T201
    return found


def main() -> None:
    torch.set_num_threads(1)
    if "--measure" in sys.argv[1:]:
        NUMBERS.write_text(json.dumps(measured(), separators=(",", ":")) + "\n")
    write(json.loads(NUMBERS.read_text()))


if __name__ == "__main__":
    main()
