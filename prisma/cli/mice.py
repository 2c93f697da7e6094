"""`prisma demo`, `mice`, `train`, `import`: training mice, and importing old ones."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prisma.cli.asked import Asked, asked_for
from prisma.cli.publishing import report_text
from prisma.cli.serving import serve
from prisma.cli.shared import HubOption, JsonOption, interruptible, out_option, settings_of, table
from prisma.filesystem import given

if TYPE_CHECKING:
    from prisma.train import Recipe

cli = typer.Typer()

SettingsOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a setting of the recipe. Repeatable."),
]
DEMO_REPO = "prisma/digits"


@cli.command(epilog="Example: prisma demo --no-app")
def demo(
    hub: HubOption = Path("hub"),
    out: Annotated[Path, out_option("Run folder.")] = Path("runs/digits"),
    app: Annotated[bool, typer.Option(help="Open the app with the published mouse.")] = True,
    fresh: Annotated[bool, typer.Option("--fresh", help="Delete the run and train again.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Train, publish and open the digits mouse.

    It is published with all its checkpoints into a folder hub, and the app opens with it.
    """
    from prisma.files import exclusive
    from prisma.publish import publish
    from prisma.recipes import recipe
    from prisma.run_folder import is_finished, is_run, remove_run
    from prisma.train import train

    if fresh and is_run(out):
        with exclusive(out, f"delete the run in {out}"):
            remove_run(out)
    if is_finished(out) and not as_json:
        print(f"The run in {out} is finished and is used as it is (prisma demo --fresh trains again).")
    with interruptible("prisma demo continues from here"):
        results = train(recipe("digits"), out, resume=is_run(out), command="prisma train digits")
        report = publish(out, DEMO_REPO, hub, replace=True).to_dict()
    if as_json:
        print(json.dumps({"results": results, "published": report}, indent=2))
    else:
        print(f"{_results_table(results)}\n{report_text(report)}")
    if app:
        serve(hub, DEMO_REPO, None)


@cli.command(epilog="Example: prisma mice --json")
def mice(as_json: JsonOption = False) -> None:
    """List the mice that can be trained.

    Some are shipped with their weights: `prisma.load("mice/NAME")`.
    """
    from prisma.outline import outline
    from prisma.recipes import RECIPES
    from prisma.repository import MICE

    rows = [
        {
            "name": r.name,
            "task": r.task,
            "layers": r.model.n_layers,
            "heads": r.model.n_heads,
            "d_model": r.model.d_model,
            "attention_only": not r.model.d_mlp,
            "parameters": sum(p.numel() for p in outline(r.model).parameters()),
            "steps": r.training.steps,
            "batch": r.training.batch_size,
            "objective": r.training.objective,
            "expected_accuracy": r.expected_accuracy,
            "expected_r2": r.expected_r2,
            "published_accuracy": r.published_accuracy,
            "shipped": (MICE / r.name).is_dir(),
        }
        for r in RECIPES.values()
    ]
    print(json.dumps(rows, indent=2) if as_json else table([_in_words(row) for row in rows]))


@cli.command(epilog="Example: prisma train digits --out runs/wide --set d_model=128 --set steps=500")
def train(
    recipe: Annotated[
        str | None, typer.Argument(metavar="[RECIPE]", help="A name from `prisma mice`, or a file of yours.")
    ] = None,
    out: Annotated[Path | None, out_option("Run folder, new or empty. Default: runs/RECIPE.")] = None,
    seeds: Annotated[
        str | None,
        typer.Option(metavar="SEEDS", help="Train once for each seed, such as 0..31 or 0,2,5, into OUT/seed-SEED."),
    ] = None,
    table_name: Annotated[
        str | None,
        typer.Option("--table", metavar="NAME", help="Train all mice of a published table, such as dsprites."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run in its folder.")] = False,
    settings: SettingsOption = None,
    wandb: Annotated[bool, typer.Option("--wandb", help="Also log to Weights & Biases.")] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also log to TensorBoard, in OUT/tensorboard.")
    ] = False,
    license: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Licence of the weights, such as cc-by-4.0 (default: the recipe's)."),
    ] = None,
    dataset: Annotated[
        list[str] | None,
        typer.Option(metavar="OWNER/NAME", help="Where the data are published, for the card to name; repeatable."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(metavar="PATH", help="Where the recipe's data are, such as MNIST's folder or dSprites' file."),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option("--from", metavar="REF", help="Fine-tune this model, as for prisma.load. See --set trained=head."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Train a mouse.

    RECIPE is a name, or a Python file that defines a prisma.train.Recipe. The run folder gets every checkpoint, the
    metrics, the curves and the results. `accelerate launch -m prisma train RECIPE` shares every batch among several
    GPUs or machines.
    """
    if table_name is not None or recipe is None:
        if table_name is None or recipe is not None or settings or wandb or tensorboard or license or dataset:
            raise typer.BadParameter("expected a recipe; or --table without a recipe and its options")
        _train_table(table_name, given(out or Path("runs") / table_name), seeds, resume, as_json, data)
        return
    asked = asked_for(recipe, settings or [], data, license, dataset or [], base)
    folder = given(out or Path("runs") / asked.recipe.name)
    if seeds is None:
        _train_one(asked, folder, resume, {"use_wandb": wandb, "use_tensorboard": tensorboard}, as_json)
        return
    _expect_one_process("--seeds")
    for option, wanted in (("--wandb", wandb), ("--tensorboard", tensorboard), ("--from", base)):
        if wanted:
            raise typer.BadParameter(f"expected {option} with one run; found --seeds", param_hint=option)
    _train_seeds(asked.recipe, folder, seeds, resume, (asked.stated, asked.here), as_json)


@cli.command("import", epilog="Example: prisma import model_51200.pth --like induction --set n_heads=4")
def import_(
    old: Annotated[Path, typer.Argument(metavar="OLD.pth", help="A checkpoint that ViT-Prisma wrote in 2023.")],
    like: Annotated[str, typer.Option(metavar="RECIPE", help="Recipe that gives task, heads and activation.")],
    out: Annotated[Path | None, out_option("Checkpoint folder, new or empty. Default: OLD.")] = None,
    settings: SettingsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Convert a mouse of ViT-Prisma (2023) to a checkpoint folder.

    `prisma.load` reads the folder.

    Layers, widths, patches and classes follow from the tensors. The number of heads and the activation do not: they are
    taken from the recipe. Check both, and change them with --set.
    """
    from prisma.recipes import recipe
    from prisma.recipes.importing import import_mouse

    folder = given(out or old.with_suffix(""))
    config = import_mouse(old, recipe(like).override(settings_of(settings or [])), folder)
    if as_json:
        print(json.dumps({"folder": str(folder), "architecture": asdict(config)}, indent=2))
    else:
        print(f"The mouse is in {folder}: {config.n_layers} layers, {config.n_heads} heads, {config.activation}.")


def _early(results: dict[str, Any]) -> str:
    """Why a run ended early, as a sentence after another; nothing of one that did not."""
    stopped = results.get("stopped")
    return f" It ended early, at step {stopped['step']}: {stopped['why']}." if stopped else ""


def _train_one(asked: Asked, folder: Path, resume: bool, trackers: Mapping[str, Any], as_json: bool) -> None:
    """Train one run, in all processes that were launched for it, and print its results."""
    from prisma.launched import launched_processes
    from prisma.run_folder import is_finished
    from prisma.train import train as run

    done = f"The run in {folder} was already finished." if is_finished(folder) else f"The run is in {folder}."
    options = [f" --{name.removeprefix('use_')}" for name, wanted in trackers.items() if wanted]
    again = f"{asked.here} --out {shlex.quote(str(folder))} --resume{''.join(options)}"
    how = {"resume": resume, "command": asked.stated, "first": asked.first, **trackers}
    with interruptible(f"{again} continues from here"), launched_processes() as processes:
        results = run(asked.recipe, folder, processes=processes, **how)
    if processes.is_first:
        print(json.dumps(results, indent=2) if as_json else f"{done}{_early(results)}\n{_results_table(results)}")


def _expect_one_process(option: str) -> None:
    from prisma.launched import launched_processes

    with launched_processes("cpu") as processes:
        if processes.count > 1:
            raise typer.BadParameter(
                f"expected one process; found {processes.count}: several share the batches of one run",
                param_hint=option,
            )


def _train_seeds(
    recipe: "Recipe", out: Path, text: str, resume: bool, commands: tuple[str, str], as_json: bool
) -> None:
    """Train a recipe with several seeds, and print a row for each and their mean. `commands` as in `_train_one`."""
    from prisma.train.seeds import over_seeds, seeds_in, train_seeds

    seeds, (stated, here) = seeds_in(text), commands
    with interruptible(f"{here} --seeds {text} --out {shlex.quote(str(out))} --resume continues from here"):
        results = train_seeds(recipe, out, seeds, resume=resume, command=stated)
    name = f"test {recipe.objective.headline}"
    spread = over_seeds(results, name)
    if as_json:
        print(json.dumps({"runs": results, name: spread}, indent=2))
        return
    rows = [
        {"seed": seed, **{row["name"]: f"{row['value']:.4f}" for row in found["results"]}}
        for seed, found in zip(seeds, results, strict=True)
    ]
    print(table(rows))
    print(f"{name} over {len(seeds)} seeds: {spread['mean']:.4f}, sd {spread['sd']:.4f}")
    print(f"The runs are in {out}.")


def _train_table(name: str, out: Path, text: str | None, resume: bool, as_json: bool, data: str | None = None) -> None:
    """Train the recipes of a table, and print our accuracies beside the published ones."""
    from prisma.recipes.tables import train_table
    from prisma.train.seeds import seeds_in

    _expect_one_process("--table")
    seeds, rows = seeds_in(text or "0"), dict[str, dict[str, Any]]()
    words = f" --seeds {text}" if text else ""
    words += f" --data {shlex.quote(data)}" if data else ""
    again = f"prisma train --table {name}{words} --out {shlex.quote(str(out))} --resume"
    with interruptible(f"{again} continues from here"):
        for row in train_table(name, out, seeds, resume=resume, data=data):
            rows[row["recipe"]] = row
    print(json.dumps(list(rows.values()), indent=2) if as_json else table([_in_words(row) for row in rows.values()]))


def _in_words(row: dict[str, Any]) -> dict[str, Any]:
    """A row as a terminal shows it."""
    words = {True: "yes", False: "no"}
    shown = {key: words[value] if isinstance(value, bool) else value for key, value in row.items()}
    return {
        key: "" if value is None else f"{value:.3f}" if isinstance(value, float) else value
        for key, value in shown.items()
    }


def _results_table(results: dict[str, Any]) -> str:
    return table([{**row, "value": f"{row['value']:.4f}"} for row in results["results"]])
