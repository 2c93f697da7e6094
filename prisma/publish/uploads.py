"""Files on their way to the Hub: those of many commits in a few requests, ahead of the commits.

A commit of its own asks the Hub for each file how to send it and where to; so a commit of files that were sent already
is one request. The files stay on disk until they are sent, so memory does not grow with their number. A file that was
sent for a commit that was then never made does no harm: the Hub knows it by its hash, and does not ask for it again.
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from prisma.errors import PrismaError
from prisma.publish.commits import Commit, File
from prisma.publish.remote import Remote

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd

BATCH = 32  # files about which the Hub is asked together
THREADS = 8  # files that are sent at once


@dataclass
class Uploads:
    """The files that one publication sends to one repository: the next ones while the commits before are made."""

    remote: Remote
    _coming: dict[str, File] = field(default_factory=dict)  # by SHA-256, in the order in which they are needed
    _sending: "Future[dict[str, CommitOperationAdd]] | None" = None
    _ready: "dict[str, CommitOperationAdd]" = field(default_factory=dict)  # sent, and in no commit yet

    def prepare(self, commits: Iterable[Commit]) -> None:
        """The files of these commits will be asked for next, in this order."""
        self._coming = {file.sha256: file for commit in commits for file in commit.files}
        self._sending = None

    def additions(self, files: Sequence[File], branch: str, pool: Executor) -> "list[CommitOperationAdd]":
        """What puts these files into a commit of a branch; `pool` sends others meanwhile. Raises as `Calls.ask`."""
        while any(file.sha256 in self._coming for file in files):
            sent = (self._sending or self._begin(branch, pool)).result()
            self._coming = {sha256: file for sha256, file in self._coming.items() if sha256 not in sent}
            self._ready |= sent
            self._sending = self._begin(branch, pool) if self._coming else None
        return [self._addition(file) for file in files]

    def _begin(self, branch: str, pool: Executor) -> "Future[dict[str, CommitOperationAdd]]":
        return pool.submit(self._send, list(self._coming.values())[:BATCH], branch)

    def _send(self, files: Sequence[File], branch: str) -> "dict[str, CommitOperationAdd]":
        """Send files, and return what puts them into a commit, by SHA-256."""
        batch = {file.sha256: _operation(f"{file.sha256}/{file.name}", file) for file in files}
        self.remote.ask(
            "take files",
            lambda: self.remote.api.preupload_lfs_files(
                self.remote.repo,
                batch.values(),
                repo_type=self.remote.kind,
                revision=branch,
                num_threads=THREADS,
                free_memory=False,
            ),
        )
        for file in files:  # the client is not told the hashes: so these are of what it sent
            if batch[file.sha256].upload_info.sha256.hex() != file.sha256:
                raise PrismaError(f"expected {file.source!s} to stay as it was during publishing; found it changed")
        return batch

    def _addition(self, file: File) -> "CommitOperationAdd":
        ready = self._ready.pop(file.sha256, None)
        if ready is None:
            return _operation(file.name, file)
        ready.path_in_repo = file.name  # it was sent under a name of its own: one request cannot name a path twice
        return ready


def _operation(name: str, file: File) -> "CommitOperationAdd":
    from huggingface_hub import CommitOperationAdd

    return CommitOperationAdd(name, file.source if isinstance(file.source, bytes) else str(file.source))
