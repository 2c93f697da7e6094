"""Data sets of the Hugging Face Hub, or saved by its library `datasets`, as tasks: streamed, and decoded in workers.

Rows come as a stream, shard after shard, and each picture is decoded and resized in a worker while the next ones
arrive; nothing but the resized bytes is kept (`prisma.data.decoding`).
"""

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
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
    tenth of each class is drawn for testing. A split whose labels are kept secret (-1, as those of ImageNet's test
    pictures) is none.

    Args:
        repo: OWNER/NAME on the Hub, or a folder with files that `datasets` reads (such as Parquet).
        config: the name of one of its configurations.
        revision: a commit: what was decoded of it is kept (`prisma.data.decoding`); without, it is streamed each time.
        first: only so many rows of each split; needed where the repository does not state how many there are.
        skipped: the largest share of pictures that may fail to decode.

    Raises:
        PrismaError: no such data set, or no network; no such columns or splits; too many pictures cannot be decoded.
    """
    stream = _Stream.of(str(repo), config, revision)
    name = str(repo).rstrip("/").rpartition("/")[2]
    transform = Transform(size=(size, size), mean=MEAN, std=STD, shortest=size)
    state = f"{repo} {config} {revision} {first}" if revision else None

    def split_of(split: str) -> Split:
        n = first or stream.stated(split)
        if n is None:
            raise PrismaError(f"expected {repo} to state how many rows it has; found that it does not: give `first`")
        rows = stream.pictures(split, n, transform.plain)
        done = decoded(rows, n, (3, size, size), state and f"{state} {split}", skipped)
        return Split(done.images, done.labels)

    train = split_of("train")
    test = next((split for split in TEST if split in stream.splits and stream.has_labels(split)), None)
    train, held = (train, split_of(test)) if test else divided(train, len(stream.labels))
    return Task.of_splits(
        name,
        train,
        held,
        labels=stream.labels,
        transform=transform,
        summary=f"Which of {len(stream.labels):,} classes? {len(train.labels) + len(held.labels):,} pictures, {name}.",
        source=f"the data set {repo} of the Hugging Face Hub",
    )


@dataclass(frozen=True)
class _Stream:
    """A data set whose rows are read one after the other."""

    splits: Mapping[str, Any]  # name -> a stream of `datasets`
    image: str  # the column of the pictures
    label: str  # the column of the labels
    labels: tuple[str, ...]  # the names of the classes

    @classmethod
    def of(cls, repo: str, config: str | None, revision: str | None) -> "_Stream":
        """Open a data set: nothing but its description is read."""
        expect_packages("datasets", "PIL", extra="train")
        import datasets

        try:
            with nullcontext() if given(repo).is_dir() else from_the_hub():
                found = datasets.load_dataset(repo, config, revision=revision, streaming=True)
        except PrismaError:
            raise
        except (ValueError, OSError) as error:
            raise PrismaError(f"expected a data set of the Hub or a folder of one at {repo}; found: {error}") from None
        if "train" not in found:
            raise PrismaError(f"expected a split train in {repo}; found {listed(list(found))}")
        features = found["train"].features or {}
        image, label = (next((key for key in known if key in features), "") for known in (IMAGES, LABELS))
        labels = getattr(features.get(label), "names", None)
        if not image or not labels:
            raise PrismaError(
                f"expected columns of images and of named labels in {repo}; found {quoted(list(features))}"
            )
        plain = {split: rows.cast_column(image, datasets.Image(decode=False)) for split, rows in found.items()}
        return cls(plain, image, label, tuple(labels))

    def stated(self, split: str) -> int | None:
        """How many rows a split has, if that is stated."""
        about = (getattr(self.splits[split].info, "splits", None) or {}).get(split)
        return (about.num_examples or None) if about is not None else None

    def has_labels(self, split: str) -> bool:
        """Whether the first row of a split states a class."""
        label = next((row[self.label] for row in self.splits[split]), None)
        return label is not None and label >= 0

    def pictures(self, split: str, n: int, plain: Transform) -> Iterator[Picture]:
        """The first `n` rows of a split, not decoded."""
        for i, row in enumerate(islice(iter(self.splits[split]), n)):
            if (label := row[self.label]) is None or not 0 <= label < len(self.labels):
                raise PrismaError(
                    f"expected labels from 0 to {len(self.labels) - 1} in {split}; found {label} in row {i}"
                )
            yield Picture(f"row {i}", partial(_read, row[self.image], label, plain, i))


def _read(image: dict[str, Any], label: int, plain: Transform, i: int) -> tuple[Tensor, int]:
    try:
        return as_bytes(plain(picture_of(image["bytes"]) if image.get("bytes") else image["path"])), label
    except PrismaError as error:
        raise UnreadableError(f"row {i}: {error}") from None
