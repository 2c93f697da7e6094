"""Logging to Weights & Biases, if wanted; wandb reads WANDB_MODE and its other variables itself."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prisma.errors import PrismaError
from prisma.files import read_json, write_json
from prisma.filesystem import remove
from prisma.run_folder import RECIPE

OWN = "wandb"
"""The folder in which wandb keeps its files of a run. It is begun before the run is, and is no part of it."""

Log = Callable[[Mapping[str, Any]], None]
"""A function that takes a line of metrics.jsonl."""


def both(first: Log, second: Log | None) -> Log:
    """A function that gives a line to two others."""

    def log(line: Mapping[str, Any]) -> None:
        first(line)
        if second is not None:
            second(line)

    return log


@contextmanager
def tracking(wanted: bool, description: Mapping[str, Any], folder: Path) -> Iterator[tuple[Log, str | None]]:
    """A function that logs a line to wandb, or that does nothing, and the address of the run's page, if it has one.

    A resumed run continues its wandb run, by its id.

    Raises:
        PrismaError: wandb cannot begin, for example without a login. Its files are removed.
    """
    if not wanted:
        yield lambda line: None, None
        return
    import wandb

    own = folder / OWN
    is_new = not own.exists()
    try:
        begun = wandb.init(
            project="prisma",
            name=f"{description['recipe']}-{description['run']}",
            id=description["run"],
            resume="allow",
            config=dict(description),
            dir=str(folder),
        )
    except Exception as error:  # wandb raises many kinds, from its own to those of the network
        if is_new:
            remove(own)
        reason = " ".join(str(error).split()) or type(error).__name__
        raise PrismaError(
            f"expected wandb to begin a run; found that it cannot ({reason}): log in with `wandb login`, set "
            "WANDB_MODE=offline, or train without it"
        ) from error
    with begun as run:
        url = getattr(run, "url", None)  # offline there is none
        yield (
            lambda line: run.log({key: value for key, value in line.items() if key != "step"}, step=line["step"]),
            url if isinstance(url, str) else None,
        )


def note_page(out: Path, url: str | None) -> None:
    """Write the address of the run's page on wandb, if it has one, into `recipe.json`."""
    found = read_json(out / RECIPE)
    if url is not None and found.get("wandb") != url:
        write_json(out / RECIPE, {**found, "wandb": url})
