"""The hashes of what a run has written, so that a change of its past is seen on resuming and before publishing.

While a run trains, its ledger is in the header of `state.safetensors`: it is written with the state, in one file, so a
kill cannot come between them. It covers the probe, the checkpoints before the state's step, and the metrics of the
steps before. When the run is finished, `hashes.json` covers every file. Runs that version 0.1.0 began have neither.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prisma.checkpoint import CONFIG, WEIGHTS
from prisma.errors import PrismaError, shown
from prisma.files import read_json, sha256, write_json
from prisma.filesystem import say_once
from prisma.run_folder import (
    HASHES,
    MEAN,
    METRICS,
    RESULTS,
    checkpoint_folder,
    final_files,
    read_recipe,
    scheduled_steps,
)

FORMAT = 2
"""What `recipe.json` states as `format` if the run has a ledger; 0.1.0 stated none."""


@dataclass
class Ledger:
    """SHA-256 of files of a run, by their names in its folder."""

    run: Path
    files: dict[str, str] = field(default_factory=dict)

    def add(self, *files: Path) -> None:
        """Record files as they are now; what is not there is left out."""
        for file in files:
            if file.is_file():
                self.files[file.relative_to(self.run).as_posix()] = sha256(file)

    def add_checkpoints(self, *steps: int) -> None:
        """Record the files of checkpoints; what else is in their folders, such as `.DS_Store`, is not the run's."""
        folders = (checkpoint_folder(self.run, step) / part for step in steps for part in ("", MEAN))
        self.add(*(folder / name for folder in folders for name in (CONFIG, WEIGHTS)))

    def expect_unchanged(self) -> None:
        """Raise PrismaError, which names the first file that was removed or changed since it was recorded.

        `metrics.jsonl`, of which only the first lines are recorded, is left out: `MetricsLog` checks them.
        """
        for name, recorded in self.files.items():
            if name != METRICS:
                path = self.run / name
                expect_recorded(name, self.run, recorded, sha256(path) if path.is_file() else None)


def expect_recorded(name: str, run: Path, recorded: str | None, found: str | None) -> None:
    """Raise PrismaError unless a file's hash is the one recorded. None: there is no such file, or no record of it."""
    if recorded != found:
        what = "a file that it did not write" if recorded is None else "it changed" if found else "no such file"
        raise PrismaError(
            f"expected {shown(name)} in the run {run} as training wrote it; found {what}: restore it, or train "
            "again in another folder"
        )


def seal(header: Mapping[str, str], content: str) -> str:
    """SHA-256 of the strings of a header and of a hash of the content below it: a change of either is seen."""
    return hashlib.sha256(f"{json.dumps(dict(header), sort_keys=True)}\n{content}".encode()).hexdigest()


def write_hashes(run: Path, results: bytes) -> None:
    """Write `hashes.json` of a run that is whole but for `results.json`, whose bytes will be `results`."""
    ledger = Ledger(run)
    ledger.add_checkpoints(*scheduled_steps(run, read_recipe(run)))
    ledger.add(*(run / name for name in final_files(run) if name != RESULTS))
    write_json(run / HASHES, {"files": {**ledger.files, RESULTS: hashlib.sha256(results).hexdigest()}})


def expect_as_finished(run: Path, recipe: Mapping[str, Any], found: Mapping[str, str] | None = None) -> None:
    """Check that the files of a finished run are those that training wrote. A run of 0.1.0 is only warned about.

    Args:
        recipe: the content of `recipe.json`.
        found: the hash of each file by name, as far as they are known; the others are read.

    Raises:
        PrismaError: a file changed, is missing, or is not one of the run's; or there is no record.
    """
    if not (run / HASHES).is_file() and recipe.get("format") is None:
        warn_unrecorded(run)
        return
    recorded = read_json(run / HASHES).get("files") if (run / HASHES).is_file() else None
    if not isinstance(recorded, dict):
        raise PrismaError(
            f"expected the hashes of the run's files in {run / HASHES}; found none: restore it, or train again in "
            "another folder"
        )
    known = found or {}
    found = {name: sha256(run / name) for name in recorded if name not in known and (run / name).is_file()} | {**known}
    for name in (*recorded, *found):
        expect_recorded(name, run, recorded.get(name), found.get(name))


def warn_unrecorded(run: Path) -> None:
    """Say, once for each run, that an earlier version began it."""
    say_once(
        f"the run {run} was begun by version 0.1.0, which recorded no hashes: a change of its files would not be seen"
    )
