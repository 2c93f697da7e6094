"""Weights & Biases, when asked for; WANDB_MODE and its other variables are its own affair."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Log = Callable[[Mapping[str, Any]], None]
"""Takes a line of metrics.jsonl."""


@contextmanager
def tracking(wanted: bool, description: Mapping[str, Any], folder: Path) -> Iterator[Log]:
    """A function that logs a line to wandb under the run's own id, so that a resumed run goes on; or does nothing."""
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
