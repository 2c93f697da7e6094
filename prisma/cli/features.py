"""`prisma features`: images optimised for units of a model, beside the real images that these answer to most."""

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prisma.cli.shared import (
    DeviceOption,
    JsonOption,
    LimitOption,
    OtherModelOption,
    classes_of,
    interruptible,
    out_option,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from prisma.features.visualize import Features
    from prisma.loaded import Loaded
    from prisma.pretrained.networks import Network
    from prisma.sparse.coders import Coder
    from prisma.sparse.latent_target import Latent

cli = typer.Typer()


@cli.command(
    epilog="Example: prisma features --model mice/sprites --images sprites --unit 'logits:0-7' "
    "--unit blocks.3.mlp.post:17"
)
def features(
    model: Annotated[
        str,
        typer.Option(metavar="REF", help="As for prisma.load; or a CNN: torchvision/, timm/, hf/, FILE.py:FUNCTION."),
    ],
    unit: Annotated[
        list[str],
        typer.Option(
            metavar="SITE:INDEX",
            help="blocks.3.mlp.post:17, a range 0-63, logits:NAME, layer1.conv1:3, latent:5; or ,head=2, ,token=class",
        ),
    ],
    images: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="A folder of images, or a task, to compare with (its test images)."),
    ] = None,
    prompts: Annotated[str, typer.Option(help="Class names for a CLIP, separated by commas: units logits:NAME.")] = "",
    coder: Annotated[str | None, typer.Option(metavar="REF", help="A sparse coder, whose latents are units.")] = None,
    other_model: OtherModelOption = False,
    by: Annotated[str, typer.Option(help="How images are made: fft, maco, pyramid, cppn, pixels.")] = "fft",
    steps: Annotated[int, typer.Option(min=1, help="Steps of the optimisation.")] = 256,
    seed: Annotated[int, typer.Option(help="Of the first image and the random changes.")] = 0,
    copies: Annotated[int, typer.Option(min=1, help="Images of each unit.")] = 1,
    top: Annotated[int, typer.Option(min=1, help="Real images to show beside each unit.")] = 5,
    second: Annotated[str | None, typer.Option(metavar="REF", help="A second model that looks at them too.")] = None,
    limit: LimitOption = None,
    hub: Annotated[Path | None, typer.Option(help="The folder hub that holds the published mice.")] = None,
    out: Annotated[Path, out_option("The folder for the results.")] = Path("runs/features"),
    batch: Annotated[int | None, typer.Option(min=1, help="Images that are optimised together.")] = None,
    device: DeviceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Which images drive these units most, and what do real images say?

    It writes sheet.png, features.npz and a card (README.md). If it is stopped, the same command continues.
    `accelerate launch --no_python prisma features ...` shares the units among several GPUs.
    """
    from prisma.data.pictures import pictures
    from prisma.errors import expect_packages
    from prisma.features.jobs import FeatureJob, run_features
    from prisma.features.subjects import subject_of
    from prisma.features.units import units_of
    from prisma.launched import launched_processes
    from prisma.train.machine import pick_device

    expect_packages("matplotlib", extra="analysis")
    with interruptible(f"{_again()} continues from here"), launched_processes(device) as processes:
        of_coder = _coder(coder, chosen := pick_device(processes.device))
        loaded = _model(model, hub, prompts, chosen, None if other_model else of_coder)
        other = None if second is None else _model(second, hub, prompts, chosen)
        units = units_of(unit, subject_of(loaded).sites, loaded.labels, _latents(of_coder))
        data = None if images is None else pictures(images, loaded.transform, loaded.input_shape, limit, loaded.labels)
        given = {"model": model, "source": images, "coder": coder, "second model": second, "prompts": prompts}
        job = FeatureJob(
            loaded, units, data, out, by=by, steps=steps, seed=seed, copies=copies, k=top, second=other,
            provenance={name: value for name, value in given.items() if value},
        )  # fmt: skip
        found = run_features(job, batch=batch, processes=processes)
        if processes.is_first:
            print(_as_json(found, out) if as_json else f"{found.report(loaded.labels)}\n{_wrote(len(units), out)}")


def _again() -> str:
    return shlex.join(["prisma", *sys.argv[1:]])


def _model(
    ref: str, hub: Path | None, prompts: str, device: "torch.device", coder: "Coder | None" = None
) -> "Loaded | Network":
    """The model on its device, with prompts as its classes if there are some; that which a coder was trained on."""
    from prisma.errors import PrismaError
    from prisma.features.models import model_of
    from prisma.loaded import Loaded
    from prisma.sparse.belonging import expect_trained_on

    found, classes = model_of(ref, hub), classes_of(prompts)
    if coder is not None:
        expect_trained_on(coder, found.model, other_model=False)
    if classes and not isinstance(found, Loaded):
        raise PrismaError(f"expected a CLIP for --prompts; found a {type(found.model).__name__}")
    if classes and isinstance(found, Loaded):
        found = found.zero_shot(classes)
    found.model.to(device)
    return found


def _wrote(units: int, out: Path) -> str:
    files = [name for name in ("sheet.png", "features.npz", "README.md") if (out / name).is_file()]
    return f"Wrote {units} units to {out}: {', '.join(files)}."


def _coder(ref: str | None, device: "torch.device") -> "Coder | None":
    if ref is None:
        return None
    from prisma.sparse.loading import load_coder

    return load_coder(ref).to(device)


def _latents(coder: "Coder | None") -> "Callable[[int, int | None], Latent] | None":
    """(latent, token) -> the objective, of the model that was asked about once; None without a coder."""
    if coder is None:
        return None
    from prisma.sparse.latent_target import Latent

    return lambda index, token: Latent(coder, index, token, other_model=True)


def _as_json(found: "Features", out: Path) -> str:
    names = ("activation", "percentile", "answer", "second_answer")
    numbers = {name: _finite(x.tolist()) for name, x in found.arrays.items() if name in names}
    return json.dumps({"targets": found.metadata["targets"], **numbers, "out": str(out)}, indent=2)


def _finite(values: list[float]) -> list[float | None]:
    """NaN is no JSON."""
    return [x if x == x else None for x in values]
