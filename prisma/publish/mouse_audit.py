"""The audit of a mouse that Prisma published: every file against the manifest, and all of `main` against itself.

The manifest is where trust begins. So it is compared with what does not come from it: the schedule and the run in the
recipe, the headers of the weights, the numbers of the run, the card, and on the Hub the message of its own commit.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from prisma.bounds import JSON
from prisma.checkpoint import CONFIG, WEIGHTS, Checkpoint
from prisma.errors import PrismaError, shown
from prisma.publish.commits import FileRecord
from prisma.publish.file_check import file_problems, message_problems
from prisma.publish.findings import Finding, gathered, noted
from prisma.publish.hugging_face_hub import CHAIN
from prisma.publish.main_files import (
    Main,
    card_problem,
    content,
    mechanism_findings,
    number_problems,
    read_main,
    read_shape,
)
from prisma.publish.manifest import Entry, Yanked
from prisma.publish.manifest_check import is_published_name, manifest_findings
from prisma.publish.remote import is_same
from prisma.publish.signing import SIGNATURE
from prisma.publish.sources import Source
from prisma.publish.weights_check import WeightsCheck, header_problems, probe_of
from prisma.repository import MAIN, MANIFEST
from prisma.run_folder import PROBE, RECIPE, revision_of, step_in

MARKS = (MANIFEST, RECIPE, PROBE)
"""Files of `main`, of which two together are those of a mouse that Prisma published."""


def is_ours(source: Source, labels: Mapping[str, str]) -> bool:
    """Whether Prisma published a repository: by the files of `main`, or by the config of `main` or of a step."""
    listing = source.listing(labels[MAIN]) if MAIN in labels else {}
    if len(set(MARKS) & listing.keys()) > 1:
        return True
    steps = [label for label in labels if _step_of(label) is not None]
    for label in (*([MAIN] if MAIN in labels else []), *steps[:1]):
        with noted([]):
            shape_at(source, labels[label])
            return True
    return False


def shape_at(source: Source, commit: str) -> Checkpoint:
    """What the `config.json` of a commit states. Raises PrismaError if it does not describe a model of Prisma."""
    record = source.listing(commit).get(CONFIG)
    if record is None or record.size > JSON:
        raise PrismaError(
            f"expected a file {CONFIG} of at most {JSON:,} bytes; found {record.size if record else 'none'}"
        )
    return read_shape(source.folder(commit, [CONFIG]) / CONFIG)


@dataclass
class MouseAudit:
    """The audit of one mouse. `deep`: read all bytes where they are not read anyway, and compute losses again."""

    source: Source
    labels: Mapping[str, str]  # label -> commit id
    deep: bool
    main: Main = field(init=False)

    @cached_property
    def entries(self) -> dict[str, Entry]:
        """Label -> its first row in the manifest."""
        rows = self.main.manifest.checkpoints if self.main.manifest else ()
        return {row.revision: row for row in reversed(rows)}

    @cached_property
    def yanked(self) -> dict[str, Yanked]:
        """Label of weights that were taken back -> what the manifest says about them."""
        return {row.moved_to: row for row in (self.main.manifest.yanked if self.main.manifest else ())}

    @property
    def last(self) -> Entry | None:
        """The row of the last step."""
        return max(self.entries.values(), key=lambda entry: entry.step, default=None)

    @property
    def published(self) -> dict[str, str]:
        """The labels without the branch on which the commits of checkpoints follow each other."""
        return {label: commit for label, commit in self.labels.items() if self.source.is_local or label != CHAIN}

    def findings(self) -> Iterator[Finding]:
        commit, problems = self.published.get(MAIN), list[str]()
        with noted(problems):
            if commit is not None and not self.source.listing(commit) and not self.source.is_local:
                commit = None  # every repository begins with an empty main
        if commit is None:
            self.main = Main(self.source.repo, {})
            problems = [f"expected a label {MAIN}; found none: publishing was not finished, publish again"]
        else:
            self.main = read_main(self.source, commit, problems)
            problems += gathered(self._main_problems(commit))
        yield from (Finding(MAIN, problem) for problem in problems)
        if self.main.manifest:
            yield from manifest_findings(self.main.manifest, self.main.recipe)
            yield from self._missing_labels()
        for label, commit in sorted(self.published.items(), key=lambda pair: _order(pair[0])):
            if label != MAIN:
                yield from self._label_findings(label, commit)
        if self.deep or self.source.is_local:
            yield from self._weights_findings()

    def _missing_labels(self) -> Iterator[Finding]:
        for label in sorted(self.entries.keys() - self.published.keys()):
            yield Finding(label, "expected a label for this step of the manifest; found none")
        for label in sorted(self.yanked.keys() - self.published.keys()):
            yield Finding(label, f"expected a label for the yanked {shown(self.yanked[label].revision)}; found none")

    def _main_problems(self, commit: str) -> Iterator[str]:
        manifest, listing = self.main.manifest, self.main.listing
        yield from self.source.problems(commit, ours=True)
        if manifest:
            stated = {name: listing[name] for name in listing if name not in (MANIFEST, SIGNATURE)}
            yield from file_problems(manifest.files, stated)
            yield from message_problems(self.source, commit, MANIFEST)
            last = self.last
            if not self.source.is_local and last and WEIGHTS in listing:
                wanted = next((record for record in last.files if record.name == WEIGHTS), None)
                if wanted and not is_same(listing[WEIGHTS], wanted):
                    yield f"expected the file {WEIGHTS} of {last.revision}, the last step; found another"
                if not self.deep:
                    yield from header_problems(self.source.header(commit, WEIGHTS), last.step, self._run)
        else:
            yield from file_problems((), {name: listing[name] for name in listing if not is_published_name(name)})
        yield from number_problems(self.main)
        if problem := card_problem(self.main):
            yield problem
        yield from mechanism_findings(self.main)

    def _label_findings(self, label: str, commit: str) -> Iterator[Finding]:
        yield from (Finding(label, problem) for problem in gathered(self._label_problems(label, commit)))
        if not self.source.is_local:
            self.source.forget()

    def _label_problems(self, label: str, commit: str) -> Iterator[str]:
        entry, taken = self.entries.get(label), self.yanked.get(label)
        stated = entry.commit if entry else taken.commit if taken else commit
        if stated != commit:
            yield f"expected commit {shown(stated)} as in the manifest; found {shown(commit)}"
        if self.main.manifest and not entry and not taken:
            yield "expected a label that is in the manifest; found one that is not"
        listing, problems = self.source.listing(commit), self.source.problems(commit, ours=True)
        yield from problems
        if not listing:
            yield from () if problems else ["expected files; found an empty revision"]
            return
        if entry:
            yield from file_problems(entry.files, listing)
            owner = self._owner(listing.get(WEIGHTS))
            if owner not in (None, label):
                yield f"expected the weights of {label}; found the file of {owner}"
            yield from self._config_problems(commit, listing)
        else:
            extra = {name: record for name, record in listing.items() if name not in (CONFIG, WEIGHTS)}
            yield from file_problems((), extra)
        if not self.source.is_local and not self.deep and WEIGHTS in listing and (entry or taken):
            yield from header_problems(self.source.header(commit, WEIGHTS), self._step(label), self._run)

    def _owner(self, weights: FileRecord | None) -> str | None:
        """The label whose row in the manifest states this file."""
        rows = self.entries.values() if weights else ()
        return next((row.revision for row in rows if weights and weights.sha256 == row.sha256), None)

    def _step(self, label: str) -> int | None:
        """The step whose weights a label must serve; None if it is not known."""
        if label == MAIN:
            return self.last.step if self.last else None
        return _step_of(self.yanked[label].revision if label in self.yanked else label)

    @property
    def _run(self) -> str | None:
        return self.main.manifest.run if self.main.manifest else None

    def _config_problems(self, commit: str, listing: Mapping[str, FileRecord]) -> Iterator[str]:
        mine, wanted = listing.get(CONFIG), self.main.listing.get(CONFIG)
        if mine is None or wanted is None or self.main.model is None or mine == wanted:
            return
        if content(shape_at(self.source, commit)) != content(self.main.model):
            yield f"expected the same {CONFIG} as in {MAIN}; found two that differ"

    def _weights_findings(self) -> Iterator[Finding]:
        """Read all bytes, one revision at a time, `main` first."""
        images, problems, commits = None, list[str](), self.published
        if MAIN in commits and PROBE in self.main.listing:
            with noted(problems):
                path = self.source.folder(commits[MAIN], [PROBE]) / PROBE
                images = probe_of(path, self.main.task if self.deep else None, problems)
        yield from (Finding(MAIN, problem) for problem in problems)
        check = WeightsCheck(self.main, images, self.deep)
        for label in sorted(commits, key=_order):
            problems = []
            with noted(problems):
                if names := self._names_to_read(self.source.listing(commits[label]), entry := self.entries.get(label)):
                    folder = self.source.folder(commits[label], names)
                    found = check.problems(label, folder, self._step(label), entry)
                    problems += gathered(found, folder)
            yield from (Finding(label, problem) for problem in problems)
            self.source.forget()
        yield from check.equal(self.last.revision if self.last else None)

    def _names_to_read(self, listing: Mapping[str, FileRecord], entry: Entry | None) -> list[str]:
        """The files of a revision whose bytes are read; none if it has no weights, or some of an unexpected size."""
        if not {CONFIG, WEIGHTS} <= listing.keys() or listing[CONFIG].size > JSON:
            return []
        if self.source.is_local:
            return [CONFIG, WEIGHTS]
        if entry and entry.size != listing[WEIGHTS].size:  # which is a problem already, and may be a large download
            return []
        return [name for name in listing if is_published_name(name)]


def _step_of(label: str) -> int | None:
    """The step of a label of ours; None if it is none."""
    step = step_in(label.removeprefix("step-"))
    return step if step is not None and revision_of(step) == label else None


def _order(label: str) -> tuple[bool, int, str]:
    """`main` first, then by step."""
    step = _step_of(label)
    return label != MAIN, -1 if step is None else step, label
