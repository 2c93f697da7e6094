"""`prisma analyze --revisions`: an analysis at every checkpoint of a mouse, and what changed between them."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prisma.errors import PrismaError, nearest, quoted

if TYPE_CHECKING:
    from prisma.analysis.result import Result
    from prisma.study.shards import DatasetAnalysis
    from prisma.study.trajectory import Trajectory

TRAJECTORY, PICTURE, MOST_ROWS = "trajectory.npz", "trajectory.png", 12


@dataclass(frozen=True)
class At:
    """One checkpoint: what `prisma.load` needs for it."""

    step: int
    label: str
    ref: str
    revision: str | None


def checkpoints_of(ref: str, hub: Path | None, asked: str) -> list[At]:
    """The checkpoints of a published mouse or of a run folder, in step order: all, or those with the asked labels.

    Raises:
        PrismaError: a model without checkpoints, a label that it does not have (the nearest are given), or one alone.
    """
    from prisma.pretrained.loading import is_folder
    from prisma.pretrained.references import may_be_published
    from prisma.repo_names import is_repo_name
    from prisma.repository import Published
    from prisma.run_folder import checkpoint_folders, revision_of

    if hub is None and is_folder(ref):
        folders = checkpoint_folders(Path(ref))
        found = [At(int(one.name.removeprefix("step-")), one.name, str(one), None) for one in folders]
    elif may_be_published(ref) or (hub is not None and is_repo_name(ref)):
        entries = Published(ref, hub).checkpoints()
        found = [At(int(one["step"]), revision_of(int(one["step"])), ref, str(one["revision"])) for one in entries]
    else:
        found = []
    if len(found) < 2:
        raise PrismaError(
            f"expected a published mouse or a run folder with checkpoints for --revisions; found {quoted(ref)} with "
            f"{len(found)}"
        )
    if asked == "all":
        return found
    labels = [label.strip() for label in asked.split(",")]
    known = [at.label for at in found]
    for label in labels:
        if label not in known:
            raise PrismaError(
                f"expected revisions of {ref}, such as {known[-1]}, or all; found {quoted(label)}; the nearest: "
                f"{nearest(label, known)}"
            )
    chosen = [at for at in found if at.label in labels]
    if len(chosen) < 2:
        raise PrismaError(f"expected two revisions or more, to see what changed between them; found {quoted(asked)}")
    return chosen


def write_trajectory(jobs: Mapping[At, "DatasetAnalysis | None"], array: str | None, out: Path) -> "Trajectory":
    """Write what an analysis found over the checkpoints, and its picture, beside the folders of the checkpoints.

    Args:
        jobs: None where a checkpoint has no result, because it has diverged.
    """
    import io

    from prisma.files import write_atomic
    from prisma.study.trajectory import trajectory

    found = trajectory({at.step: None if job is None else _result(job) for at, job in jobs.items()}, array)
    found.to_npz(out / TRAJECTORY)
    found.plot().savefig(buffer := io.BytesIO())
    write_atomic(out / PICTURE, buffer.getvalue())
    return found


def expect_array_of(names: Iterable[str], array: str | None) -> None:
    """Raise PrismaError if it is known before anything runs that results of an analysis have no such array."""
    from prisma.study.catalog import analysis
    from prisma.study.trajectory import expect_array

    for name in names:
        expect_array(name, analysis(name).result, array)


def expect_array_in(job: "DatasetAnalysis", array: str | None) -> None:
    """Raise PrismaError if the result of the first checkpoint lacks the array, before all the others run."""
    from prisma.study.trajectory import array_of

    array_of(_result(job), array)


def _result(job: "DatasetAnalysis") -> "Result":
    from prisma.study.catalog import analysis
    from prisma.study.shards import RESULT

    return analysis(job.name).result.from_npz(job.out / RESULT)


def report(name: str, jobs: Mapping[At, "DatasetAnalysis | None"], array: str | None, out: Path, as_json: bool) -> str:
    """What an analysis found over the checkpoints, which is written too: the numbers that jumped most."""
    from prisma.cli.shared import table

    rows = rows_of(found := write_trajectory(jobs, array, out))
    diverged = [at.label for at, job in jobs.items() if job is None]
    if as_json:
        return json.dumps({name: rows} | ({"left out": diverged} if diverged else {}), indent=2)
    without = f"; not finite, and left out: {', '.join(diverged)}" if diverged else ""
    count = len(jobs) - len(diverged)
    return f"{name}: {found.metadata['array']} at {count} checkpoints, in {out}{without}\n{table(rows)}"


def rows_of(found: "Trajectory") -> list[dict[str, Any]]:
    """The numbers that jumped most, in the order of their change: from which step, by how much.

    One whose jump may be 0, by its interval, has no single step: it stays, or falls and rises.
    """
    jumps = found.jump.nan_to_num().abs()
    chosen = jumps.argsort(descending=True, stable=True)[:MOST_ROWS].tolist()
    rows = []
    for i in sorted(chosen, key=lambda i: (int(found.change[i]), i)):
        (first, last), (low, high) = found.change_interval[:, i].tolist(), found.jump_interval[:, i].tolist()
        rows.append(
            {
                "number": found.name_of(i),
                "changes at step": "no single step"
                if low <= 0 <= high
                else f"{int(found.change[i]):,} ({first:,} to {last:,})",
                "by": f"{found.jump[i]:.3g} ({low:.3g} to {high:.3g})",
            }
        )
    return rows
