"""Publish a run or something else: check everything, then commit, verify and label step by step, `main` last."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prisma.checkpoint import WEIGHTS
from prisma.errors import PrismaError, by_number, shown
from prisma.filesystem import given
from prisma.mechanisms.findings import SOURCE, Mechanism
from prisma.progress import progress as progress_bar
from prisma.publish.commits import Commit, File, Hub
from prisma.publish.hugging_face_hub import HuggingFaceHub
from prisma.publish.manifest import Manifest, Yanked, message_with
from prisma.publish.mechanism_section import is_mechanism_name, section_of, with_section
from prisma.publish.metadata import warnings
from prisma.publish.plan import CARD, Plan, Step, plan
from prisma.publish.signing import ENDING, Signer
from prisma.publish.things import About, Planned, planned_for
from prisma.reading import parse_json
from prisma.repository import MAIN, MANIFEST, Published


@dataclass(frozen=True)
class Report:
    """The outcome of publishing."""

    repo: str
    hub: str
    changed: bool  # False: everything was published already, and nothing was written
    commit: str  # the commit of main
    revisions: tuple[str, ...]  # the labels of the checkpoints, in step order
    made: tuple[str, ...] = ()  # labels that are new
    moved: tuple[str, ...] = ()  # labels that now serve another commit
    repaired: tuple[str, ...] = ()  # labels whose files were damaged and are whole again
    removed: tuple[str, ...] = ()  # labels that this run does not have
    requests: int = 0  # to the Hub; none to a folder hub
    bytes: int = 0  # sent or written
    warnings: tuple[str, ...] = ()  # what in the card's metadata the Hub may not know; it is published all the same

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def publish(
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
) -> Report:
    """Publish a finished run: a revision per checkpoint, and `main` with the final weights, the card and the manifest.

    The data set of a task, a tuned lens, a sparse coder and an edited model are published in the same way; all but a
    coder have `main` alone. A label is made only after every byte of its commit was verified. A kill at any moment
    leaves only labels that serve verified bytes, and publishing again completes the rest. Publishing twice writes
    nothing, and needs no permission to write.

    Args:
        what: a run folder with results.json; `task:NAME`, for the data set of a task; or a folder with a tuned lens,
            a sparse coder or an edited model.
        repo: OWNER/NAME.
        hub: a folder hub, made if absent; None is the Hugging Face Hub, where the repository is private at first.
        replace: move labels that serve other bytes, and remove labels that this run does not have. Old commits stay
            readable by id. A `main` that differs only in its card moves without this.
        public: on the Hugging Face Hub, make the repository public once everything is published and verified.
        sign: the file of a private key, with which the manifest is signed. Without it, a signature that is there
            stays, even if the manifest is no longer the one that was signed.
        base_model: of a tuned lens or coder, the model that it was trained on, of an edited model, the one before:
            OWNER/NAME or OWNER/NAME@REVISION.
        license: of these, their licence, as the Hub names it.
        progress: show bars on stderr.

    Raises:
        PrismaError: the run cannot be published (see `plan`), a checkpoint has not the loss that its run states, a
            label serves other bytes, another process publishes, the Hub refuses or does not answer, or a file could not
            be written.
    """
    signer, about = Signer.of(sign) if sign else None, About(base_model, license)
    with planned_for(what, repo, hub, about, public=public, progress=progress) as (planned, writer, check):
        report = send(planned, writer, replace=replace, progress=progress, check=check, signer=signer)
        if isinstance(writer, HuggingFaceHub):
            changed = writer.set_public() if public else False
            report = dataclasses.replace(report, changed=report.changed or changed, requests=writer.calls.requests)
        return dataclasses.replace(report, warnings=warnings(planned.card, writer.kind))


def send(
    planned: Planned,
    hub: Hub,
    *,
    replace: bool = False,
    progress: bool = True,
    check: Callable[[], None] = lambda: None,
    signer: Signer | None = None,
) -> Report:
    """Make a hub serve a plan, and say what was done. Raises PrismaError as `publish` does.

    Args:
        check: called before anything is written, and not if there is nothing to write.
    """
    there = There.of(planned, hub, signer)
    if there.is_complete:
        return _report(there, hub, there.labels[MAIN])
    check()
    with hub.writing():
        there = There.of(planned, hub, signer)
        if not replace:
            there.expect_no_conflict()
        return _write(there, progress)


@dataclass(frozen=True)
class There:
    """What a hub serves already of a plan."""

    planned: Planned
    hub: Hub
    labels: Mapping[str, str]  # all of them -> commit id
    steps: tuple[Step, ...]  # of the plan, without those that were yanked
    commits: Mapping[str, str]  # the labels of steps that serve what the plan wants -> commit id
    yanked: tuple[Yanked, ...]
    signer: Signer | None  # who signs the manifest; None: a signature that is there stays as it is
    signature: bytes | None  # the one that is there

    @classmethod
    def of(cls, planned: Planned, hub: Hub, signer: Signer | None = None) -> "There":
        labels = hub.labels()
        there = manifest_of(hub, planned.run) if MAIN in labels else None
        planned, yanked = with_published_mechanism(planned, hub, there), there.yanked if there else ()
        taken_back = {row.revision for row in yanked}
        steps = tuple(step for step in planned.steps if step.label not in taken_back)
        served = (step for step in steps if step.label in labels)
        commits = {step.label: labels[step.label] for step in served if not _differing(hub, labels, step)}
        signature = hub.read(f"{planned.manifest}{ENDING}") if MAIN in labels else None
        return cls(planned, hub, labels, steps, commits, yanked, signer, signature)

    def main(self, commits: Mapping[str, str]) -> Commit:
        """What `main` is to serve once the commits of the steps have ids, with the signature of its manifest if any."""
        commit, signature = self.planned.main(commits, yanked=self.yanked), self.signature
        manifest = commit.file(self.planned.manifest)
        if self.signer:
            signature = self.signer.signature(manifest.name, b"".join(manifest.chunks()), signature)
        if signature is None:
            return commit
        return Commit((*commit.files, File.of(f"{manifest.name}{ENDING}", signature)))

    @property
    def foreign(self) -> list[str]:
        """The labels that the plan does not have."""
        known = {MAIN, *(step.label for step in self.steps), *(row.moved_to for row in self.yanked)}
        return sorted(set(self.labels) - known, key=by_number)

    @property
    def is_complete(self) -> bool:
        """Whether every label serves every byte of the plan: then nothing is written, and no lock is needed."""
        if len(self.commits) < len(self.steps) or self.foreign or MAIN not in self.labels:
            return False
        return not self.hub.differing(self.labels[MAIN], self.main(self.commits))

    def expect_no_conflict(self) -> None:
        """Raise PrismaError unless every label serves this plan, an older card of it, or damaged files of it."""
        if self.foreign:  # a step first: it is more informative than main
            label = self.foreign[0]
            raise PrismaError(
                f"expected only revisions of this {self.planned.noun} in {self.hub.repo}; found {label} (commit "
                f"{shown(self.labels[label])}), which it does not have: --replace removes it"
            )
        wanted = {step.label: step.commit for step in self.steps if step.label not in self.commits}
        if MAIN in self.labels:
            wanted[MAIN] = self.main(self._commits_wanted())
        loose = {CARD, self.planned.manifest, f"{self.planned.manifest}{ENDING}"}
        for label, commit in wanted.items():
            there = self.labels.get(label)
            if there is None or there == commit.id:  # a folder hub whose files were damaged
                continue
            differing = [name for name in self.hub.differing(there, commit) if not is_mechanism_name(name)]
            if not (label == MAIN and loose.issuperset(differing)):
                raise PrismaError(
                    f"expected {label} of {self.hub.repo} to serve the files of this {self.planned.noun}; found commit "
                    f"{shown(there)}, with other files: --replace moves the label"
                )

    def _commits_wanted(self) -> dict[str, str]:
        """The ids that a folder hub gives; those of the Hub are known later, so there this is a guess."""
        return {step.label: self.commits.get(step.label, step.commit.id) for step in self.steps}


def _differing(hub: Hub, labels: Mapping[str, str], step: Step) -> list[str]:
    return hub.differing(labels[step.label], step.commit)


def manifest_of(hub: Hub, run: str) -> Manifest | None:
    """The published manifest, if it is of this run: it states what was taken back, and what was added since."""
    data = hub.read(MANIFEST)
    if data is None:
        return None
    with suppress(PrismaError):  # another version's, or damaged: it is written anew
        manifest = Manifest.parse(data)
        return manifest if manifest.run == run else None
    return None


def with_published_mechanism(planned: Planned, hub: Hub, manifest: Manifest | None) -> Planned:
    """The plan of a run with the mechanism card that was published for it; if the run has one itself, with that."""
    names = [record.name for record in manifest.files if is_mechanism_name(record.name)] if manifest else []
    if not isinstance(planned, Plan) or SOURCE not in names or SOURCE in {file.name for file in planned.files}:
        return planned
    data = {name: hub.read(name) for name in names}
    weights = next(file.sha256 for file in planned.files if file.name == WEIGHTS)
    with suppress(PrismaError):  # another version's, or damaged: it is left out
        card = Mechanism.parse(data[SOURCE] or b"")
        if card.weights == weights and all(content is not None for content in data.values()):
            files = tuple(File.of(name, content) for name, content in data.items() if content is not None)
            text = with_section(planned.card, section_of(card))
            return dataclasses.replace(planned, files=(*planned.files, *files), card=text)
    return planned


def _write(there: There, progress: bool) -> Report:
    """Make every commit and label that is not there."""
    hub, planned, before, commits = there.hub, there.planned, dict(there.labels), dict(there.commits)
    missing = [step for step in there.steps if step.label not in commits]
    taken = [step.label for step in missing if before.get(step.label) not in (None, step.commit.id)]
    main_was = before.get(MAIN)
    if main_was and (taken or there.foreign):
        main_was = _announce(hub, planned.run) or main_was
    hub.prepare([step.commit for step in missing])
    with progress_bar(len(missing), "publishing", "checkpoint", shown=progress and bool(missing)) as bar:
        for step in missing:
            commits[step.label] = hub.put(step.label, step.commit, step.message)
            bar.update()
    for label in there.foreign:
        hub.unlabel(label)
    main = there.main(commits)
    changed = {label: commit for label, commit in commits.items() if label not in there.commits}
    served = hub.labels().get(MAIN)
    if served != main_was:
        raise PrismaError(f"expected nobody else to change main of {hub.repo}; found commit {served}: publish again")
    if served is None or hub.differing(served, main):
        manifest = main.file(planned.manifest)
        message = message_with(planned.message(commits), manifest.sha256, manifest.name)
        changed[MAIN] = hub.put(MAIN, main, message)
    return _report(
        there,
        hub,
        changed.get(MAIN) or before[MAIN],
        made=tuple(label for label in changed if label not in before),
        moved=tuple(label for label, commit in changed.items() if before.get(label, commit) != commit),
        repaired=tuple(label for label, commit in changed.items() if before.get(label) == commit),
        removed=tuple(there.foreign),
    )


def _announce(hub: Hub, run: str) -> str | None:
    """Let the published manifest say that another run's revisions take the place of its own, from now on.

    Returns the commit of `main` that says so; None if it was said already, or there is no manifest to say it in.
    """
    data, values = hub.read(MANIFEST), None
    with suppress(PrismaError):  # damaged: readers refuse it anyway
        values = parse_json(data.decode(errors="replace"), MANIFEST) if data else None
    if not isinstance(values, dict) or values.get("replaced_by") == run:
        return None
    marked = File.of(MANIFEST, json.dumps({**values, "replaced_by": run}).encode())
    return hub.amend((marked,), message_with(f"Run {run} is taking the place of these revisions", marked.sha256))


def _report(there: There, hub: Hub, main: str, **changes: tuple[str, ...]) -> Report:
    labels = tuple(step.label for step in there.steps)
    requests, sent = hub.traffic
    return Report(hub.repo, hub.place, any(changes.values()), main, labels, **changes, requests=requests, bytes=sent)


def preview(run: str | Path, repo: str) -> str:
    """The card that `publish` would publish: Markdown with YAML front matter. Raises PrismaError as `plan` does."""
    return plan(given(run), Published(repo).repo).card
