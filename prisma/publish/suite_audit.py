"""The audit of any repository whose revisions, folders or sisters are named by steps: no manifest is needed.

Everything is found by comparing listings: which steps serve the same file, which serve that of `main`, which formats of
one revision belong to different weights, which steps are missing between others.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from prisma.checkpoint import read_tensors, weights_hash
from prisma.errors import listed, shown
from prisma.publish.commits import FileRecord
from prisma.publish.findings import Finding, gathered, noted
from prisma.publish.layouts import StepName, gaps, step_name
from prisma.publish.sources import Source
from prisma.publish.unsafe import unsafe_problem
from prisma.repository import MAIN
from prisma.run_folder import step_in

FORMATS: Mapping[str, re.Pattern[str]] = {
    "safetensors": re.compile(r"(.*/)?[^/]*\.safetensors"),
    "PyTorch": re.compile(r"(.*/)?((pytorch_)?model|consolidated|weights)[^/]*\.(bin|pt|pth|ckpt)"),
    "TensorFlow": re.compile(r"(.*/)?tf_model[^/]*\.h5"),
    "Flax": re.compile(r"(.*/)?flax_model[^/]*\.msgpack"),
}
"""The formats of weights, in the order in which libraries look for them -> the names of their files."""
SAME: tuple[frozenset[int], ...] = (frozenset({0, 1}),)
"""Steps whose weights may be equal: where the first learning rate is 0, as in Pythia, step 1 has those of step 0."""
_SHARD = re.compile(r"(?P<begin>.*-)(?P<i>\d{5})(?P<of>-of-)(?P<n>\d{5})(?P<end>\..*)")
MOST_SHARDS = 1000


@dataclass(frozen=True)
class Saved:
    """A checkpoint as others save one, or `main`."""

    label: str  # the branch or tag, the folder, or the name of the repository
    name: StepName | None  # None: no step, such as main
    source: Source
    commit: str
    files: Mapping[str, FileRecord]  # by their names in it
    inside: str = ""  # the folder of the files in the commit, with a slash at its end

    @cached_property
    def weights(self) -> dict[str, dict[str, str]]:
        """Format -> file -> hash."""
        found = {
            kind: {name: key for name, record in self.files.items() if form.fullmatch(name) and (key := _key(record))}
            for kind, form in FORMATS.items()
        }
        return {kind: files for kind, files in found.items() if files}

    @property
    def place(self) -> tuple[str, int]:
        """Where in the training it is: (stage, step); `main` and others are nowhere."""
        return (self.name.stage, self.name.step) if self.name else ("", -1)


def _key(record: FileRecord) -> str:
    return record.sha256 or record.oid


def saved_in(source: Source, labels: Mapping[str, str]) -> list[Saved]:
    """What a repository holds: a checkpoint for each label that states a step, or for each such folder of `main`."""
    found = [Saved(label, step_name(label), source, commit, source.listing(commit)) for label, commit in labels.items()]
    main = next((saved for saved in found if saved.label == MAIN), None)
    folders = defaultdict[str, dict[str, FileRecord]](dict)
    for path, record in (main.files if main else {}).items():
        parts = path.split("/")
        depth = next((i for i, part in enumerate(parts[:-1], 1) if step_name(part)), 0)
        if depth:
            folders["/".join(parts[:depth])]["/".join(parts[depth:])] = record
    if main and folders:
        inside = {f"{folder}/{name}" for folder, files in folders.items() for name in files}
        rest = {path: record for path, record in main.files.items() if path not in inside}
        found[found.index(main)] = Saved(MAIN, None, source, main.commit, rest)
        for folder, files in folders.items():
            name = step_name(folder.rpartition("/")[2])
            found.append(Saved(folder, name, source, main.commit, files, f"{folder}/"))
    return sorted(found, key=lambda saved: (saved.label != MAIN, saved.place, saved.label))


@dataclass
class SuiteAudit:
    """The audit of checkpoints of one training run, or of several that do not share weights."""

    all: Sequence[Saved]
    deep: bool
    where: str  # what holds them, for the finding that there are none
    _users: dict[str, list[Saved]] = field(default_factory=lambda: defaultdict(list), init=False)  # hash -> who has it

    @cached_property
    def steps(self) -> list[Saved]:
        return [saved for saved in self.all if saved.name]

    @cached_property
    def last(self) -> dict[str, int]:
        """Stage -> its last step: main may serve the same weights."""
        last = dict[str, int]()
        for saved in self.steps:
            stage, step = saved.place
            last[stage] = max(step, last.get(stage, step))
        return last

    def findings(self) -> Iterator[Finding]:
        if not self.steps:
            yield Finding(
                MAIN, f"expected revisions or folders named by steps, such as step1000, in {self.where}; found none"
            )
        for saved in self.all:
            if saved.name or saved.label == MAIN:
                for key in _keys(saved):
                    self._users[key].append(saved)
        for saved in self.all:
            yield from (Finding(saved.label, problem) for problem in gathered(self._problems(saved)))
        yield from self._gaps()
        if self.deep:
            yield from self._read()

    def _problems(self, saved: Saved) -> Iterator[str]:
        if saved.commit and not saved.inside:
            yield from saved.source.problems(saved.commit, ours=False)
        if (unsafe := unsafe_problem(saved.files)) is not None:
            yield unsafe
        if saved.name and not saved.weights:
            found = listed(sorted(saved.files), 3) if saved.files else "an empty revision"
            yield f"expected weights of step {saved.name.step:,}; found {found}"
        for files in saved.weights.values():
            yield from _missing_shards(files)
        stale = list(self._stale(saved))
        yield from stale or (self._copies(saved) if saved.name else ())

    @cached_property
    def _of_main(self) -> set[str]:
        """The hashes of the weights of `main`."""
        return {key for saved in self.all if saved.label == MAIN for key in _keys(saved)}

    def _owner(self, saved: Saved, key: str) -> Saved | None:
        """Who serves a file too though the two must differ: `main`, or the earliest step."""
        if self._is_free(saved):
            return None
        for user in self._users[key]:  # main first, then in step order
            if user.place >= saved.place:
                break
            if not _may_be_equal(user, saved):
                return user
        return None

    def _is_free(self, saved: Saved) -> bool:
        """Whether a checkpoint may serve the weights of others: `main`, and the last step, whose weights main has."""
        if saved.name is None:
            return True
        stage, step = saved.place
        return step == self.last[stage] and not self._of_main.isdisjoint(_keys(saved))

    def _copies(self, saved: Saved) -> Iterator[str]:
        """Weights that another step, or main, serves too."""
        for files in saved.weights.values():
            shared = {name: owner for name, key in sorted(files.items()) if (owner := self._owner(saved, key))}
            if not shared:
                continue
            names, owners = (
                listed([shown(name) for name in shared], 3),
                {other.label: None for other in shared.values()},
            )
            if len(shared) < len(files):
                yield (
                    f"expected every shard to be of step {saved.name.step if saved.name else 0:,}; found {names} of "
                    f"{listed(list(owners), 3)} among its {len(files)} files of weights"
                )
            else:
                yield f"expected weights of its own; found {names} of {listed(list(owners), 3)}"

    def _stale(self, saved: Saved) -> Iterator[str]:
        """Formats beside each other that are not of the same weights."""
        if len(saved.weights) < 2:
            return
        foreign = dict[str, str]()  # format -> who serves one of its files too
        for kind, files in saved.weights.items():
            owners = (owner.label for key in files.values() if (owner := self._owner(saved, key)))
            if (label := next(owners, None)) is not None:
                foreign[kind] = label
        own = [kind for kind in saved.weights if kind not in foreign]
        if not foreign:
            yield from self._of_two_commits(saved)
        elif own:
            for kind, label in foreign.items():
                yield (
                    f"expected one set of weights; found {listed(sorted(saved.weights[kind]), 2)} of {shown(label)} "
                    f"beside {listed(sorted(saved.weights[own[0]]), 2)} of its own; libraries read "
                    f"{next(iter(saved.weights))}"
                )

    def _of_two_commits(self, saved: Saved) -> Iterator[str]:
        """Formats of which one was committed again, and the other not."""
        names = [f"{saved.inside}{name}" for files in saved.weights.values() for name in files]
        commits, by_kind = saved.source.changed_by(saved.commit, names), dict[str, set[str]]()
        for kind, files in saved.weights.items():
            made = {commits[name] for file in files if (name := f"{saved.inside}{file}") in commits}
            by_kind |= {kind: made} if made else {}
        if len(by_kind) > 1 and not set.intersection(*by_kind.values()):
            words = " and ".join(
                f"{listed(sorted(saved.weights[kind]), 2)} of commit {listed(sorted(made), 1)}"
                for kind, made in by_kind.items()
            )
            yield f"expected all formats of the weights from one commit; found {words}: one of them may be stale"

    def _gaps(self) -> Iterator[Finding]:
        stages = defaultdict[str, list[StepName]](list)
        for saved in self.steps:
            if saved.name:
                stages[saved.name.stage].append(saved.name)
        for names in stages.values():
            first = min(names, key=lambda name: name.step)
            for gap in gaps(name.step for name in names):
                for step in gap.steps:
                    yield Finding(
                        first.of(step),
                        f"expected step {step:,} from the spacing of the others ({gap.spacing}); found none",
                    )
                if gap.n > len(gap.steps):
                    yield Finding(
                        first.of(gap.steps[-1]),
                        f"expected {gap.n - len(gap.steps):,} more steps after this one; found none",
                    )

    def _read(self) -> Iterator[Finding]:
        """Download the safetensors of every checkpoint, one file at a time, and compare what is in them."""
        seen = dict[str, Saved]()
        for saved in self.all:
            problems, hashes = list[str](), list[str]()
            for name in sorted(saved.weights.get("safetensors", ())):
                with noted(problems):
                    path = saved.source.folder(saved.commit, [f"{saved.inside}{name}"]) / f"{saved.inside}{name}"
                    problems += gathered(self._file_problems(saved, path, hashes), path.parent)
                saved.source.forget()
            if hashes and len(hashes) == len(saved.weights["safetensors"]):
                twin = seen.setdefault(" ".join(sorted(hashes)), saved)
                is_new = not set(saved.weights["safetensors"].values()) & set(twin.weights["safetensors"].values())
                if is_new and not self._is_free(saved) and not _may_be_equal(twin, saved):
                    problems.append(
                        f"expected weights of its own; found the values of {shown(twin.label)} in another file"
                    )
            yield from (Finding(saved.label, problem) for problem in problems)

    def _file_problems(self, saved: Saved, path: Path, hashes: list[str]) -> Iterator[str]:
        tensors, header = read_tensors(path)
        hashes.append(weights_hash(tensors))
        stated = step_in(header.get("step", ""))
        if saved.name and stated is not None and stated != saved.name.step:
            yield f"expected weights of step {saved.name.step:,}; found a header that states step {stated:,}"


def _keys(saved: Saved) -> set[str]:
    """The hashes of all files of weights."""
    return {key for files in saved.weights.values() for key in files.values()}


def _may_be_equal(earlier: Saved, later: Saved) -> bool:
    """Whether two checkpoints may have equal weights."""
    if earlier.label == MAIN:
        return False
    return earlier.place == later.place or any({earlier.place[1], later.place[1]} <= same for same in SAME)


def _missing_shards(files: Mapping[str, str]) -> Iterator[str]:
    """Shards that the names of others promise."""
    for match in {m["begin"] + m["n"] + m["end"]: m for name in files if (m := _SHARD.fullmatch(name))}.values():
        wanted = (
            f"{match['begin']}{i:05d}{match['of']}{match['n']}{match['end']}" for i in range(1, int(match["n"]) + 1)
        )
        if missing := [name for name, _ in zip(wanted, range(MOST_SHARDS), strict=False) if name not in files]:
            yield f"expected all {int(match['n'])} shards of the weights; found no {listed(missing, 5)}"
