"""What publishing would do, before it is done: nothing is written, and no token is needed to look at what is public."""

import dataclasses
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prisma.publish.calls import HOUR
from prisma.publish.commits import Commit, Hub
from prisma.publish.hugging_face_hub import HuggingFaceHub
from prisma.publish.metadata import warnings
from prisma.publish.publishing import There
from prisma.publish.signing import Signer
from prisma.publish.things import About, Planned, planned_for
from prisma.publish.uploads import BATCH
from prisma.repository import MAIN

REQUEST, SENT, WRITTEN = 0.3, 10e6, 50e6  # seconds; bytes a second over a network; bytes a second to a disk and back
LARGE = (".safetensors", ".png")  # endings of the files of a run that the Hub stores by SHA-256


@dataclass(frozen=True)
class Forecast:
    """What publishing would do. Times are rough: so many requests and bytes at speeds that are usual."""

    repo: str
    hub: str
    seen: bool  # False: there is no such repository, or it is private and not ours to see; all counts as new
    changed: bool  # False: everything is published already, and nothing would be written
    revisions: tuple[str, ...]  # labels that would be made, or moved
    removed: tuple[str, ...]  # labels that would be removed
    files: int  # that would be sent or written, each once
    bytes: int
    commits: int
    requests: int  # to the Hub, uploads to its storage left out
    seconds: float  # the Hub's limit of commits per hour included
    warnings: tuple[str, ...] = ()  # what in the card's metadata the Hub may not know

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def forecast(
    what: str | Path,
    repo: str,
    hub: str | Path | None = None,
    *,
    replace: bool = False,
    public: bool = False,
    sign: str | Path | None = None,
    base_model: str | None = None,
    license: str | None = None,
    progress: bool = True,
) -> Forecast:
    """Check what `publish` checks, and say how much it would do. Arguments and errors are those of `publish`."""
    signer, about = Signer.of(sign) if sign else None, About(base_model, license)
    with planned_for(what, repo, hub, about, public=public, progress=progress) as (planned, place, _):
        foreseen = foresee(planned, place, replace=replace, public=public, signer=signer)
        return dataclasses.replace(foreseen, warnings=warnings(planned.card, place.kind))


def foresee(
    planned: Planned, hub: Hub, *, replace: bool = False, public: bool = False, signer: Signer | None = None
) -> Forecast:
    """The forecast of a plan. Raises PrismaError as `publish` does, unless `replace` is set."""
    there = There.of(planned, hub, signer)
    changed = not there.is_complete
    if not replace:
        there.expect_no_conflict()
    missing = [step for step in there.steps if step.label not in there.commits]
    removed = there.foreign
    ids = {step.label: there.commits.get(step.label, step.commit.id) for step in there.steps}
    main = there.main(ids)
    revisions = [step.label for step in missing] + [MAIN] * changed
    made = [step.commit for step in missing] + [main] * changed
    there_already = [step.commit for step in there.steps if step.label in there.commits]
    if MAIN in there.labels:
        same = {file.name for file in main.files} - set(hub.differing(there.labels[MAIN], main))
        there_already.append(Commit(tuple(file for file in main.files if file.name in same)))
    known = {file.sha256 for commit in there_already for file in commit.files}
    sizes = {file.sha256: file.size for commit in made for file in commit.files if file.sha256 not in known}
    announced = MAIN in there.labels and bool(removed or any(step.label in there.labels for step in missing))
    commits = len(made) + announced
    requests, n = hub.traffic[0], sum(sizes.values())
    if isinstance(hub, HuggingFaceHub):
        if changed:
            requests += 2 * hub.remote.is_hidden  # the repository, and its branches
            requests += 3 * (not there.labels)  # the listing of its main, its first commit, a branch from it
            requests += _requests([step.commit for step in missing], main, known)
            requests += len(removed) + announced * 5
        requests += public * 2
        made_before = len(hub.journal.commits())
        waits = max(0, made_before + commits - 1) // hub.calls.commits_per_hour if commits else 0
        seconds = requests * REQUEST + n / SENT + waits * HOUR
        seen = not hub.remote.is_hidden
    else:
        n += 40 * len(made)  # a label is a file with the id of a commit
        seconds, seen = n / WRITTEN, True
    return Forecast(
        hub.repo, hub.place, seen, changed, tuple(revisions), tuple(removed), len(sizes), n, commits, requests, seconds
    )


def _requests(steps: list[Commit], main: Commit, known: set[str]) -> int:
    """How many requests publishing takes after it has looked at what is there."""
    each = 3 * len(steps)  # commit, listing, label
    ahead = 2 * -(-len({file.sha256 for commit in steps for file in commit.files}) // BATCH)
    end = 5  # of main: the card, how to send the files and where to, commit, listing
    return 2 + len(_large([*steps, main], known)) + each + ahead + end  # the branches, before and after the steps


def _large(commits: Iterable[Commit], known: set[str]) -> set[str]:
    """The hashes of the files whose upload the Hub is asked to verify."""
    files = (file for commit in commits for file in commit.files)
    return {file.sha256 for file in files if file.name.endswith(LARGE) and file.sha256 not in known}
