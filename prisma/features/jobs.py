"""Feature visualisation of many units into a folder: a stopped command continues, and processes share the units.

    features.json     settings, which a later run must share
    part-00000.npz    the first few units, and so on; each file is complete or absent
    features.npz      all parts together
    sheet.png         the contact sheet
    README.md         the card: what was done, a row for each image, and how to read it; written last

A unit's result does not depend on the others, so the parts do not change it.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from prisma import __version__
from prisma.analysis.readings import Reading
from prisma.bounds import OWN_LIST
from prisma.checkpoint import weights_hash
from prisma.data.pictures import Pictures
from prisma.errors import PrismaError, quoted, shown
from prisma.features.card import card
from prisma.features.cppn import CPPN
from prisma.features.images import FFT, Image, Pixels, Pyramid
from prisma.features.maco import MACO, natural_pictures
from prisma.features.names import name_of
from prisma.features.subjects import subject_of
from prisma.features.visualize import Features, visualize
from prisma.files import clear_leftovers_in, exclusive, expect_empty, folder_for, read_json, write_atomic, write_json
from prisma.filesystem import given, sentences
from prisma.launched import ALONE, Processes
from prisma.loaded import Loaded
from prisma.pretrained.networks import Network
from prisma.progress import progress as progress_bar
from prisma.view.figures.sheet import MOST_ROWS, saved

IMAGES: Mapping[str, Callable[[], Any]] = {"fft": FFT, "maco": MACO, "pyramid": Pyramid, "cppn": CPPN, "pixels": Pixels}
"""Name at the command line -> parameterisation."""
NAMELESS = ("<lambda>", "<locals>")
"""What is in the name of a function that another one may have."""
SETTINGS, RESULT, SHEET, CARD = "features.json", "features.npz", "sheet.png", "README.md"


@dataclass(frozen=True, eq=False)
class FeatureJob:
    """Units of a model, and the folder for their visualisations."""

    loaded: Loaded | Network
    units: Sequence[Reading]
    data: Pictures | None
    out: Path
    by: str = "fft"
    steps: int = 256
    seed: int = 0
    copies: int = 1
    k: int = 5
    second: Loaded | Network | None = None
    per_part: int = 8
    provenance: Mapping[str, Any] = field(default_factory=dict)  # where models and images came from

    def __post_init__(self) -> None:
        object.__setattr__(self, "out", given(self.out))
        if self.by not in IMAGES:
            raise PrismaError(f"expected one of {', '.join(IMAGES)}; found {quoted(self.by)}")
        counts = Counter(self.names)
        for name, times in counts.items():
            if times > 1 or any(part in name for part in NAMELESS):
                raise PrismaError(
                    f"expected objectives whose names tell them apart, also in a later run; found {quoted(name)}: use "
                    "OfFunction(..., name=)"
                )

    @cached_property
    def names(self) -> list[str]:
        """What the units are called."""
        return [name_of(unit) for unit in self.units]

    def image(self) -> Image:
        """The parameterisation; the spectrum of MACO is that of photographs where there are no images."""
        if self.by == "maco" and self.data is None:
            return MACO(natural_pictures(subject_of(self.loaded).shape))
        return IMAGES[self.by]()

    @property
    def parts(self) -> list[Sequence[Reading]]:
        """The units of each part."""
        return [self.units[i : i + self.per_part] for i in range(0, len(self.units), self.per_part)]

    def part_path(self, number: int) -> Path:
        """The file of a part."""
        return self.out / f"part-{number:05d}.npz"

    def settings(self) -> dict[str, Any]:
        """Everything that results depend on."""
        return {
            "prisma": __version__, "model_sha256": weights_hash(self.loaded.model.state_dict()),
            "second_sha256": None if self.second is None else weights_hash(self.second.model.state_dict()),
            "images": 0 if self.data is None else len(self.data),
            "images_sha256": None if self.data is None else self.data.sha256, "units": self.names,
            "by": self.by, "steps": self.steps, "seed": self.seed, "copies": self.copies, "k": self.k,
            "per_part": self.per_part,
        }  # fmt: skip


def run_features(
    job: FeatureJob, *, batch: int | None = None, processes: Processes = ALONE, progress: bool = True
) -> Features:
    """Compute the parts that are missing, and put all of them together.

    Args:
        batch: images that are optimised together.
        processes: those that share the parts; each of them must call this.
        progress: show a progress bar on stderr (in the first process only).

    Raises:
        PrismaError: a unit that there is not; or the folder holds something else, or the same with other settings.
    """
    subject_of(job.loaded).expect(dict.fromkeys(site for unit in job.units for site in unit.reads))
    with _folder(job) if processes.is_first else nullcontext(lambda: None) as expect_alone:
        processes.barrier()  # until the folder exists
        _compute(job, batch, processes, progress, expect_alone)
        processes.barrier()  # until every part exists
        found = _together(job)
        if processes.is_first:
            expect_alone()
            _write(job, found)
        processes.barrier()
    return found


@contextmanager
def _folder(job: FeatureJob) -> Iterator[Callable[[], None]]:
    """The folder with its settings, locked. What was made for a run that wrote nothing is removed again."""
    out, settings = job.out, job.settings()
    if not (out / SETTINGS).is_file():
        expect_empty(out)
    with sentences(out), folder_for(out), exclusive(out, f"visualise features in {out}") as expect_alone:
        clear_leftovers_in(out)
        if (out / SETTINGS).is_file():
            _expect_same(read_json(out / SETTINGS, OWN_LIST).get("settings"), settings, out)
        else:
            write_json(out / SETTINGS, {"settings": settings, **job.provenance})
        try:
            yield expect_alone
        finally:
            if not any(out.glob("part-*.npz")):
                (out / SETTINGS).unlink(missing_ok=True)


def _expect_same(there: Any, settings: Mapping[str, Any], out: Path) -> None:
    if not isinstance(there, dict):
        raise PrismaError(f"expected the settings of visualised features in {out / SETTINGS}; found something else")
    for name, here in settings.items():
        if there.get(name) != here:
            raise PrismaError(
                f"{out} holds features with {name}={quoted(there.get(name))}; this command has {quoted(here)}: use "
                "another --out"
            )


def _compute(
    job: FeatureJob, batch: int | None, processes: Processes, progress: bool, expect_alone: Callable[[], None]
) -> None:
    own = list(enumerate(job.parts))[processes.rank :: processes.count]
    missing = [(number, units) for number, units in own if not job.part_path(number).is_file()]
    total, left = (sum(len(units) for _, units in parts) for parts in (own, missing))
    with progress_bar(total, "features", "unit", done=total - left, shown=progress and processes.is_first) as bar:
        for number, units in missing:
            found = visualize(
                job.loaded, list(units), job.image(), steps=job.steps, seed=job.seed, copies=job.copies,
                data=job.data, k=job.k, second=job.second, batch=batch,
            )  # fmt: skip
            expect_alone()
            found.to_npz(job.part_path(number))
            bar.update(len(units))


def _together(job: FeatureJob) -> Features:
    """All parts as one result. Raises PrismaError: a part is of other units."""
    parts = [Features.from_npz(job.part_path(number)) for number in range(len(job.parts))]
    for number, (part, units) in enumerate(zip(parts, job.parts, strict=True)):
        if part.metadata["targets"] != [name_of(unit) for unit in units]:
            raise PrismaError(
                f"expected {name_of(units[0])} and the next in {job.part_path(number)}; found "
                f"{shown(part.metadata['targets'])}: remove it and run the same command again"
            )
    arrays = [f.name for f in fields(Features) if f.name != "metadata" and getattr(parts[0], f.name) is not None]
    joined = {name: torch.cat([getattr(part, name) for part in parts]) for name in arrays}
    joined["target"] = torch.arange(len(job.units)).repeat_interleave(job.copies)
    metadata = {**parts[0].metadata, "targets": [name for part in parts for name in part.metadata["targets"]]}
    return replace(parts[0], metadata=metadata, **joined)


def _write(job: FeatureJob, found: Features) -> None:
    """The merged result, its picture, and last its card."""
    found.to_npz(job.out / RESULT)
    pictured = len(job.units) <= MOST_ROWS and found.images.shape[1] in (1, 3)
    if pictured:
        write_atomic(job.out / SHEET, saved(found.plot()))
    second = () if job.second is None else job.second.labels
    text = card(found, job.loaded.labels, job.provenance, SHEET if pictured else None, second)
    write_atomic(job.out / CARD, text.encode())
