"""Logging to Weights & Biases, if wanted; wandb reads WANDB_MODE and its other variables itself."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Log = Callable[[Mapping[str, Any]], None]
"""A function that takes a line of metrics.jsonl."""


@contextmanager
def tracking(wanted: bool, description: Mapping[str, Any], folder: Path) -> Iterator[Log]:
    """A function that logs a line to wandb, or that does nothing. A resumed run continues its wandb run, by its id."""
    if not wanted:
        yield lambda line: None
        return
    import wandb

    with wandb.init(
        project="prisma",
        name=f"{description['recipe']}-{description['run']}",
        id=description["run"],
        resume="allow",
        config=dict(description),
        dir=str(folder),
    ) as run:
        yield lambda line: run.log({key: value for key, value in line.items() if key != "step"}, step=line["step"])
