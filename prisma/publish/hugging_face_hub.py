"""One repository of the Hugging Face Hub as a place to publish: commit, verify by the Hub's own metadata, then label.

The commits of checkpoints follow each other on the branch `checkpoints`, which begins at the repository's first commit,
so that no checkpoint inherits a file of `main`. A label is a branch that is made at a commit whose files were verified;
so a label never serves other weights, whatever is stopped at whatever moment. Nothing is uploaded twice: the Hub knows
files by their hashes, and a commit that was made already is found at the end of its branch.

Commits are made one after the other, because each names its parent; meanwhile the commits before are verified and
labelled, which takes two more requests each.
"""

import re
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from prisma.errors import PrismaError, listed
from prisma.publish.calls import Calls, RefusedError, UnansweredError
from prisma.publish.commits import Commit, File, FileRecord
from prisma.publish.journal import Journal
from prisma.publish.remote import Remote, is_same, sending
from prisma.publish.uploads import Uploads
from prisma.repository import MAIN

CHAIN = "checkpoints"
"""The branch on which the commits of checkpoints follow each other."""
TRIES = 5  # of a change whose answer was lost
THREADS = 5  # one sends files; in the others, commits are verified and labelled
_LABEL = re.compile(rf"{MAIN}|.*step-\d+.*")  # other branches of a repository are its owner's own


@dataclass
class HuggingFaceHub:
    """The writing side of one repository of the Hub."""

    repo: str
    journal: Journal
    calls: Calls = field(default_factory=Calls)
    kind: str = "model"
    sent: dict[str, int] = field(default_factory=dict, init=False)  # SHA-256 -> bytes
    remote: Remote = field(init=False)
    _uploads: Uploads = field(init=False)
    _made: dict[str, str] = field(default_factory=dict, init=False)  # `Commit.id` -> commit, by this run's journal
    _tip: tuple[str, Commit] | None = field(default=None, init=False)  # what we committed last on the chain
    _pool: ThreadPoolExecutor | None = field(default=None, init=False)  # while `writing`
    _settling: list[Future[None]] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self.remote = Remote(self.repo, self.calls, self.kind)
        self._uploads = Uploads(self.remote)

    @property
    def place(self) -> str:
        from huggingface_hub import constants

        return constants.ENDPOINT

    @property
    def traffic(self) -> tuple[int, int]:
        return self.calls.requests, sum(self.sent.values())

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Let only this process of this machine publish this run there; make the repository, private, if it is new.

        What a process on another machine does is noticed at the next commit, which names its parent.
        """
        with self.journal.writing():
            self.calls.commits, self._made = deque(self.journal.commits()), self.journal.made()
            if not self.remote.branches():
                self.remote.make()
            self._pool = ThreadPoolExecutor(THREADS)
            try:
                with sending():
                    yield
                    self._settle()
            finally:
                self.calls.stop()  # those that wait for the Hub
                self._pool.shutdown(cancel_futures=True)
                self._pool = None
                self._settling.clear()
                self.calls.begin()

    def labels(self) -> dict[str, str]:
        """Label -> commit id. `main` is none before something was published there."""
        self._settle()
        labels = {name: commit for name, commit in self.remote.branches(fresh=True).items() if _LABEL.fullmatch(name)}
        if MAIN in labels and not self.remote.listing(labels[MAIN]):
            del labels[MAIN]
        return labels

    def served(self, label: str) -> str | None:
        """The commit that a label names, as listed last; to make one that is there by now is refused by the Hub."""
        return self.remote.branches().get(label)

    def differing(self, commit: str, wanted: Commit) -> list[str]:
        """The names of the files that a commit does not hold as wanted, by the Hub's own hashes."""
        return self.remote.differing(commit, wanted)

    def read(self, name: str) -> bytes | None:
        """The bytes of a file of `main`, whose hash is checked; None if it has none."""
        commit = self.remote.branches().get(MAIN)
        return self.remote.read(name, commit) if commit else None

    def prepare(self, commits: Sequence[Commit]) -> None:
        """These commits will be put next, in this order: their files are sent many at a time."""
        self._uploads.prepare(commits)

    def put(self, label: str, commit: Commit, message: str) -> str:
        """Commit the files, verify them by the Hub's metadata, and let the label name the commit.

        The last two may take place a little later: `labels`, `main` and the end of `writing` wait for them.

        Raises:
            PrismaError: the Hub refuses, somebody else publishes there, or the Hub lists other files than were sent.
                It may be about a label before this one.
        """
        if label == MAIN:
            return self._put_main(commit, message)
        if CHAIN not in self.remote.branches():
            self._branch(CHAIN, self.remote.first_commit())
        made = self._made_before(commit) or self._commit(CHAIN, commit, message)
        assert self._pool is not None
        self._settle(wait=False)
        self._settling.append(self._pool.submit(self._label, label, made, commit))
        return made

    def amend(self, files: tuple[File, ...], message: str, removed: Collection[str] = ()) -> str:
        """Commit `main` with some of its files replaced, added or removed, and verify these."""
        return self._put_main(Commit(files), message, removed)

    def rename(self, label: str, new: str) -> None:
        """Let a commit have another label. A call that was stopped is completed by the same call."""
        self._settle()
        if (commit := self.remote.branches().get(label)) is not None:
            if self.remote.branches().get(new) != commit:
                self._branch(new, commit)
            self._remove(label)

    def unlabel(self, label: str) -> None:
        """Remove a label. Its commit stays readable by id: it is in the history of the branch `checkpoints`."""
        self._settle()
        self._remove(label)

    def _put_main(self, commit: Commit, message: str, removed: Collection[str] | None = None) -> str:
        self._settle()
        made = self._commit(MAIN, commit, message, removed)
        self._expect_verified(made, commit, removed)
        return made

    def _label(self, label: str, made: str, commit: Commit) -> None:
        self._expect_verified(made, commit)
        if (there := self.remote.branches().get(label)) not in (None, made):
            self._remove(label)
        if there != made:
            self._branch(label, made)

    def _settle(self, wait: bool = True) -> None:
        """Raise what went wrong with the labels that were being made; wait for all of them, or look at those ready."""
        ready = [future for future in self._settling if wait or future.done()]
        self._settling = [future for future in self._settling if future not in ready]
        for future in ready:
            future.result()

    def _remove(self, label: str) -> None:
        self._change(
            f"remove the branch {label}",
            lambda: self.remote.api.delete_branch(self.repo, branch=label, repo_type=self.kind),
            done=lambda: label not in self.remote.branches(fresh=True),
        )
        self.remote.branches().pop(label, None)
        self.journal.write("unlabelled", label=label)

    def set_public(self) -> bool:
        """Make the repository public; False if it was already."""
        if not self.remote.is_private():
            return False
        self.calls.ask(
            f"make {self.repo} public",
            lambda: self.remote.api.update_repo_settings(self.repo, visibility="public", repo_type=self.kind),
        )
        self.journal.write("public")
        return True

    def _commit(self, branch: str, commit: Commit, message: str, removed: Collection[str] | None = None) -> str:
        """The id of a commit on a branch that holds these files, and no others; or, of others, only not `removed`."""
        begun_at, lost = self.remote.branches().get(branch), ""
        for i in range(TRIES):
            parent = self.remote.branches()[branch]
            there = self._files(parent)
            wanted = [file for file in commit.files if not is_same(there.get(file.name), file.record)]
            extra = self._extra(parent, commit, removed)
            if not wanted and not extra:
                if i:
                    self._note(branch, parent, commit)  # ours, whose answer was lost
                return parent
            if branch == MAIN and parent != begun_at:
                raise PrismaError(
                    f"expected nobody else to change main of {self.repo}; found commit {parent}: publish again"
                )
            if i:
                self.calls.pause(2.0**i)
            try:
                made = self._send(branch, parent, wanted, extra, message)
            except UnansweredError as error:
                lost = str(error)
                self.remote.branches(fresh=True)  # if the commit was made, it is the head now
                continue
            self.sent |= {file.sha256: file.size for file in wanted}
            self._note(branch, made, commit)
            return made
        raise PrismaError(f"expected the Hub to take a commit of {self.repo}; found {lost}: publish again later")

    def _files(self, commit: str) -> Mapping[str, FileRecord]:
        """The files of a commit by name; of our last one, which may not be verified yet, those that it should have."""
        if self._tip and commit == self._tip[0]:
            return {record.name: record for record in self._tip[1].records}
        return self.remote.listing(commit)

    def _extra(self, at: str, commit: Commit, removed: Collection[str] | None) -> list[str]:
        """The names of the files that a commit has and should not have: all others, or of these those `removed`."""
        others = self._files(at).keys() - {file.name for file in commit.files} if removed is None or removed else set()
        return sorted(others if removed is None else others.intersection(removed))

    def _made_before(self, commit: Commit) -> str | None:
        """The commit of these files that was made before, by a publication that was stopped before their label."""
        made = self._made.get(commit.id)
        with suppress(RefusedError):  # it went with its repository
            return made if made and not self.differing(made, commit) else None
        return None

    def _note(self, branch: str, made: str, commit: Commit) -> None:
        self.remote.branches()[branch] = made
        if branch == CHAIN:
            self._tip = made, commit
        self.calls.committed()
        self.journal.write("committed", branch=branch, commit=made, content=commit.id)

    def _send(self, branch: str, parent: str, files: list[File], extra: list[str], message: str) -> str:
        from huggingface_hub import CommitOperationDelete

        assert self._pool is not None, "expected to be called while `writing`"
        additions = self._uploads.additions(files, branch, self._pool)
        operations: list[Any] = [*additions, *(CommitOperationDelete(name, is_folder=False) for name in extra)]
        self.calls.expect_pace()
        try:
            made: str = self.remote.ask(
                "take a commit",
                lambda: self.remote.api.create_commit(
                    self.repo, operations, commit_message=message, revision=branch, parent_commit=parent,
                    repo_type=self.kind,
                ).oid,
                once=True,
            )  # fmt: skip
        except RefusedError as error:
            if error.status == 412 and self.remote.branches(fresh=True).get(branch) != parent:
                raise UnansweredError("another commit on the branch") from None  # of somebody else, or ours after all
            raise
        return made

    def _expect_verified(self, made: str, commit: Commit, removed: Collection[str] | None = None) -> None:
        wrong = [file.name for file in self.remote.absent(made, commit)]
        if wrong := wrong or (self.differing(made, commit) if removed is None else self._extra(made, commit, removed)):
            raise PrismaError(
                f"expected the files of commit {made} of {self.repo} as they were sent; the Hub lists others: "
                f"{listed(wrong)}: no label was made; publish again"
            )

    def _branch(self, name: str, commit: str) -> None:
        self._change(
            f"make the branch {name}",
            lambda: self.remote.api.create_branch(self.repo, branch=name, revision=commit, repo_type=self.kind),
            done=lambda: self.remote.branches(fresh=True).get(name) == commit,
        )
        self.remote.branches()[name] = commit
        self.journal.write("labelled", label=name, commit=commit)

    def _change(self, what: str, call: Callable[[], Any], done: Callable[[], bool]) -> None:
        """A call that may be repeated only if it did not take effect."""
        lost = ""
        for i in range(TRIES):
            if i:
                self.calls.pause(2.0**i)
            try:
                self.remote.ask(what, call, once=True)
                return
            except UnansweredError as error:
                lost = str(error)
            except RefusedError:  # such as "exists already", of our own call before
                if not done():
                    raise
                return
            if done():
                return
        raise PrismaError(f"expected the Hub to {what} of {self.repo}; found {lost}: publish again later")
