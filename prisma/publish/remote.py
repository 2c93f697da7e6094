"""What the Hugging Face Hub says about one repository: branches, the files of a commit by their hashes, bytes."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prisma.errors import PrismaError, shown
from prisma.publish.calls import Calls, RefusedError
from prisma.publish.commits import Commit, File, FileRecord
from prisma.repo_names import expect_repo_name

if TYPE_CHECKING:
    from huggingface_hub import HfApi

ATTRIBUTES = ".gitattributes"
"""What every repository of the Hub begins with."""
MOST_FILES = 100_000  # of a commit; what is listed beyond is not looked at


@dataclass
class Remote:
    """The reading side of one repository of the Hub.

    What was asked for once is remembered: commits do not change, and branches only when they are asked for `fresh`.
    """

    repo: str
    calls: Calls = field(default_factory=Calls)
    kind: str = "model"
    is_hidden: bool = field(default=False, init=False)  # there is no such repository, or it is not ours to see
    _heads: dict[str, str] | None = field(default=None, init=False)  # branch -> commit id
    cut: set[str] = field(default_factory=set, init=False)  # commits of more than `MOST_FILES` files
    _listings: dict[str, dict[str, FileRecord]] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        expect_repo_name(self.repo)

    @property
    def api(self) -> "HfApi":
        from huggingface_hub import HfApi

        return HfApi()

    def branches(self, fresh: bool = False) -> dict[str, str]:
        """Branch -> commit id; empty for a repository that is not there, or not ours to see.

        Whoever makes a branch or moves it notes that here.
        """
        if fresh or self._heads is None:
            try:
                refs = self.ask("list the branches", lambda: self.api.list_repo_refs(self.repo, repo_type=self.kind))
                self._heads = {branch.name: branch.target_commit for branch in refs.branches}
            except RefusedError as error:
                if error.status not in (401, 404):
                    raise
                self._heads = {}  # making it will tell
            self.is_hidden = not self._heads
        return self._heads

    def make(self) -> None:
        """Make the repository, private, unless there is one."""
        self.calls.ask(
            f"make the repository {self.repo}",
            lambda: self.api.create_repo(self.repo, private=True, repo_type=self.kind, exist_ok=True),
        )
        self.branches(fresh=True)

    def is_private(self) -> bool:
        info = self.calls.ask(f"describe {self.repo}", lambda: self.api.repo_info(self.repo, repo_type=self.kind))
        return bool(info.private)

    def first_commit(self) -> str:
        """The id of the commit that the history of `main` begins with; it holds `ATTRIBUTES` alone."""
        history = self.ask("list the commits", lambda: self.api.list_repo_commits(self.repo, repo_type=self.kind))
        return str(history[-1].commit_id)

    def listing(self, commit: str) -> dict[str, FileRecord]:
        """The files of a commit by name, as the Hub's metadata states them, without `ATTRIBUTES`.

        Those that the Hub stores by SHA-256 have no oid, and the others no SHA-256.
        """
        if commit not in self._listings:

            def read() -> list[Any]:
                rows = self.api.list_repo_tree(self.repo, recursive=True, revision=commit, repo_type=self.kind)
                return list(islice(rows, MOST_FILES + 1))

            rows = self.ask(f"list the files at {shown(commit)}", read)
            if len(rows) > MOST_FILES:
                self.cut.add(commit)
            files = (row for row in rows[:MOST_FILES] if hasattr(row, "blob_id") and row.path != ATTRIBUTES)
            self._listings[commit] = {row.path: record_of(row) for row in files}
        return self._listings[commit]

    def differing(self, commit: str, wanted: Commit) -> list[str]:
        """The names of the files that a commit does not hold as wanted, by the Hub's own hashes."""
        extra = self.listing(commit).keys() - {file.name for file in wanted.files}
        return sorted({*extra, *(file.name for file in self.absent(commit, wanted))})

    def absent(self, commit: str, wanted: Commit) -> list[File]:
        """The files that a commit does not hold, or holds with other bytes."""
        there = self.listing(commit)
        return [file for file in wanted.files if not is_same(there.get(file.name), file.record)]

    def read(self, name: str, commit: str) -> bytes | None:
        """The bytes of a file, whose hash is checked; None if the commit has none."""
        record = self.listing(commit).get(name)
        if record is None:
            return None
        path = self.ask(
            f"send {name}",
            lambda: self.api.hf_hub_download(self.repo, name, revision=commit, repo_type=self.kind),
        )
        data = Path(path).read_bytes()
        if not is_same(record, File.of(name, data).record):
            raise PrismaError(f"expected {name} of {self.repo} at {commit} as the Hub lists it; found other bytes")
        return data

    def ask(self, what: str, call: Any, *, once: bool = False) -> Any:
        """The answer of a call about this repository: see `Calls.ask`."""
        return self.calls.ask(f"{what} of {self.repo}", call, once=once)


def record_of(row: Any) -> FileRecord:
    """A file of one of the Hub's listings: by its SHA-256 if the Hub stores it so, else by its oid."""
    return FileRecord(row.path, row.lfs.sha256 if row.lfs else "", row.size, "" if row.lfs else row.blob_id)


def is_same(found: FileRecord | None, wanted: FileRecord) -> bool:
    """Whether the Hub's record of a file, which has one of the two hashes, is of these bytes."""
    if found is None:
        return False
    hashes = (found.sha256, wanted.sha256) if found.sha256 else (found.oid, wanted.oid)
    return found.size == wanted.size and hashes[0] == hashes[1]


@contextmanager
def sending() -> Iterator[None]:
    """Within, the client sends files by plain HTTP, whether or not it has Xet, and shows no bars of its own.

    By HTTP, the Hub is told the hash of a file before it gets the bytes, and refuses others; every Hub has it; and the
    one way to send is the one that is tested. The bar is one for the whole publication.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    were_shown, was_without = not are_progress_bars_disabled(), constants.HF_HUB_DISABLE_XET
    disable_progress_bars()
    constants.HF_HUB_DISABLE_XET = True
    try:
        yield
    finally:
        constants.HF_HUB_DISABLE_XET = was_without
        if were_shown:
            enable_progress_bars()
