"""Sparse coders: `prisma sparse train` and `eval` (`show` is in `sparse_show`); `prisma activations`, their inputs."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prisma.cli.shared import (
    DeviceOption,
    ImagesOption,
    JsonOption,
    LimitOption,
    ModelOption,
    OtherModelOption,
    interruptible,
    out_option,
    table,
)
from prisma.cli.sparse_show import cli as show_cli

if TYPE_CHECKING:
    from prisma.data.pictures import Pictures
    from prisma.loaded import Loaded

cli = typer.Typer()
sparse = typer.Typer(no_args_is_help=True, help="Sparse coders: train them on a model's activations, and measure them.")
cli.add_typer(sparse, name="sparse")
sparse.add_typer(show_cli)

TokensOption = Annotated[str, typer.Option(help="all, or some of class, registers and patches, separated by commas.")]
KindOption = Annotated[
    str, typer.Option(help="topk, batchtopk, matryoshka, jumprelu, gated, standard, abstopk, groupmax.")
]
PrefixOption = Annotated[
    list[int] | None, typer.Option(help="Of matryoshka, a number of latents that reconstruct alone, once for each.")
]
SparsityOption = Annotated[
    float | None, typer.Option(help="The coefficient of the sparsity term (default: it follows k).")
]
BeginOption = Annotated[str | None, typer.Option(help="data: the directions begin at random tokens, not at random.")]
DeadOption = Annotated[int | None, typer.Option(min=1, help="Tokens after which a latent that was not active is dead.")]
EveryOption = Annotated[
    int | None, typer.Option(min=1, help="Updates between two checkpoints (default: ten checkpoints in all).")
]
SHOWN = (
    "coder", "tokens", "fvu", "l0", "dead", "agreement", "ce_score", "kl_score", "probe_1", "probe_5", "tpp", "mcc",
)  # fmt: skip
"""The numbers that the table shows; all are in the JSON."""


@cli.command(
    epilog="Example: prisma activations --model mice/sprites --images sprites --site blocks.3.resid_post --out acts"
)
def activations(
    model: ModelOption,
    images: ImagesOption,
    site: Annotated[list[str], typer.Option(help="A site or glob; may be given several times.")],
    out: Annotated[Path, out_option("The folder for the shards.")],
    tokens: TokensOption = "all",
    limit: LimitOption = None,
    shard_size: Annotated[int, typer.Option(min=1, help="Number of images per shard.")] = 256,
    batch: Annotated[int | None, typer.Option(min=1, help="The largest number of images in one pass.")] = None,
    device: DeviceOption = None,
) -> None:
    """Write a model's activations to disk, in float16, for trainings that read them instead of running the model.

    If it is stopped, the same command continues. `accelerate launch --no_python prisma activations ...` shares it.
    """
    from prisma.launched import launched_processes
    from prisma.sparse.shards import write_activations
    from prisma.train.machine import pick_device

    with interruptible("the same command continues from here"), launched_processes(device) as processes:
        loaded, found = _read(model, images, limit)
        loaded.model.to(pick_device(processes.device))
        shards = write_activations(
            loaded.model, found, out, sites=site, tokens=_tokens(tokens), shard_size=shard_size, batch=batch,
            processes=processes,
        )  # fmt: skip
        if processes.is_first:
            print(f"Wrote activations of {len(shards):,} images at {', '.join(shards.widths)} to {out}.")


@sparse.command(
    epilog="Example: prisma sparse train --model mice/sprites --images sprites --site blocks.3.resid_post --width 512 "
    "--k 16 --out runs/coder"
)
def train(
    site: Annotated[list[str], typer.Option(help="The site to read; several are a crosscoder.")],
    width: Annotated[int, typer.Option(min=1, help="Number of latents.")],
    out: Annotated[Path, out_option("The folder for the coder and its checkpoints.")],
    model: Annotated[str | None, typer.Option(metavar="REF", help="The model, as for prisma.load.")] = None,
    images: Annotated[
        str | None, typer.Option(metavar="DIR", help="A folder of images, or the name of a task (its test images).")
    ] = None,
    activations: Annotated[
        Path | None, typer.Option(help="Activations on disk, instead of a model and images.")
    ] = None,
    kind: KindOption = "topk",
    k: Annotated[int | None, typer.Option(min=1, help="Active latents of a token.")] = None,
    target: Annotated[str | None, typer.Option(help="The site that a transcoder predicts.")] = None,
    skip: Annotated[bool, typer.Option("--skip", help="A transcoder with a linear map beside its code.")] = False,
    prefix: PrefixOption = None,
    sparsity: SparsityOption = None,
    tokens: TokensOption = "all",
    steps: Annotated[int, typer.Option(min=1, help="Number of updates.")] = 2000,
    batch: Annotated[int, typer.Option(min=1, help="Tokens of an update.")] = 2048,
    lr: Annotated[float | None, typer.Option(help="Learning rate (default: by the width).")] = None,
    held_out: Annotated[float, typer.Option(help="The share of the images that is held out.")] = 0.1,
    seed: Annotated[int, typer.Option(help="Of the first weights.")] = 0,
    begin: BeginOption = None,
    dead_after: DeadOption = None,
    checkpoint_every: EveryOption = None,
    bfloat16: Annotated[bool, typer.Option("--bfloat16", help="Compute products in bfloat16.")] = False,
    limit: LimitOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the training in --out.")] = False,
    wandb: Annotated[bool, typer.Option("--wandb", help="Also log to Weights & Biases.")] = False,
    device: DeviceOption = None,
) -> None:
    """Train a sparse coder on the activations of a model at a site. The result is a folder in the format of SAELens."""
    from prisma.errors import PrismaError
    from prisma.sparse.shards import Shards
    from prisma.sparse.training import train as run
    from prisma.train.machine import pick_device

    if (activations is None) == (model is None or images is None):
        raise PrismaError("expected --model and --images, or --activations; found neither or both")
    chosen: dict[str, Any] = {
        "site": site[0] if len(site) == 1 else tuple(site), "width": width, "kind": kind, "k": k, "target": target,
        "skip": skip, "prefixes": tuple(prefix or ()), "sparsity": sparsity, "tokens": _tokens(tokens), "steps": steps,
        "batch": batch, "lr": lr, "held_out": held_out, "seed": seed, "begin": begin, "dead_after": dead_after,
        "out": out, "checkpoint_every": checkpoint_every, "bfloat16": bfloat16, "resume": resume, "progress": True,
        "use_wandb": wandb,
    }  # fmt: skip
    with interruptible("the same command with --resume continues from its newest checkpoint"):
        if activations is not None:
            coder = run(None, Shards.at(activations), **chosen)
        else:
            loaded, found = _read(str(model), str(images), limit)
            loaded.model.to(pick_device(device))
            coder = run(loaded.model, found, **chosen)
    record = coder.metadata["training"]
    numbers = ", ".join(f"{name} {record[name]:.4g}" for name in _REPORTED if name in record)
    print(f"Trained {coder!r}: {numbers}. It is in {out}.")


_REPORTED = ("fvu", "fvu_held_out", "l0", "dead", "gamma")


@sparse.command(
    "eval", epilog="Example: prisma sparse eval runs/coder --model mice/sprites --images sprites --limit 400"
)
def evaluate(
    coder: Annotated[str, typer.Argument(metavar="CODER", help="A folder, or OWNER/NAME/FOLDER on the Hub.")],
    model: ModelOption,
    images: ImagesOption,
    tokens: Annotated[str | None, typer.Option(help="As for train (default: those it was trained with).")] = None,
    site: Annotated[str | None, typer.Option(help="Where it reads, if its file names that otherwise.")] = None,
    limit: LimitOption = None,
    baseline_steps: Annotated[int, typer.Option(min=0, help="Updates of the random baselines; 0: none.")] = 300,
    layer: Annotated[int | None, typer.Option(help="Which coder of a set with one for each layer.")] = None,
    legacy: Annotated[bool, typer.Option("--legacy", help="Add the explained variance that papers print.")] = False,
    other_model: OtherModelOption = False,
    write: Annotated[
        bool, typer.Option("--write", help="Keep the numbers in the coder's folder, for its card.")
    ] = False,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a sparse coder beside its baselines, on images, and on known labels and factors where a task has them."""
    from prisma.data import TASKS, task
    from prisma.sparse.evaluated import as_json as rows_as_json
    from prisma.sparse.evaluated import write_evaluation
    from prisma.sparse.evaluation import evaluate as run
    from prisma.sparse.ground_truth import indicators
    from prisma.sparse.loading import load_coder
    from prisma.train.machine import pick_device

    loaded, found = _read(model, images, limit)
    where = pick_device(device)
    pixels = found.read(range(len(found))).to(where)
    known: dict[str, Any] = {}
    if images in TASKS:
        split = task(images).splits["test"]
        known["labels"] = split.labels[: len(found)]
        if split.factors:
            known["factors"] = indicators({n: x[: len(found)] for n, x in split.factors.items()}, task(images).factors)[
                0
            ]
    rows = run(
        load_coder(coder, layer=layer).to(where), loaded.model.to(where), pixels, **known,
        tokens=None if tokens is None else _tokens(tokens), baseline_steps=baseline_steps, legacy=legacy,
        other_model=other_model, site=site,
    )  # fmt: skip
    if write:
        write_evaluation(Path(coder), rows, images, len(found))
    names = [name for name in SHOWN if any(row.get(name) is not None for row in rows)]
    print(
        json.dumps(rows_as_json(rows), indent=2)
        if as_json
        else table([{name: _cell(row.get(name)) for name in names} for row in rows])
    )


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _tokens(text: str) -> str | tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    return names[0] if len(names) == 1 else names


def _read(model: str, images: str, limit: int | None) -> "tuple[Loaded, Pictures]":
    from prisma.data.pictures import pictures
    from prisma.loaded import load

    loaded = load(model)
    return loaded, pictures(images, loaded.transform, loaded.config.input_shape, limit)
