"""An analysis over a data set, shard by shard: it can be stopped at any moment and goes on from the last whole shard.

The folder of an analysis:

    analysis.json     settings, which a second run must share; where model and pictures came from; their names, in order
    shard-00000.npz   the result for the first `shard_size` pictures, and so on, each whole or absent
    result.npz        all shards joined along the image axis
    plot.png          the picture of the result, or of the mean over images of its first array that makes one
    summary.json      shapes, means and standard errors over images; last, so its presence means that all is done

Of n processes, process k does shards k, k + n, ...; the first one joins them when all have finished.
"""

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from prisma import __version__
from prisma.data.pictures import Pictures
from prisma.errors import PrismaError
from prisma.files import exclusive, expect_empty, read_json, write_json
from prisma.study.catalog import analysis
from prisma.study.inputs import ShardInputs
from prisma.study.merging import join, plot, summary_of
from prisma.study.processes import Team
from prisma.vit import ViT

ANALYSIS, SUMMARY, RESULT, PLOT = "analysis.json", "summary.json", "result.npz", "plot.png"


@dataclass(frozen=True, eq=False)
class Study:
    """An analysis of a model over pictures, and the folder that it is in."""

    name: str
    model: ViT
    pictures: Pictures
    options: Mapping[str, Any]  # all that the analysis takes: `catalog.options_of`
    out: Path
    shard_size: int = 64
    said: Mapping[str, Any] = field(default_factory=dict)  # what else its files say: where model and pictures came from

    @property
    def shards(self) -> list[range]:
        """The rows of each shard."""
        n = len(self.pictures)
        return [range(i, min(i + self.shard_size, n)) for i in range(0, n, self.shard_size)]

    def path(self, shard: int) -> Path:
        return self.out / f"shard-{shard:05d}.npz"

    @property
    def started(self) -> bool:
        """Whether there is anything to lose."""
        return (self.out / SUMMARY).is_file() or any(self.out.glob("shard-*.npz"))

    def settings(self) -> dict[str, Any]:
        """What results depend on. Where it is computed, and how many images are in a pass, are no part of it."""
        return {
            "prisma": __version__,
            "analysis": self.name,
            "model_sha256": fingerprint(self.model),
            "pictures": len(self.pictures),
            "pictures_sha256": self.pictures.sha256,
            "shard_size": self.shard_size,
            **self.options,
        }


def run_study(
    study: Study, *, batch: int | None = None, team: Team | None = None, progress: bool = True
) -> dict[str, Any]:
    """Do what is not done yet, and join the shards.

    Args:
        batch: at most so many images in one pass; by default what the analysis takes for itself.
        team: the processes that share the work; every one of them calls this.
        progress: a progress bar on stderr, of the first process.

    Returns:
        The content of `summary.json`.

    Raises:
        PrismaError: the folder holds something else, or this analysis with other settings (the first that differs is
            named); another run is at work in it; a file could not be written; or as the analysis itself.
    """
    if study.shard_size < 1 or (batch is not None and batch < 1):
        raise PrismaError(f"shards and passes have at least one image; found {study.shard_size} and {batch}")
    team = Team() if team is None else team
    with _begun(study) if team.first else nullcontext():
        team.wait()  # for the folder
        if not (study.out / SUMMARY).is_file():
            _work(study, batch, team, progress)
            team.wait()  # for the shards
            if team.first:
                _finish(study)
            team.wait()  # for the summary
    return read_json(study.out / SUMMARY)


def _work(study: Study, batch: int | None, team: Team, progress: bool) -> None:
    """The shards of this process that are not there yet."""
    mine = list(enumerate(study.shards))[team.rank :: team.size]
    missing = [(i, rows) for i, rows in mine if not study.path(i).is_file()]
    total, left = (sum(len(rows) for _, rows in some) for some in (mine, missing))
    function, hidden = analysis(study.name).function, not (progress and team.first)
    look = {"desc": study.name, "unit": "image", "file": sys.stderr, "disable": hidden, "leave": False}
    with tqdm(total=total, initial=total - left, **look) as bar:
        for i, rows in missing:
            function(ShardInputs(study.model, study.pictures, rows, study.options, batch)).to_npz(study.path(i))
            bar.update(len(rows))
        bar.leave = True  # where an error comes first, its sentence stands alone


@contextmanager
def _begun(study: Study) -> Iterator[None]:
    """The folder with its `analysis.json`, for one run at a time. A start that fails leaves nothing."""
    out, settings = study.out, study.settings()
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    if not (out / ANALYSIS).is_file():
        try:
            expect_empty(out)
        except PrismaError as error:
            raise PrismaError(f"{error}; use another --out") from None
    out.mkdir(parents=True, exist_ok=True)
    with exclusive(out, f"analyze in {out}"):
        if study.started:
            _expect_same(read_json(out / ANALYSIS).get("settings", {}), settings, out)
        else:
            names = list(study.pictures.names)
            write_json(out / ANALYSIS, {"settings": settings, **study.said, "images": names})
        try:
            yield
        finally:
            if not study.started:
                (out / ANALYSIS).unlink(missing_ok=True)
                with suppress(OSError):
                    for folder in made:
                        folder.rmdir()


def _expect_same(found: Mapping[str, Any], wanted: Mapping[str, Any], out: Path) -> None:
    """Raises PrismaError, naming the first setting that differs."""
    for name in (*wanted, *found):
        if (ours := wanted.get(name)) != (theirs := found.get(name)):
            raise PrismaError(
                f"the analysis in {out} has {name}={theirs!r}, and this one has {ours!r}; choose another --out"
            )


def _finish(study: Study) -> None:
    """The joined result, its picture, and last the summary."""
    kind = analysis(study.name).result
    result = join([kind.from_npz(study.path(i)) for i in range(len(study.shards))], study.options)
    result.to_npz(study.out / RESULT)
    drawn = plot(result, study.out / PLOT)
    summary = {
        "analysis": study.name,
        **study.said,
        "images": len(study.pictures),
        "options": dict(study.options),
        "files": [RESULT, *([PLOT] if drawn else [])],
        "arrays": summary_of(result),
    }
    write_json(study.out / SUMMARY, summary)


def fingerprint(model: ViT) -> str:
    """SHA-256 over the architecture and every weight, the same on every device."""
    digest = hashlib.sha256(json.dumps(asdict(model.config)).encode())
    for name, x in model.state_dict().items():
        digest.update(f"{name} {x.dtype} {list(x.shape)}".encode())
        digest.update(x.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
