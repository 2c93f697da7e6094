"""Reading a published mouse, file by file: from a folder hub, the Hugging Face Hub, or the Hub's cache when offline.

A folder hub is a Hugging Face cache folder, so all three are read by one call of the Hub's own client.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prisma.errors import PrismaError, nearest

MANIFEST = "checkpoints.json"
MAIN = "main"
_ID = re.compile(r"[A-Za-z0-9_][\w.-]{0,95}/[A-Za-z0-9_][\w.-]{0,95}", re.ASCII)


@dataclass(frozen=True)
class Published:
    """One published mouse: `OWNER/NAME`, in a folder hub or (hub None) on the Hugging Face Hub."""

    repo: str
    hub: Path | None = None

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.repo) or any(bad in self.repo for bad in ("--", "..")) or self.repo.endswith(".git"):
            raise PrismaError(f"expected OWNER/NAME in letters, digits, '.', '_' and '-', found {self.repo!r}")

    @property
    def folder(self) -> Path:
        """Where a folder hub keeps this repository."""
        assert self.hub is not None
        return self.hub / f"models--{self.repo.replace('/', '--')}"

    def file(self, name: str, revision: str | None = None) -> Path:
        """A local path of one file at a revision (default `main`).

        Raises:
            PrismaError: no such hub, repository, revision or file; known ones are offered.
        """
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

        if self.hub is not None:
            self._expect_in_folder(revision or MAIN)
        try:
            local = self.hub is not None
            cache = self.hub.resolve() if self.hub else None
            return Path(hf_hub_download(self.repo, name, revision=revision, cache_dir=cache, local_files_only=local))
        except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
            where = self.hub or "the Hugging Face Hub or its cache"
            reason = str(error).strip().split("\n")[0]
            raise PrismaError(
                f"{self.repo} at {revision or MAIN} has no {name} in {where}: {type(error).__name__}, {reason}"
            ) from None

    def revisions(self) -> list[str]:
        """The labels of a repository in a folder hub: `main` and `step-000128`, sorted."""
        return sorted(ref.name for ref in (self.folder / "refs").glob("*") if not ref.name.startswith("."))

    def checkpoints(self) -> list[dict[str, Any]]:
        """The manifest, in step order: {step, revision, commit, sha256, size, fingerprint}."""
        entries: list[dict[str, Any]] = json.loads(self.file(MANIFEST).read_text())["checkpoints"]
        return entries

    def _expect_in_folder(self, revision: str) -> None:
        known = published_in(self.hub) if self.hub else []
        if self.repo not in known:
            raise PrismaError(
                f"{self.repo} is not published in the hub {self.hub}; the nearest: {nearest(self.repo, known)}"
            )
        if revision not in self.revisions() and not (self.folder / "snapshots" / revision).is_dir():
            raise PrismaError(
                f"{self.repo} has no revision {revision!r}; the nearest: {nearest(revision, self.revisions())}"
            )


def published_in(hub: Path) -> list[str]:
    """The repositories of a folder hub, sorted.

    Raises:
        PrismaError: the folder does not exist.
    """
    if not hub.is_dir():
        raise PrismaError(f"expected a folder hub at {hub}, found no such folder; `prisma publish` makes one")
    folders = (folder.name.split("--") for folder in hub.glob("models--*--*") if (folder / "refs" / MAIN).is_file())
    return sorted("/".join(parts[1:]) for parts in folders if len(parts) == 3)
