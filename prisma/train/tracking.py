"""Who is told of every line of `metrics.jsonl`, beside the file: Weights & Biases, TensorBoard, a function.

wandb reads WANDB_MODE and its other variables itself.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from prisma.errors import PrismaError
from prisma.files import read_json, write_json
from prisma.filesystem import remove
from prisma.run_folder import HEADS, RECIPE

WANDB, TENSORBOARD = "wandb", "tensorboard"
EXTRAS: Mapping[str, str] = {WANDB: "train", TENSORBOARD: "tensorboard"}
"""A tracker, whose package and whose folder in a run have its name -> the extra that installs the package."""
OWN = WANDB
"""The folder in which wandb keeps its files of a run. It is begun before the run is, and is no part of it."""

Log = Callable[[Mapping[str, Any]], None]
"""A function that takes a line of metrics.jsonl."""


@contextmanager
def tracking(
    trackers: Sequence[str], description: Mapping[str, Any], folder: Path, watch: Log | None = None
) -> Iterator[tuple[Log, str | None]]:
    """A function that gives a line to all trackers, and the address of the run's page on wandb, if it has one.

    Args:
        trackers: names in `EXTRAS`.
        watch: one more that is told of every line.

    Raises:
        PrismaError: wandb cannot begin, for example without a login. Its files are removed.
    """
    page, logs = None, [] if watch is None else [watch]
    with ExitStack() as stack:
        if WANDB in trackers:
            log, page = stack.enter_context(_wandb(description, folder))
            logs.append(log)
        if TENSORBOARD in trackers:
            logs.append(stack.enter_context(_tensorboard(folder / TENSORBOARD)))

        def tell(line: Mapping[str, Any]) -> None:
            for log in logs:
                log(line)

        yield tell, page


def numbers_in(line: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a line but its step, the score of a head as `heads/entropy/0.3`: of layer 0 and head 3."""
    plain = {name: value for name, value in line.items() if name not in ("step", HEADS)}
    scores = {
        f"{HEADS}/{name}/{layer}.{head}": value
        for name, layers in line.get(HEADS, {}).items()
        for layer, heads in enumerate(layers)
        for head, value in enumerate(heads)
    }
    return plain | scores


@contextmanager
def _wandb(description: Mapping[str, Any], folder: Path) -> Iterator[tuple[Log, str | None]]:
    """A resumed run continues its wandb run, by its id."""
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
            lambda line: run.log(numbers_in(line), step=line["step"]),
            url if isinstance(url, str) else None,
        )


@contextmanager
def _tensorboard(folder: Path) -> Iterator[Log]:
    """It begins with the first line. Of a resumed run, TensorBoard drops what it had from the step of that line on."""
    from torch.utils.tensorboard import SummaryWriter

    writers: list[Any] = []

    def log(line: Mapping[str, Any]) -> None:
        if not writers:
            writers.append(SummaryWriter(log_dir=str(folder), purge_step=line["step"] or None))
        for name, value in numbers_in(line).items():
            writers[0].add_scalar(name, value, line["step"])

    try:
        yield log
    finally:
        for writer in writers:
            writer.close()


def note_page(out: Path, url: str | None) -> None:
    """Write the address of the run's page on wandb, if it has one, into `recipe.json`."""
    found = read_json(out / RECIPE)
    if url is not None and found.get("wandb") != url:
        write_json(out / RECIPE, {**found, "wandb": url})
