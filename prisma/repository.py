"""Reading what is published, file by file: from a folder hub, the Hugging Face Hub, or the Hub's cache when offline.

A folder hub is a Hugging Face cache folder, so all three are read by one call of the Hub's own client.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from prisma.checkpoint import read_tensors
from prisma.downloads import download
from prisma.errors import PrismaError, by_number, nearest, quoted, shown
from prisma.files import CLUTTER, read_json
from prisma.filesystem import given
from prisma.reading import read_bytes
from prisma.repo_names import expect_repo_name, is_repo_name
from prisma.run_folder import PROBE

MANIFEST = "checkpoints.json"
ARTEFACT = "manifest.json"
"""The manifest of what is published beside mice: data sets, and what belongs to a model."""
MAIN = "main"
MODEL, DATASET = "model", "dataset"
"""The kinds of repositories, as the Hub's client calls them."""
MICE = Path(__file__).parent / "mice"
"""Checkpoint folders of the mice in the package: the final weights of recipes (`make mice`)."""
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Published:
    """One repository, such as a published mouse: `OWNER/NAME`, in a folder hub or (hub None) on the Hugging Face Hub.

    With a `commit`, that commit of main is read instead of the newest one.
    """

    repo: str
    hub: Path | None = None
    commit: str | None = None
    kind: str = MODEL

    def __post_init__(self) -> None:
        if self.hub is not None:
            object.__setattr__(self, "hub", given(self.hub))
        expect_repo_name(self.repo)

    @property
    def folder(self) -> Path:
        """The folder of this repository in a folder hub."""
        assert self.hub is not None
        return self.hub / f"{self.kind}s--{self.repo.replace('/', '--')}"

    def snapshot(self, commit: str) -> Path:
        """The folder of a commit's files in a folder hub."""
        if not _COMMIT.fullmatch(commit):
            raise PrismaError(f"expected a commit of 40 hex digits; found {quoted(commit)}")
        return self.folder / "snapshots" / commit

    def commit_of(self, label: str) -> str:
        """What a label of a folder hub names: the id of a commit, if nobody damaged it."""
        return read_bytes(self.folder / "refs" / label).decode(errors="replace")

    def file(self, name: str, revision: str | None = None, hint: str = "") -> Path:
        """The local path of one file at a revision: a label (default: this mouse's commit, or `main`) or a commit id.

        Args:
            hint: what the message adds if the Hugging Face Hub has no such repository or file.

        Raises:
            PrismaError: no such hub, repository, revision or file; for a folder hub, the nearest names are given.
        """
        if revision == "" or not isinstance(revision, str | None):
            found = "an empty one" if revision == "" else quoted(revision)
            raise PrismaError(f"expected a revision, such as main or step-000128; found {found}")
        revision = revision if revision is not None else self.commit or MAIN
        if self.hub is None:
            return download(self.repo, name, revision, hint, kind=self.kind)
        self._expect_file(name, revision)
        return self._in_folder_hub(name, revision)

    def _in_folder_hub(self, name: str, revision: str) -> Path:
        from huggingface_hub import hf_hub_download

        assert self.hub is not None
        try:
            cache = self.hub.resolve()
            return Path(
                hf_hub_download(
                    self.repo, name, revision=revision, cache_dir=cache, local_files_only=True, repo_type=self.kind
                )
            )
        except (OSError, ValueError) as error:
            reason = str(error).strip().split("\n")[0]
            raise PrismaError(
                f"{self.repo} at {revision} has no {name} in {self.hub} ({type(error).__name__}: {reason})"
            ) from None

    def revisions(self) -> list[str]:
        """The labels of a repository in a folder hub: `main`, and `step-000128` in step order; no hidden files."""
        refs = (self.folder / "refs").glob("*")
        names = (ref.name for ref in refs if ref.is_file() and ref.name[0] != "." and ref.name not in CLUTTER)
        return sorted(names, key=by_number)

    def checkpoints(self) -> list[dict[str, Any]]:
        """The checkpoints of the manifest, in step order: {step, revision, commit, sha256, size, fingerprint, files}.

        Raises:
            PrismaError: the manifest is missing or is not one, or another run is taking the place of this one.
        """
        path = self.file(MANIFEST)
        try:
            manifest = read_json(path)
            entries: list[dict[str, Any]] = sorted(manifest["checkpoints"], key=lambda entry: entry["step"])
        except (ValueError, KeyError, TypeError):
            raise PrismaError(
                f"expected a list of checkpoints, each with its step, in {MANIFEST} of {self.repo}; found none"
            ) from None
        if manifest.get("replaced_by"):
            raise PrismaError(
                f"expected the revisions of one run in {self.repo}; found that those of run "
                f"{shown(manifest['replaced_by'])} are taking their place: wait until publishing has finished, or "
                "publish that run again"
            )
        return entries

    def probe(self) -> tuple[Tensor, Tensor]:
        """The probe: test images [n, channel, height, width] in [0, 1] and their labels [n].

        Raises:
            PrismaError: the probe is missing, or lacks images or labels.
        """
        tensors, _ = read_tensors(self.file(PROBE))
        if not {"images", "labels"} <= set(tensors):
            raise PrismaError(f"expected images and labels in {PROBE} of {self.repo}; found {', '.join(tensors)}")
        return tensors["images"], tensors["labels"]

    def expect_labels(self) -> None:
        """Raise PrismaError, with the nearest names, unless this repository is published in the folder hub."""
        assert self.hub is not None
        known = repositories_in(self.hub, self.kind)
        if not self.revisions():
            other = Published(self.repo, self.hub, kind=DATASET if self.kind == MODEL else MODEL)
            there = f"; there is a {other.kind} {name_of(other.kind, self.repo)}" if other.revisions() else ""
            raise PrismaError(
                f"{name_of(self.kind, self.repo)} is not published in the hub {self.hub}{there}; the nearest: "
                f"{nearest(self.repo, known)}"
            )

    def _expect_file(self, name: str, revision: str) -> None:
        self.expect_labels()
        labels = self.revisions()
        is_commit = _COMMIT.fullmatch(revision) and self.snapshot(revision).is_dir()
        if revision not in labels and not is_commit:
            raise PrismaError(
                f"{self.repo} has no revision {quoted(revision)}; the nearest: {nearest(revision, labels)}"
            )
        snapshot = self.snapshot(revision if is_commit else self.commit_of(revision))
        if not (snapshot / name).is_file():
            files = [path.relative_to(snapshot).as_posix() for path in snapshot.rglob("*") if path.is_file()]
            raise PrismaError(
                f"{self.repo} at {revision} has no file {quoted(name)}; the nearest: {nearest(name, files)}"
            )


def kind_and_repo(name: str) -> tuple[str, str]:
    """What a name means, as in the Hub's addresses: `datasets/OWNER/NAME` is a data set, `OWNER/NAME` a model."""
    start = f"{DATASET}s/"
    return (DATASET, name.removeprefix(start)) if name.startswith(start) and name.count("/") == 2 else (MODEL, name)


def name_of(kind: str, repo: str) -> str:
    """The name that `kind_and_repo` takes apart."""
    return repo if kind == MODEL else f"{kind}s/{repo}"


def published_in(hub: Path) -> list[str]:
    """The mice in a folder hub, sorted: the model repositories without those of a tuned lens or the like.

    Raises:
        PrismaError: the folder does not exist.
    """
    return [repo for repo in repositories_in(hub) if not _is_artefact(Published(repo, hub))]


def _is_artefact(published: Published) -> bool:
    try:
        return (published.snapshot(published.commit_of(MAIN)) / ARTEFACT).is_file()
    except PrismaError:  # damaged, which whoever reads it is told
        return False


def repositories_in(hub: Path, kind: str = MODEL) -> list[str]:
    """The repositories of a kind in a folder hub, sorted.

    Raises:
        PrismaError: the folder does not exist.
    """
    hub = given(hub)
    if not hub.is_dir():
        raise PrismaError(f"expected a folder hub at {hub}; found no such folder; `prisma publish` makes one")
    folders = (folder.name.split("--") for folder in hub.glob(f"{kind}s--*--*") if (folder / "refs" / MAIN).is_file())
    return sorted(repo for parts in folders if is_repo_name(repo := "/".join(parts[1:])))
