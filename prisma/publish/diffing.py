"""What publishing a run would change: the differences between the run and what a hub serves. Nothing is written."""

from dataclasses import asdict, dataclass
from pathlib import Path

from prisma.errors import by_number
from prisma.publish.publishing import manifest_of, with_published_mechanism
from prisma.publish.signing import ENDING
from prisma.publish.things import About, planned_for
from prisma.repository import MAIN


@dataclass(frozen=True)
class Difference:
    """A file of a revision, or a whole revision, that differs between a run and a hub."""

    revision: str
    file: str  # "" for the whole revision
    found: str  # "not published", "only on the hub", or "other bytes"

    def to_dict(self) -> dict[str, str]:
        return asdict(self)


def diff(
    what: str | Path,
    repo: str,
    hub: str | Path | None = None,
    *,
    base_model: str | None = None,
    license: str | None = None,
) -> list[Difference]:
    """The differences between a finished run and what is published; none if publishing it would change nothing.

    The manifest is not compared by itself: it follows from the other files. Nor is its signature. Arguments are those
    of `publish`.

    Raises:
        PrismaError: the run cannot be published (see `plan`), or the Hub does not answer.
    """
    with planned_for(what, repo, hub, About(base_model, license)) as (planned, there, _):
        labels = there.labels()
        manifest = manifest_of(there, planned.run) if MAIN in labels else None
        planned, yanked = with_published_mechanism(planned, there, manifest), manifest.yanked if manifest else ()
        taken_back = {row.revision for row in yanked}
        steps = [step for step in planned.steps if step.label not in taken_back]
        wanted = {step.label: step.commit for step in steps}
        wanted[MAIN] = planned.main({step.label: labels.get(step.label, "") for step in steps}, yanked=yanked)
        rows = []
        for label, commit in wanted.items():
            if label not in labels:
                rows.append(Difference(label, "", "not published"))
                continue
            here = {file.name for file in commit.files}
            for name in there.differing(labels[label], commit):
                if name not in (planned.manifest, f"{planned.manifest}{ENDING}"):
                    rows.append(Difference(label, name, "other bytes" if name in here else "only on the hub"))
        foreign = labels.keys() - wanted.keys() - {row.moved_to for row in yanked}
        return [*rows, *(Difference(label, "", "only on the hub") for label in sorted(foreign, key=by_number))]
