"""Tasks whose data are at a place that only this machine knows: `NAME:PATH`, or `NAME-SIZE:PATH` for pictures.

`mnist:~/mnist`, `cifar10:cifar-10-binary.tar.gz`, `imagenet-64:/data/imagenet`, `folder:photographs`,
`dsprites:dsprites.npz`, `hub:OWNER/NAME`. What is published of a run names the task without its place.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

from prisma.data.cifar import KINDS, cifar
from prisma.data.dsprites import QUESTIONS, dsprites
from prisma.data.hub_sets import hub_set
from prisma.data.mnist import LABELS, SOURCE, SUMMARY, TRANSFORM, mnist
from prisma.data.picture_sets import MEAN, STD, picture_set
from prisma.data.task import Split, Task
from prisma.data.transform import Transform
from prisma.errors import PrismaError, nearest, printable

_FORM = re.compile(r"([a-z0-9-]+?)(?:-(\d{1,4}))?:(.+)", re.DOTALL)


@dataclass(frozen=True)
class Reader:
    """How the data of a name are read."""

    read: Callable[[str], Task]
    sized: Callable[[str, int], Task] | None = None  # of pictures that are resized: the same, to another size


def _folder(path: str, size: int = 64) -> Task:
    return picture_set(path, size, name=f"folder-{printable(Path(path).name)}")


READERS: Mapping[str, Reader] = {
    "mnist": Reader(mnist),
    **{kind.name: Reader(partial(cifar, classes=n)) for n, kind in KINDS.items()},
    **{
        name: Reader(
            partial(picture_set, size=size, layout=name, name=name), partial(picture_set, layout=name, name=name)
        )
        for name, size in (("imagenet", 224), ("tinyimagenet", 64))
    },
    "folder": Reader(_folder, _folder),
    "hub": Reader(hub_set, hub_set),
    **{
        "dsprites" if target == "shape" else f"dsprites-{target}": Reader(partial(dsprites, target))
        for target in QUESTIONS
    },
}
"""The name before the colon -> how what is at the place after it is read."""


@lru_cache(maxsize=4)
def task_at(name: str) -> Task | None:
    """The task that `NAME:PATH` means; None if the text has another form.

    Raises:
        PrismaError: no such NAME (the nearest are given), no size where one is given, or no such data at PATH.
    """
    if (match := _FORM.fullmatch(name)) is None:
        return None
    kind, size, path = match.groups()
    if kind not in READERS:
        raise PrismaError(f"there is no task {kind!r} that is read from a path; the nearest: {nearest(kind, READERS)}")
    reader = READERS[kind]
    if size is None:
        return reader.read(path)
    if reader.sized is None:
        raise PrismaError(f"expected {kind}:PATH, whose images have one size; found the size {size}")
    return reader.sized(path, int(size))


def _absent(name: str, labels: tuple[str, ...], transform: Transform, summary: str, source: str) -> Task:
    """A task that says what its data are like, for recipes, and that they are elsewhere."""

    def make() -> tuple[Split, Split]:
        raise PrismaError(
            f"expected the place of the data of {name}: `prisma train RECIPE --data PATH`, or the task `{name}:PATH`; "
            "found none"
        )

    return Task(name, summary, source, labels, transform, make, sha256="")


ABSENT: Mapping[str, Task] = {
    task.name: task
    for task in (
        _absent("mnist", LABELS, TRANSFORM, SUMMARY, SOURCE),
        _absent(
            "imagenet",
            tuple(f"class {i}" for i in range(1000)),
            Transform(size=(224, 224), mean=MEAN, std=STD, shortest=256),
            "Which of 1,000 classes? 1,331,167 photographs.",
            "ImageNet-1k (Russakovsky et al. 2015)",
        ),
    )
}
"""Tasks of which recipes exist, and whose data do not come with the package."""
