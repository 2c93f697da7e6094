"""One repository of the Hugging Face Hub as a place to publish: commit, verify by the Hub's own metadata, then label.

The commits of checkpoints follow each other on the branch `checkpoints`, which begins at the repository's first commit,
so that no checkpoint inherits a file of `main`. A label is a branch that is made at a commit whose files were verified;
so a label never serves other weights, whatever is stopped at whatever moment. Nothing is uploaded twice: the Hub knows
files by their hashes, and a commit that was made already is found at the end of its branch.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prisma.errors import PrismaError, listed
from prisma.publish.calls import Calls, RefusedError, UnansweredError
from prisma.publish.commits import Commit, File, FileRecord
from prisma.publish.journal import Journal
from prisma.repo_names import expect_repo_name
from prisma.repository import MAIN

if TYPE_CHECKING:
    from huggingface_hub import HfApi

CHAIN = "checkpoints"
"""The branch on which the commits of checkpoints follow each other."""
ATTRIBUTES = ".gitattributes"
"""What every repository of the Hub begins with."""
TRIES = 5  # of a commit whose answer was lost


@dataclass
class HuggingFaceHub:
    """The writing side of one repository of the Hub."""

    repo: str
    journal: Journal
    calls: Calls = field(default_factory=Calls)
    kind: str = "model"
    sent: int = field(default=0, init=False)  # bytes
    _heads: dict[str, str] | None = field(default=None, init=False)  # branch -> commit id
    _listings: dict[str, dict[str, FileRecord]] = field(default_factory=dict, init=False)  # commits do not change

    def __post_init__(self) -> None:
        expect_repo_name(self.repo)

    @property
    def place(self) -> str:
        from huggingface_hub import constants

        return constants.ENDPOINT

    @property
    def traffic(self) -> tuple[int, int]:
        return self.calls.requests, self.sent

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Let only this process of this machine publish this run there; make the repository, private, if it is new.

        What a process on another machine does is noticed at the next commit, which names its parent.
        """
        with self.journal.writing():
            self.calls.commits.extend(self.journal.commits())
            self._ask(
                f"make the repository {self.repo}",
                lambda: self._api.create_repo(self.repo, private=True, repo_type=self.kind, exist_ok=True),
            )
            self._heads = None
            yield

    def labels(self) -> dict[str, str]:
        """Label -> commit id. `main` is none before something was published there."""
        heads = self._branches(fresh=True)
        labels = {name: commit for name, commit in heads.items() if name != CHAIN}
        if MAIN in labels and not self.listing(labels[MAIN]):
            del labels[MAIN]
        return labels

    def listing(self, commit: str) -> dict[str, FileRecord]:
        """The files of a commit by name, as the Hub's metadata states them; those it stores by SHA-256 have no oid."""
        if commit not in self._listings:
            rows = self._ask(
                f"list the files of {self.repo} at {commit}",
                lambda: list(self._api.list_repo_tree(self.repo, recursive=True, revision=commit, repo_type=self.kind)),
            )
            self._listings[commit] = {
                row.path: record_of(row) for row in rows if hasattr(row, "blob_id") and row.path != ATTRIBUTES
            }
        return self._listings[commit]

    def differing(self, commit: str, wanted: Commit) -> list[str]:
        """The names of the files that a commit does not hold as wanted, by the Hub's own hashes."""
        found, expected = self.listing(commit), {record.name: record for record in wanted.records}
        both = found.keys() & expected.keys()
        return sorted({*(found.keys() ^ expected.keys()), *(n for n in both if not is_same(found[n], expected[n]))})

    def read(self, name: str) -> bytes | None:
        """The bytes of a file of `main`, whose hash is checked; None if it has none."""
        commit = self._branches().get(MAIN)
        record = self.listing(commit).get(name) if commit else None
        if record is None:
            return None
        path = self._ask(
            f"send {name} of {self.repo}",
            lambda: self._api.hf_hub_download(self.repo, name, revision=commit, repo_type=self.kind),
        )
        data = Path(path).read_bytes()
        if not is_same(record, File.of(name, data).record):
            raise PrismaError(f"expected {name} of {self.repo} at {commit} as the Hub lists it; found other bytes")
        return data

    def put(self, label: str, commit: Commit, message: str) -> str:
        """Commit the files, verify them by the Hub's metadata, and let the label name the commit.

        Raises:
            PrismaError: the Hub refuses, somebody else publishes there, or the Hub lists other files than were sent.
        """
        if label == MAIN:
            return self._commit(MAIN, commit, message)
        if CHAIN not in self._branches():
            self._branch(CHAIN, self._first_commit())
        made = self._commit(CHAIN, commit, message)
        if (there := self._branches().get(label)) not in (None, made):
            self.unlabel(label)
        if there != made:
            self._branch(label, made)
        return made

    def amend(self, files: tuple[File, ...], message: str) -> str:
        """Commit `main` with some of its files replaced or added, and verify these."""
        return self._commit(MAIN, Commit(files), message, whole=False)

    def unlabel(self, label: str) -> None:
        """Remove a label. Its commit stays readable by id: it is in the history of the branch `checkpoints`."""
        self._change(
            f"remove the branch {label} of {self.repo}",
            lambda: self._api.delete_branch(self.repo, branch=label, repo_type=self.kind),
            done=lambda: label not in self._branches(fresh=True),
        )
        self._branches().pop(label, None)
        self.journal.write("unlabelled", label=label)

    def set_public(self) -> bool:
        """Make the repository public; False if it was already."""
        info = self._ask(f"describe {self.repo}", lambda: self._api.repo_info(self.repo, repo_type=self.kind))
        if not info.private:
            return False
        self._ask(
            f"make {self.repo} public",
            lambda: self._api.update_repo_settings(self.repo, visibility="public", repo_type=self.kind),
        )
        self.journal.write("public")
        return True

    def _commit(self, branch: str, commit: Commit, message: str, *, whole: bool = True) -> str:
        """A commit on a branch that holds these files, and, if it is to be whole, no others. Verified."""
        begun_at, lost = self._branches().get(branch), None
        for i in range(TRIES):
            parent = self._branches().get(branch) or self._first_commit()
            there = self.listing(parent)
            wanted = [file for file in commit.files if not _is_there(there, file.record)]
            extra = sorted(there.keys() - {file.name for file in commit.files}) if whole else []
            if not wanted and not extra:
                return parent
            if branch == MAIN and begun_at not in (None, parent):
                raise PrismaError(
                    f"expected nobody else to change main of {self.repo}; found commit {parent}: publish again"
                )
            if i:
                self.calls.sleep(2.0**i)
            self.calls.expect_pace()
            try:
                made = self._send(branch, parent, wanted, extra, message)
            except UnansweredError as error:
                lost = error
                self._branches(fresh=True)  # if the commit was made, it is the head now
                continue
            self._branches()[branch] = made
            self.sent += sum(file.size for file in wanted)
            self.calls.committed()
            self.journal.write("committed", branch=branch, commit=made)
            self._expect_verified(made, commit, whole)
            return made
        raise PrismaError(f"expected the Hub to take a commit of {self.repo}; found {lost}: publish again later")

    def _send(self, branch: str, parent: str, files: list[File], extra: list[str], message: str) -> str:
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        adds = [
            CommitOperationAdd(file.name, file.source if isinstance(file.source, bytes) else str(file.source))
            for file in files
        ]
        operations = [*adds, *(CommitOperationDelete(name, is_folder=False) for name in extra)]
        try:
            return self.calls.ask(
                f"take a commit of {self.repo}",
                lambda: (
                    self._api.create_commit(
                        self.repo,
                        operations,
                        commit_message=message,
                        revision=branch,
                        parent_commit=parent,
                        repo_type=self.kind,
                    ).oid
                ),
                once=True,
            )
        except RefusedError as error:
            if error.status == 412 and self._branches(fresh=True).get(branch) != parent:
                raise UnansweredError("another commit on the branch") from None  # of somebody else, or ours after all
            raise

    def _expect_verified(self, made: str, commit: Commit, whole: bool) -> None:
        found = self.listing(made)
        wrong = self.differing(made, commit) if whole else []
        wrong = wrong or [file.name for file in commit.files if not _is_there(found, file.record)]
        if wrong:
            raise PrismaError(
                f"expected the files of commit {made} of {self.repo} as they were sent; the Hub lists others: "
                f"{listed(wrong)}: no label was made; publish again"
            )
        self.journal.write("verified", commit=made)

    def _branch(self, name: str, commit: str) -> None:
        self._change(
            f"make the branch {name} of {self.repo}",
            lambda: self._api.create_branch(self.repo, branch=name, revision=commit, repo_type=self.kind),
            done=lambda: self._branches(fresh=True).get(name) == commit,
        )
        self._branches()[name] = commit
        self.journal.write("labelled", label=name, commit=commit)

    def _change(self, what: str, call: Any, done: Any) -> None:
        """A call that may be repeated only if it did not take effect."""
        for i in range(TRIES):
            try:
                self.calls.ask(what, call, once=True)
                return
            except UnansweredError as error:
                if done():
                    return
                if i == TRIES - 1:
                    raise PrismaError(f"expected the Hub to {what}; found {error}: publish again later") from None
                self.calls.sleep(2.0**i)
            except RefusedError:  # such as "exists already", of our own call before
                if done():
                    return
                raise

    def _branches(self, fresh: bool = False) -> dict[str, str]:
        if fresh or self._heads is None:
            try:
                refs = self._ask(
                    f"list the branches of {self.repo}",
                    lambda: self._api.list_repo_refs(self.repo, repo_type=self.kind),
                )
                self._heads = {branch.name: branch.target_commit for branch in refs.branches}
            except RefusedError as error:
                if error.status not in (401, 404):
                    raise
                self._heads = {}  # there is no such repository, or it is not ours to see: making it will tell
        return self._heads

    def _first_commit(self) -> str:
        history = self._ask(
            f"list the commits of {self.repo}",
            lambda: self._api.list_repo_commits(self.repo, repo_type=self.kind),
        )
        return history[-1].commit_id

    def _ask(self, what: str, call: Any) -> Any:
        return self.calls.ask(what, call)

    @property
    def _api(self) -> "HfApi":
        from huggingface_hub import HfApi

        return HfApi()


def record_of(row: Any) -> FileRecord:
    """A file of one of the Hub's listings: by its SHA-256 if the Hub stores it so, else by its oid."""
    return FileRecord(row.path, row.lfs.sha256 if row.lfs else "", row.size, "" if row.lfs else row.blob_id)


def is_same(found: FileRecord, wanted: FileRecord) -> bool:
    """Whether the Hub's record of a file, which has one of the two hashes, is of these bytes."""
    hashes = (found.sha256, wanted.sha256) if found.sha256 else (found.oid, wanted.oid)
    return found.size == wanted.size and hashes[0] == hashes[1]


def _is_there(listing: dict[str, FileRecord], wanted: FileRecord) -> bool:
    return wanted.name in listing and is_same(listing[wanted.name], wanted)
