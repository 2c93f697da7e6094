"""Write docs/mice.md: every recipe, the published tables with our numbers beside them, and how fast training is.

The numbers come from `prisma/recipes`, `hub_cards/*/results.json` and `benchmarks/train-*.json`.

python tools/mice.py
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from prisma.outline import outline
from prisma.recipes import RECIPES, TABLES
from prisma.repository import MICE
from prisma.train import Recipe

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "mice.md"

INTRODUCTION = """# Mice

A mouse is a small vision transformer, trained on a task whose answer is known, with every checkpoint of its training.
`prisma train NAME` trains one into a folder, `prisma mice` lists them, and `prisma.load("mice/NAME")` loads those whose
weights come with the package. `prisma train NAME --seeds 0..4` trains one run for each seed: on a GPU all take their
steps together, on a CPU each has a process of its own.

Where the data do not come with the package, `--data PATH` says where they are: MNIST's folder, ImageNet's, or the
original file of dSprites. `prisma.data.task("NAME:PATH")` reads them: `mnist`, `cifar10`, `cifar100`, `tinyimagenet`,
`imagenet`, `dsprites`, any `folder` with a subfolder of pictures for each class, and data sets of the `hub`
(`hub:OWNER/NAME`). Those of pictures may have a size, such as `imagenet-64:PATH`; they are decoded once, into
`~/.cache/prisma` (or `$PRISMA_CACHE`). Pictures that cannot be decoded are left out and named, up to 1 %.
`prisma.data.task_of(name, data)` makes a task of your own data, and `prisma.data.patch_labels` says what each patch of
a task's images shows.

This page is written by `tools/mice.py` from the recipes, the results in `hub_cards/` and the benchmarks."""

DSPRITES = """ViT-Prisma published these eight mice in 2023: is it a square, an ellipse or a heart?
`prisma train --table dsprites` trains ours and prints both numbers.

Two things differ, so the numbers do not answer the same question. Our images are drawn by a rule of our own
(`prisma.data.dsprites_grid`): the factors, their order and the size of the images are the original's, the pictures are
not. And ours have a norm before each branch, a higher peak of the learning rate, and half a cosine in place of stairs
that are at 3 % of the peak after three epochs. The sizes are the same, and ours took fewer steps than the published
10,800. The recipes without `-cosine` are the published ones in every setting; they were not trained for this page, and
the accuracy in the list above is the published one. `prisma.data.dsprites_grid(path)` reads the original's `.npz`.

An orientation of 360 degrees gives the image of 0 degrees, as in the original: of these one in 20 images, each has a
twin, perhaps in the other split. Accuracy is on the first 6,000 of 184,320 test images. The cards, curves and results
are in `hub_cards/`, the weights are not."""

OBJECTIVE = """The setting `objective` of a recipe says what counts as right, and needs a model with as many outputs:
`prisma train digits --set objective=masked --set n_classes=0 --set pool=mean`.

- `classification`: one class for each image; cross-entropy.
- `several`: several classes for each image at once, such as the shape, scale, orientation and place of
  `dsprites-all`; the mean of their cross-entropies, and an accuracy for each.
- `regression`: numbers, such as the scale and place of the task `dsprites-numbers`, standardised; squared error and R².
- `varying`: a weighted sum of such numbers, whose weights are others every `goal_every` steps; squared error and R².
- `reconstruction`: the token of every patch gives back the patch's pixels; squared error and R².
- `masked`: a masked autoencoder. The encoder sees a quarter of the patches (`drop`), and a small decoder gives the
  pixels of the others. The decoder stays in `state.safetensors`: checkpoints hold the encoder alone, an ordinary model.

`norm_pixels` asks for each patch less its mean and over its standard deviation. In the list above, R² is the share of
the variance on the test images that is explained, of the pixels about the mean patch."""

PROBED = (0, 512, 1000, 2000)  # steps whose features the page shows, beside the last
PROBE = "linear_probe.json"
LINEAR = """`{name}` never saw a label. Its features, the mean over the tokens at `{site}`, stay as they are, and a
ridge regression on them, in closed form (`prisma.train.linear_probe`), names the class of the {n} test images of
{task}. Random weights are those of step 0: the same architecture, untrained. One seed of each."""

COSTS = """CPU time on one thread (`benchmarks/checkpoints.py`), and wall time for the disk. A pass of evaluation has as
many images as the CPU's caches hold. The shares are of the CPU time of all steps of the recipe."""
IMAGENET = """ViT-Prisma published these nine mice in 2024. `prisma train --table imagenet --data FOLDER` trains ours;
none was trained for this page. What was published are the sizes and the accuracies; the learning rate, weight decay,
batch and length were not, and are ours. The width of 768 is inferred: with it, the mice have as many weights as the
published files (15.5 MB of one layer of attention, 97.7 MB of the one with patches of 32, whose card says 0.2148 and
whose row of the README says 0.22)."""
TEXTS = {"dsprites": DSPRITES, "imagenet": IMAGENET}

SPEED = """The plain loop is a DataLoader that shuffles, timm's VisionTransformer of the same shape and AdamW
(`benchmarks/train.py`). The ratio is the loop's time over ours for the same number of steps, the median over
interleaved rounds: above 1, we are faster."""


def parameters(recipe: Recipe) -> int:
    return sum(p.numel() for p in outline(recipe.model).parameters())


def recipes() -> str:
    """A row for every recipe."""
    head = ("mouse", "task", "layers", "heads", "width", "MLP", "parameters", "steps", "accuracy or R²", "weights")
    rows = [
        (
            f"`{r.name}`",
            r.task,
            r.model.n_layers,
            r.model.n_heads,
            r.model.d_model,
            r.model.d_mlp or "none",
            f"{parameters(r):,}",
            f"{r.training.steps:,} of {r.training.batch_size}",
            _number(r.expected_accuracy) if r.expected_r2 is None else f"R² {_number(r.expected_r2)}",
            "in the package" if (MICE / r.name).is_dir() else "",
        )
        for r in RECIPES.values()
    ]
    return table(head, rows)


def published(recipes: Sequence[Recipe]) -> str:
    """Our accuracies beside the published ones, of the recipes whose results are in the repository."""
    head = ("mouse", "parameters", "steps", "published", "ours", "standard error", "seed", "seconds", "on")
    rows = []
    for recipe in recipes:
        folder = ROOT / "hub_cards" / recipe.name
        if not (folder / "results.json").is_file():
            continue
        found, run = (json.loads((folder / name).read_text()) for name in ("results.json", "recipe.json"))
        test = next(row for row in found["results"] if row["name"] == "test accuracy")
        error = (test["value"] * (1 - test["value"]) / test["n"]) ** 0.5
        rows.append(
            (
                f"`{recipe.name}`",
                f"{found['parameters']:,}",
                f"{found['steps']:,}",
                _number(recipe.published_accuracy),
                f"{test['value']:.4f}",
                f"{error:.4f}",
                found["seeds"]["init"],
                f"{found['seconds']:.0f}",
                run["environment"]["device"],
            )
        )
    return table(head, rows)


def untrained(recipes: Sequence[Recipe]) -> str:
    """The published accuracies of recipes that were not trained for this page."""
    head = ("mouse", "parameters", "steps", "published")
    return table(
        head,
        [
            (f"`{r.name}`", f"{parameters(r):,}", f"{r.training.steps:,}", f"{r.published_accuracy:.4g}")
            for r in recipes
        ],
    )


def speed(path: Path) -> str:
    """The table of a file of `benchmarks.train`."""
    found = json.loads(path.read_text())
    rows = [
        (
            line["what"].removeprefix("ours, "),
            line["against"],
            f"{line['seconds'] * 1000:.0f} ms",
            f"{line['peer_seconds'] * 1000:.0f} ms",
            f"{1 / line['value']:.1f}",
        )
        for line in found["lines"]
        if line["what"].startswith("ours")
    ]
    many = [
        f"{line['what']}: {line['value']:.1f} times the time of {line['against'].removesuffix('s')}."
        for line in found["lines"]
        if not line["what"].startswith("ours")
    ]
    where = f"torch {found['torch']}, timm {found['timm']}, {found['device']}, {found['clock']} time."
    notes = [found["note"]] if "note" in found else []
    return "\n\n".join([table(("mouse", "against", "ours", "loop", "ratio"), rows), *many, *notes, where])


def probe(path: Path) -> str:
    """What a linear map reads from the features of a mouse at some of its checkpoints."""
    found, name = json.loads(path.read_text()), path.parent.name
    rows = found["checkpoints"]
    some = [row for i, row in enumerate(rows) if row["step"] in PROBED or i == len(rows) - 1]
    lines = [(f"`{name}`, step {row['step']:,}" if row["step"] else "random weights", row) for row in some]
    lines.append(("the pixels themselves", found["pixels"]))
    best = rows[-1]
    figures = [
        (what, f"{row['accuracy']:.3f}", f"{(row['accuracy'] * (1 - row['accuracy']) / row['n']) ** 0.5:.3f}")
        for what, row in lines
    ]
    words = LINEAR.format(name=name, site=found["site"], n=best["n"], task=found["task"])
    return f"{words}\n\n{table(('features', 'test accuracy', 'standard error'), figures)}"


def checkpoints(path: Path) -> str:
    """The table of a file of `benchmarks.checkpoints`."""
    found = json.loads(path.read_text())
    parts = ("evaluation", "norms and heads", "writing")
    whole = "evaluation, 1,024 images a pass"
    head = ("mouse", "a step", whole, *parts, "disk", *(f"{part}, of all steps" for part in parts))
    rows = []
    for row in found["rows"]:
        times = [f"{row[key]:,.1f} ms" for key in ("step", whole, *parts, "disk")]
        shares = [row["checkpoints"] * row[part] / (row["steps"] * row["step"]) for part in parts]
        rows.append((row["recipe"], *times, *(f"{share:.1%}" for share in shares)))
    return "\n\n".join([table(head, rows), f"torch {found['torch']}, {found['device']}, one thread."])


def page() -> str:
    parts = [INTRODUCTION, "## Recipes", recipes(), "## What they are trained to do", OBJECTIVE]
    for path in sorted((ROOT / "hub_cards").glob(f"*/{PROBE}")):
        parts += ["## What a mouse without labels has learned", probe(path)]
    for name, rows in TABLES.items():
        trained = any((ROOT / "hub_cards" / recipe.name / "results.json").is_file() for recipe in rows)
        parts += [f"## The published table: {name}", TEXTS[name], published(rows) if trained else untrained(rows)]
    parts += ["## How fast training is", SPEED]
    parts += [speed(path) for path in sorted((ROOT / "benchmarks").glob("train-*.json"))]
    parts += ["## What a checkpoint costs", COSTS, checkpoints(ROOT / "benchmarks" / "checkpoints-cpu.json")]
    return "\n\n".join(parts) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in (head, ["---"] * len(head), *rows))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    PAGE.write_text(page())
