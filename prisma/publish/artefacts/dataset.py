"""The data set of a task as an artefact: a Parquet file for each split, and a card with all factors of variation."""

from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prisma import __version__
from prisma.data import package_task
from prisma.data.task import SEED, Factor, Split, Task, data_hash
from prisma.data.transform import as_bytes
from prisma.errors import PrismaError, listed, shown
from prisma.publish.artefacts.artefact import Artefact
from prisma.publish.artefacts.parquet import IMAGE, KINDS, LABEL, MASK, OBJECTS, from_parquet, to_parquet
from prisma.publish.commits import File
from prisma.publish.facts import Fact
from prisma.publish.markdown import LABELS, listing, one_line, text
from prisma.publish.metadata import license_name, to_yaml
from prisma.publish.rendering import rendered
from prisma.reading import read_bytes
from prisma.repo_names import expect_repo_name
from prisma.repository import ARTEFACT, DATASET

TAGS = ("mechanistic-interpretability", "vision-transformer", "prisma")
SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))
"""Fewer images than -> what the Hub calls that size."""
PACKAGES = ("numpy", "pillow", "pyarrow", "torch")  # on which the bytes of the files may depend
LARGEST = 1 << 32  # bytes of a Parquet file that is read


def file_of(split: str) -> str:
    """The name of the file of a split, as the Hub's viewer expects it."""
    return f"data/{split}-00000-of-00001.parquet"


_STATED = ("task", "summary", "source", "license", "sha256", "seed", "command")  # by the task, before data are made
FACTS = frozenset((*_STATED, "image", "masks", "objects", "rounding", "splits", "classes", "factors", "environment"))
"""What the manifest of a data set says about it."""
NAMES = tuple(file_of(split) for split in ("train", "test"))


def of_task(data: Task, repo: str) -> Artefact:
    """What the data set of a task is published as.

    Raises:
        PrismaError: a name that the Hub does not allow; data of another hash than the task states; images that are no
            pictures; no licence.
    """
    expect_repo_name(repo)
    about = facts_of(data, repo)
    files = tuple(File.of(file_of(name), to_parquet(data, split)) for name, split in data.splits.items())
    return Artefact(DATASET, about, files, render(repo, about))


def facts_of(data: Task, repo: str) -> dict[str, Any]:
    """What the card of a task's data set says: numbers, names and counts, as JSON has them."""
    splits = data.splits
    first = next(iter(splits.values()))
    factors = [
        {"name": factor.name, "words": factor.words, "values": _counts(splits, factor.name, _values(factor, splits))}
        for factor in data.factors
    ]
    return {
        **_stated(data, repo),
        "image": list(first.images.shape[1:]),
        "masks": first.masks is not None,
        "objects": first.objects is not None,
        "rounding": max(_rounding(split.images) for split in splits.values()),
        "splits": {name: len(split.labels) for name, split in splits.items()},
        "classes": _counts(splits, None, dict(enumerate(data.labels))),
        "factors": factors,
        "environment": {"prisma": __version__, **{name: version(name) for name in PACKAGES}},
    }


def _stated(data: Task, repo: str) -> dict[str, Any]:
    """That part of what the card says for which the data need not be made."""
    return {
        "task": data.name,
        "summary": data.summary,
        "source": data.source,
        "license": data.license,
        "sha256": data.sha256,
        "seed": SEED,
        "command": f"prisma publish task:{data.name} {repo}",
    }


def _rounding(images: Tensor) -> float:
    """The largest difference between a pixel and its value in 8 bits."""
    if images.dtype in (torch.bool, torch.uint8):
        return 0.0
    found: float = (as_bytes(images).float() / 255 - images).abs().max().item()
    return 0.0 if found < 1e-6 else float(f"{found:.1g}")


def _values(factor: Factor, splits: Mapping[str, Split]) -> dict[int, str | int]:
    """Value -> its name, or itself: all names of the factor, or all numbers that occur."""
    if factor.values:
        return dict(enumerate(factor.values))
    there = torch.cat([split.factors[factor.name] for split in splits.values()]).unique().tolist()
    return {value: value for value in there}


def _counts(splits: Mapping[str, Split], factor: str | None, names: Mapping[int, str | int]) -> list[list[Any]]:
    """A row for each value: its name, and how many images of each split have it. No factor: of the labels."""
    columns = [split.labels if factor is None else split.factors[factor] for split in splits.values()]
    return [[name, *(int((column == value).sum()) for column in columns)] for value, name in names.items()]


def render(repo: str, about: Mapping[str, Any]) -> str:
    """The card of a data set, from what its manifest says about it.

    Raises:
        PrismaError: a fact that the card needs is missing or of a wrong kind; the sentence names it.
    """
    fact = Fact(about, f"about of {ARTEFACT}")
    splits = {name: n.whole(1) for name, n in fact["splits"].items().items()}
    factors = [_factor(row, splits) for row in fact["factors"].rows(0)]
    classes, masks, objects = _rows(fact["classes"], splits), fact["masks"].value is True, fact["objects"].value is True
    name, rounding = fact["task"].text(), fact["rounding"].number(0, 1)
    facts = {
        "metadata": to_yaml(_metadata(repo, fact, splits), DATASET),
        "repo": repo,
        "name": repo.split("/")[1],
        "task": name,
        "summary": fact["summary"].text(),
        "source": fact["source"].text(),
        "sha256": fact["sha256"].text(),
        "seed": fact["seed"].whole(),
        "command": fact["command"].text(),
        "image": [n.whole(1) for n in fact["image"].rows(3, 3)],
        "masks": masks,
        "objects": objects,
        "rounding": f"{rounding:g}" if rounding else None,
        "splits": splits,
        "files": {split: file_of(split) for split in splits},
        "classes": classes if len(classes) <= LABELS else [],
        "n_classes": len(classes),
        "class_list": listing(str(row["name"]) for row in classes),
        "factors": factors,
        "columns": {"image": IMAGE, "label": LABEL, "mask": MASK, "objects": OBJECTS, "kinds": KINDS},
        "environment": {key: value.text() for key, value in fact["environment"].items().items()},
        "license_name": license_name(fact["license"].text()),
    }
    return rendered("dataset.md", facts)


def _factor(row: Fact, splits: Mapping[str, int]) -> dict[str, Any]:
    values = _rows(row["values"], splits)
    return {"name": row["name"].text(), "words": row["words"].text(), "n": len(values), "images": _in_words(values)}


def _in_words(values: Sequence[Mapping[str, Any]]) -> str:
    """Each value and its counts; of many values, their range and that of their counts."""
    if len(values) <= LABELS:
        return " · ".join(f"{text(row['name'])}: {_numbers(row['counts'])}" for row in values)
    columns = zip(*(row["counts"] for row in values), strict=True)
    counts = ", ".join(f"{min(column):,} to {max(column):,}" for column in columns)
    return f"{text(values[0]['name'])} to {text(values[-1]['name'])}, each: {counts}"


def _numbers(counts: Sequence[int]) -> str:
    return ", ".join(f"{n:,}" for n in counts)


def _rows(found: Fact, splits: Mapping[str, int]) -> list[dict[str, Any]]:
    """Rows of a name and a count for each split, which are all images of the split."""
    rows = [row.rows(1 + len(splits), 1 + len(splits)) for row in found.rows(1, 100_000)]
    counts = [[n.whole() for n in row[1:]] for row in rows]
    for i, (split, n) in enumerate(splits.items()):
        if (total := sum(row[i] for row in counts)) != n:
            raise PrismaError(
                f"expected counts of {found.field} in {found.file} that are all {n:,} images of the split "
                f"{shown(split)}; found {total:,}"
            )
    return [{"name": row[0].setting(), "counts": of_row} for row, of_row in zip(rows, counts, strict=True)]


def _metadata(repo: str, fact: Fact, splits: Mapping[str, int]) -> dict[str, Any]:
    """The fields of the front matter, in the order in which the Hub documents them."""
    n = sum(splits.values())
    files = [{"split": split, "path": file_of(split)} for split in splits]
    return {
        "license": one_line(fact["license"].text()),
        "pretty_name": one_line(repo.split("/")[1]),
        "task_categories": ["image-classification"],
        "size_categories": [next((size for most, size in SIZES if n < most), "n>1T")],
        "tags": list(TAGS),
        "configs": [{"config_name": "default", "data_files": files}],
    }


def problems(folder: Path, repo: str, about: Mapping[str, Any], *, deep: bool) -> Iterator[str]:
    """Where a data set differs from the task that it says it is of.

    Args:
        folder: its files; without `deep`, none of them is read.
    """
    fact = Fact(about, f"about of {ARTEFACT}")
    name = fact["task"].text()
    try:
        data = package_task(name)
    except PrismaError:
        yield (
            f"expected a task whose data Prisma {__version__} makes, to compare the files with; found {shown(name)} in "
            f"{ARTEFACT}"
        )
        return
    if (found := fact["sha256"].text()) != data.sha256:
        yield f"expected data of hash {data.sha256} for the task {name} in {ARTEFACT}; found {shown(found)}"
    if _names_in(fact["classes"]) != list(data.labels):
        yield f"expected the classes of the task {name} in {ARTEFACT}; found others"
    if _factors_in(fact["factors"], data.factors) != [(f.name, f.words, list(f.values)) for f in data.factors]:
        yield f"expected the factors of the task {name} in {ARTEFACT}; found others"
    facts = facts_of(data, repo) if deep else _stated(data, repo)
    if wrong := [key for key in facts if key != "environment" and facts[key] != about.get(key)]:
        yield f"expected what the task {name} is in {ARTEFACT}; found others of {listed(wrong)}"
    if deep:
        yield from _file_problems(folder, data)


def _names_in(rows: Fact) -> list[Any]:
    """The first entry of each row: the names that rows of counts begin with."""
    return [row.rows(1)[0].value for row in rows.rows(1, 100_000)]


def _factors_in(rows: Fact, wanted: Sequence[Factor]) -> list[tuple[str, str, list[Any]]]:
    """Name, words and named values of each factor; values that are numbers are known from the data alone."""
    numbers = {factor.name for factor in wanted if not factor.values}
    found = [(row["name"].text(), row["words"].text(), row["values"]) for row in rows.rows(0)]
    return [(name, words, [] if name in numbers else _names_in(values)) for name, words, values in found]


def _file_problems(folder: Path, data: Task) -> Iterator[str]:
    """Where the files differ from the data of the task, to the last pixel."""
    splits = {
        split: from_parquet(read_bytes(folder / file_of(split), LARGEST), data, wanted)
        for split, wanted in data.splits.items()
    }
    if (found := data_hash(*splits.values())) != data.sha256:
        yield f"expected images, labels, masks and objects of hash {data.sha256}, those of {data.name}; found {found}"
    for split, there in splits.items():
        if odd := [key for key, x in data.splits[split].factors.items() if not torch.equal(x, there.factors[key])]:
            yield f"expected the factors of the task {data.name} in {file_of(split)}; found others of {listed(odd)}"
