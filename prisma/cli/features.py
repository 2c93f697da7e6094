"""`prisma features`: images optimised for units of a model, beside the real images that these answer to most."""

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prisma.cli.shared import JsonOption, interruptible

if TYPE_CHECKING:
    from prisma.features.visualize import Features

cli = typer.Typer()


@cli.command(
    epilog="Example: prisma features --model mice/sprites --images sprites --unit 'logits:0-7' "
    "--unit blocks.3.mlp.post:17"
)
def features(
    model: Annotated[str, typer.Option(metavar="REF", help="The model, as for prisma.load.")],
    unit: Annotated[
        list[str],
        typer.Option(
            metavar="SITE:INDEX",
            help="blocks.3.mlp.post:17, a range 0-63, logits:NAME, or with ,head=2 or ,token=class.",
        ),
    ],
    images: Annotated[
        str, typer.Option(metavar="DIR", help="A folder of images, or a task, to compare with (its test images).")
    ],
    by: Annotated[str, typer.Option(help="How images are made: fft, maco, pyramid, cppn, pixels.")] = "fft",
    steps: Annotated[int, typer.Option(min=1, help="Steps of the optimisation.")] = 256,
    seed: Annotated[int, typer.Option(help="Of the first image and the random changes.")] = 0,
    copies: Annotated[int, typer.Option(min=1, help="Images of each unit.")] = 1,
    top: Annotated[int, typer.Option(min=1, help="Real images to show beside each unit.")] = 5,
    second: Annotated[str | None, typer.Option(metavar="REF", help="A second model that looks at them too.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Use only the first N images.")] = None,
    hub: Annotated[Path | None, typer.Option(help="The folder hub that holds the published mice.")] = None,
    out: Annotated[Path, typer.Option(help="The folder for the results.")] = Path("runs/features"),
    batch: Annotated[int | None, typer.Option(min=1, help="Images that are optimised together.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 (default: a GPU if there is one).")] = None,
    as_json: JsonOption = False,
) -> None:
    """Which images drive these units most, and what do real images say?

    It writes a contact sheet (sheet.png), features.npz and a card (README.md). If it is stopped, the same command
    continues. `accelerate launch --no_python prisma features ...` shares the units among several GPUs.
    """
    from prisma.data.pictures import pictures
    from prisma.errors import expect_packages
    from prisma.features.jobs import FeatureJob, run_features
    from prisma.features.units import units_of
    from prisma.inventory import site_names
    from prisma.launched import launched_processes
    from prisma.loaded import load
    from prisma.train.machine import pick_device

    expect_packages("matplotlib", extra="analysis")
    command = shlex.join(["prisma", *sys.argv[1:]])
    with interruptible(f"{command} continues from here"), launched_processes(device) as processes:
        loaded, other = load(model, hub=hub), None if second is None else load(second, hub=hub)
        units = units_of(unit, site_names(loaded.config), loaded.labels)
        data = pictures(images, loaded.transform, loaded.config.input_shape, limit, loaded.labels)
        for each in (loaded, other):
            if each is not None:
                each.model.to(pick_device(processes.device))
        where = {"model": model, "source": images, **({} if second is None else {"second model": second})}
        job = FeatureJob(
            loaded, units, data, out, by=by, steps=steps, seed=seed, copies=copies, k=top, second=other,
            provenance=where,
        )  # fmt: skip
        found = run_features(job, batch=batch, processes=processes)
        if processes.is_first:
            print(_as_json(found, out) if as_json else found.report(loaded.labels))
        if processes.is_first and not as_json:
            print(f"Wrote {len(units)} units to {out}: sheet.png, features.npz, README.md.")


def _as_json(found: "Features", out: Path) -> str:
    numbers = {name: x.tolist() for name, x in found.arrays.items() if name in ("activation", "answer")}
    return json.dumps({"targets": found.metadata["targets"], **numbers, "out": str(out)}, indent=2)
