"""Data sets of the Hugging Face Hub, or saved by its library `datasets`, as tasks: streamed, and decoded in workers.

Rows come as a stream, shard after shard, and each picture is decoded and resized in a worker while the next ones
arrive; nothing but the resized bytes is kept (`prisma.data.decoding`).
"""

from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from torch import Tensor

from prisma.data.decoding import SKIPPED, Picture, UnreadableError, decoded, picture_of
from prisma.data.own import IMAGES, LABELS, divided
from prisma.data.picture_sets import MEAN, STD
from prisma.data.task import Split, Task
from prisma.data.transform import Transform, as_bytes
from prisma.downloads import from_the_hub
from prisma.errors import PrismaError, expect_packages, listed, quoted
from prisma.filesystem import given

TEST = ("test", "validation", "valid", "val")


def hub_set(
    repo: str | Path,
    size: int = 64,
    *,
    config: str | None = None,
    revision: str | None = None,
    first: int | None = None,
    skipped: float = SKIPPED,
) -> Task:
    """A data set of the Hub as a task of `size` x `size` pixels, in colour.

    It needs a column of pictures and one of labels, a split `train`, and `test` or `validation`; where there is none, a
    tenth of each class is drawn for testing.

    Args:
        repo: OWNER/NAME on the Hub, or a folder with files that `datasets` reads (such as Parquet).
        config: the name of one of its configurations.
        revision: a commit: what was decoded of it is kept (`prisma.data.decoding`); without, it is streamed each time.
        first: only so many rows of each split; needed where the repository does not state how many there are.
        skipped: the largest share of pictures that may fail to decode.

    Raises:
        PrismaError: no such data set, or no network; no such columns or splits; too many pictures cannot be decoded.
    """
    expect_packages("datasets", "PIL", extra="train")
    import datasets

    name = str(repo).rstrip("/").rpartition("/")[2]
    try:
        with nullcontext() if given(repo).is_dir() else from_the_hub():
            found = datasets.load_dataset(str(repo), config, revision=revision, streaming=True)
    except (ValueError, OSError) as error:
        if isinstance(error, PrismaError):
            raise
        raise PrismaError(f"expected a data set of the Hub or a folder of one at {repo}; found: {error}") from None
    test = next((split for split in TEST if split in found), None)
    if "train" not in found:
        raise PrismaError(f"expected a split train in {repo}; found {listed(list(found))}")
    features = found["train"].features or {}
    image, label = (next((key for key in known if key in features), None) for known in (IMAGES, LABELS))
    labels = getattr(features.get(label), "names", None)
    if image is None or labels is None:
        raise PrismaError(f"expected columns of images and of named labels in {repo}; found {quoted(list(features))}")
    transform = Transform(size=(size, size), mean=MEAN, std=STD, shortest=size)
    state = f"{repo} {config} {revision} {getattr(found['train'].info, 'version', '')} {first}"

    def split_of(name: str) -> Split:
        stream = found[name].cast_column(image, datasets.Image(decode=False))
        n = first or _stated(stream, name)
        if n is None:
            raise PrismaError(f"expected {repo} to state how many rows it has; found that it does not: give `first`")
        rows = _pictures(islice(iter(stream), n), image, label, transform.plain)
        done = decoded(rows, n, (3, size, size), f"{state} {name}" if revision else None, skipped)
        return Split(done.images, done.labels)

    train = split_of("train")
    train, held = (train, split_of(test)) if test else divided(train, len(labels))
    return Task.of_splits(
        name,
        train,
        held,
        labels=labels,
        transform=transform,
        summary=f"Which of {len(labels):,} classes? {len(train.labels) + len(held.labels):,} pictures of {name}.",
        source=f"the data set {repo} of the Hugging Face Hub",
    )


def _stated(stream: Any, split: str) -> int | None:
    splits = getattr(stream.info, "splits", None) or {}
    found = splits.get(split)
    return found.num_examples if found is not None and found.num_examples else None


def _pictures(rows: Iterator[dict[str, Any]], image: str, label: str | None, plain: Transform) -> Iterator[Picture]:
    for i, row in enumerate(rows):
        yield Picture(f"row {i}", partial(_read, row[image], row[label], plain, i))


def _read(image: dict[str, Any], label: int, plain: Transform, i: int) -> tuple[Tensor, int]:
    try:
        return as_bytes(plain(picture_of(image["bytes"]) if image.get("bytes") else image["path"])), label
    except PrismaError as error:
        raise UnreadableError(f"row {i}: {error}") from None
