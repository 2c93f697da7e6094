"""The reading side of a place where models are published, as an audit needs it: labels, listings, and some files."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

from prisma.publish.commits import FileRecord


class Source(Protocol):
    """One repository, read by an audit. Nothing of it is trusted, and nothing is followed that leads outside it."""

    @property
    def repo(self) -> str:
        """OWNER/NAME."""

    @property
    def kind(self) -> str:
        """Of the repository: "model" or "dataset"."""

    @property
    def is_local(self) -> bool:
        """Whether all bytes are on this machine, so that each listing hashes them."""

    def labels(self) -> dict[str, str]:
        """Label -> commit id, of every branch and tag.

        Raises:
            PrismaError: there is no such repository, or it may not be read.
        """

    def listing(self, commit: str) -> Mapping[str, FileRecord]:
        """The files of a commit by name; empty if there is no such commit. What every repository begins with is none.

        A record without hashes is of a file that cannot be read.
        """

    def problems(self, commit: str, *, ours: bool) -> list[str]:
        """What is wrong with a commit as a place keeps it. `ours`: its id is a hash of its files in a folder hub."""

    def folder(self, commit: str, names: Iterable[str]) -> Path:
        """A folder that holds these files of a commit, their bytes checked against the listing, until `forget`.

        Raises:
            PrismaError: the commit has no such file, or it has other bytes than its record states.
        """

    def header(self, commit: str, name: str) -> Mapping[str, str]:
        """The strings in the header of a safetensors file. Raises PrismaError if it has no such header."""

    def message(self, commit: str, name: str) -> str | None:
        """The title of the last commit that changed a file; None where commits have no messages."""

    def changed_by(self, commit: str, names: Iterable[str]) -> dict[str, str]:
        """Name -> id of the last commit that changed it, for those that are known."""

    def forget(self) -> None:
        """Remove what was downloaded."""
