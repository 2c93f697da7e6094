"""`prisma smallest`: the smallest model that learns a task."""

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prisma.cli.shared import JsonOption, interruptible, out_option, settings_of, table
from prisma.filesystem import given

if TYPE_CHECKING:
    from prisma.smallest import Found

cli = typer.Typer()
SIZES = "numbers separated by commas, such as 1,2,4"


@cli.command(epilog="Example: prisma smallest circle --target 0.99 --budget 600")
def smallest(
    task: Annotated[str, typer.Argument(metavar="TASK", help="A name from `prisma mice`, whose recipe trains all.")],
    target: Annotated[float, typer.Option(help="Test accuracy that every seed must reach.")] = 0.99,
    out: Annotated[Path | None, out_option("Folder of the search (default: runs/smallest-TASK).")] = None,
    budget: Annotated[float | None, typer.Option(help="Seconds; the same command then goes on (default: 840).")] = None,
    seeds: Annotated[str, typer.Option(metavar="SEEDS", help="Such as 0..2 or 0,5.")] = "0..2",
    layers: Annotated[str, typer.Option(help=f"Numbers of layers: {SIZES} (default: from 1 to the recipe's).")] = "",
    width: Annotated[str, typer.Option(help="Widths of the residual stream (default: five up to the recipe's).")] = "",
    heads: Annotated[str, typer.Option(help="Numbers of heads (default: 1 and the recipe's).")] = "",
    mlp: Annotated[str, typer.Option(help="MLP widths, as multiples of the width; 0: attention only.")] = "",
    patch: Annotated[str, typer.Option(help="Patch sizes in pixels (default: the recipe's).")] = "",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a setting of the recipe. Repeatable."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Find the smallest model, by its number of weights, that reaches an accuracy.

    Successive halving with several seeds, in as many processes as there are cores. The folder gets a run for each
    model and seed, the table (smallest.json) and a figure of size against accuracy (frontier.png).
    """
    from prisma.recipes import recipe as find
    from prisma.smallest import Grid
    from prisma.smallest import smallest as search
    from prisma.smallest.grid import sizes_in
    from prisma.smallest.search import BUDGET
    from prisma.train.seeds import seeds_in

    changed = settings_of(settings or [])
    recipe = find(task).override(changed)
    texts = {"layers": layers, "width": width, "heads": heads, "mlp": mlp, "patch": patch}
    grid = Grid.around(recipe, **{name: sizes_in(name, text) for name, text in texts.items() if text})
    folder = given(out or Path("runs") / f"smallest-{task}")
    words = [word for name, text in {"seeds": seeds, **texts}.items() if text for word in (f"--{name}", text)]
    words += [word for setting in settings or [] for word in ("--set", setting)]
    again = shlex.join(["prisma", "smallest", task, "--target", f"{target:g}", *words, "--out", str(folder)])
    with interruptible(f"{again} continues from here"):
        found = search(
            recipe,
            target,
            folder,
            grid=grid,
            seeds=seeds_in(seeds),
            budget=BUDGET if budget is None else budget,
            changed=changed,
            told=lambda sentence: print(sentence, file=sys.stderr),
        )
    print(json.dumps(found.to_dict(), indent=2) if as_json else _in_words(found, folder))


def _in_words(found: "Found", folder: Path) -> str:
    """The frontier as a table, then the answer."""
    rows = [
        {
            "model": one.name,
            "weights": f"{one.parameters:,}",
            "lowest accuracy": f"{min(one.finished.values()):.4f}",
            "seeds": len(one.finished),
            "": found.verdict(one),
        }
        for one in found.frontier
    ]
    best, left = found.smallest, len(found.untested)
    answer = (
        f"No model reached {found.target:g} with every seed."
        if best is None
        else f"The smallest with {found.target:g} or more for every seed is {best.name}: {best.parameters:,} weights."
    )
    rest = (
        "Every smaller one was trained to its end and failed."
        if not left
        else f"{left} that are smaller were not trained to their end: the same command goes on with them."
    )
    if best is None and not left:
        rest = "All were trained to their end."
    command = f"\nIts command: {_command(found)}" if best else ""
    return "\n".join([*([table(rows)] if rows else []), f"{answer} {rest}{command}", f"The search is in {folder}."])


def _command(found: "Found") -> str:
    best = found.smallest
    assert best is not None, "it is called where there is one"
    words = [word for key, value in best.settings.items() for word in ("--set", f"{key}={value}")]
    return shlex.join(["prisma", "train", best.recipe.name, *words])
