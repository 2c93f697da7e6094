"""Does a manifest state a whole run: its schedule, every step once, every file?"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from prisma.checkpoint import CONFIG, WEIGHTS
from prisma.errors import listed, shown
from prisma.publish.findings import Finding, gathered
from prisma.publish.manifest import Entry, Manifest
from prisma.publish.mechanism_section import is_mechanism_name
from prisma.publish.plan import CARD
from prisma.publish.signing import SIGNATURE
from prisma.repository import MAIN, MANIFEST
from prisma.run_folder import CURVES, RECIPE, needed_files, revision_of, scheduled_steps

_CURVE = re.compile(rf"{CURVES}/[a-z0-9_]+\.(png|svg)")


def is_published_name(name: str) -> bool:
    """Whether a file of this name may be in `main` of a published mouse: the allow-list."""
    known = name in (CARD, MANIFEST, SIGNATURE, *needed_files({})) or _CURVE.fullmatch(name) is not None
    return known or is_mechanism_name(name)


def manifest_findings(manifest: Manifest, recipe: Mapping[str, Any] | None) -> Iterator[Finding]:
    """Where a manifest contradicts itself, or the recipe of its run.

    Args:
        recipe: the content of `recipe.json`; None if it cannot be read.
    """
    if manifest.replaced_by is not None:
        yield Finding(
            MAIN,
            f"expected the revisions of one run; found that those of run {shown(manifest.replaced_by)} are taking the "
            "place of this one's: publishing was not finished, publish that run again with --replace",
        )
    yield from (Finding(MAIN, problem) for problem in _schedule_problems(manifest, recipe))
    yield from _step_findings(manifest)
    for row in manifest.checkpoints:
        yield from (Finding(row.revision, problem) for problem in _row_problems(row, manifest))
    yield from (Finding(MAIN, problem) for problem in gathered(_file_problems(manifest, recipe or {})))
    for taken in manifest.yanked:
        if taken.step not in manifest.steps or taken.revision != revision_of(taken.step):
            yield Finding(taken.revision, f"expected a yanked step of the schedule in {MANIFEST}; found {taken.step}")
        if taken.moved_to in (MAIN, *(row.revision for row in manifest.checkpoints)):
            yield Finding(
                taken.revision, f"expected a label of its own for yanked weights; found {shown(taken.moved_to)}"
            )


def _schedule_problems(manifest: Manifest, recipe: Mapping[str, Any] | None) -> Iterator[str]:
    if not all(a < b for a, b in pairwise((-1, *manifest.steps))):
        yield f"expected steps in {MANIFEST} that begin at 0 or later and grow; found {shown(manifest.steps)}"
    if recipe is None:
        return
    if recipe.get("run") != manifest.run:
        yield f"expected run {shown(manifest.run)} in {RECIPE}, as in {MANIFEST}; found {shown(recipe.get('run'))}"
    yield from gathered(_against_recipe(set(manifest.steps), recipe))


def _against_recipe(found: set[int], recipe: Mapping[str, Any]) -> Iterator[str]:
    wanted = set(scheduled_steps(Path(), recipe))
    for words, steps in (("lacks", wanted - found), ("has beside them", found - wanted)):
        if steps:
            some = listed([str(step) for step in sorted(steps)])
            yield f"expected the steps of the schedule of {RECIPE} in {MANIFEST}; found that it {words} {some}"


def _step_findings(manifest: Manifest) -> Iterator[Finding]:
    there = {row.step for row in manifest.checkpoints} | {row.step for row in manifest.yanked}
    for step in sorted(set(manifest.steps) - there):
        yield Finding(
            revision_of(step), f"expected step {step} of the schedule in the list of {MANIFEST}; found no such row"
        )
    rows = manifest.checkpoints
    for what, times in (
        ("step", Counter(row.step for row in rows)),
        ("revision", Counter(row.revision for row in rows)),
    ):
        for value, n in times.items():
            if n > 1:
                label = revision_of(value) if isinstance(value, int) else value
                yield Finding(label, f"expected one row for each {what} in {MANIFEST}; found {n} of {shown(value)}")
    if any(a.step > b.step for a, b in pairwise(rows)):
        yield Finding(MAIN, f"expected the rows of {MANIFEST} in step order; found another order")
    first = dict[str, Entry]()
    for row in rows:
        if (twin := first.setdefault(row.sha256, row)).step != row.step:
            yield Finding(
                row.revision,
                f"expected different weights at every step in {MANIFEST}; found those of {twin.revision} again",
            )


def _row_problems(row: Entry, manifest: Manifest) -> Iterator[str]:
    if row.step not in manifest.steps:
        yield f"expected a step of the schedule in {MANIFEST}; found {row.step}"
    if row.revision != (label := revision_of(row.step)):
        yield f"expected the label {label} for step {row.step} in {MANIFEST}; found {shown(row.revision)}"
    if any(taken.step == row.step for taken in manifest.yanked):
        yield f"expected step {row.step} in {MANIFEST} to be there or yanked; found both"
    files = {record.name: record for record in row.files}
    if sorted(record.name for record in row.files) != sorted((CONFIG, WEIGHTS)):
        yield f"expected the files {CONFIG} and {WEIGHTS} in {MANIFEST}; found {listed(list(files), 5) or 'none'}"
    elif (row.sha256, row.size) != (files[WEIGHTS].sha256, files[WEIGHTS].size):
        yield f"expected one SHA-256 and size of {WEIGHTS} in its row of {MANIFEST}; found two that differ"


def _file_problems(manifest: Manifest, recipe: Mapping[str, Any]) -> Iterator[str]:
    names, own = Counter(record.name for record in manifest.files), (MANIFEST, SIGNATURE)
    if missing := sorted({*needed_files(recipe), CARD} - names.keys()):
        yield f"expected every file of main in {MANIFEST}; found no {listed(missing, 10)}"
    if odd := sorted(name for name, n in names.items() if n > 1 or not is_published_name(name) or name in own):
        yield f"expected each file that Prisma publishes once in {MANIFEST}; found {listed(odd, 10)}"
