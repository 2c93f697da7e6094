"""A repository of the Hugging Face Hub as an audit reads it: its metadata, and downloads into a temporary folder."""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from prisma.bounds import NUMBERS
from prisma.errors import PrismaError, expect_packages, shown
from prisma.filesystem import remove
from prisma.publish.calls import Calls, UnansweredError
from prisma.publish.commits import File, FileRecord
from prisma.publish.remote import MOST_FILES, Remote, is_same
from prisma.publish.unsafe import is_odd_name
from prisma.repository import MODEL, kind_and_repo, name_of

T = TypeVar("T")
MOST_REPOSITORIES = int(NUMBERS["checkpoints"][1])


@dataclass
class HubSource(Remote):
    """One repository of the Hub, of anybody. `cache` is a folder of its own, which `forget` empties."""

    cache: Path = field(kw_only=True)
    is_local: bool = False

    def labels(self) -> dict[str, str]:
        refs = self.ask("list the branches", lambda: self.api.list_repo_refs(self.repo, repo_type=self.kind))
        labels = {branch.name: branch.target_commit for branch in refs.branches}
        for tag in refs.tags:
            labels[f"refs/tags/{tag.name}" if tag.name in labels else tag.name] = tag.target_commit
        return labels

    def problems(self, commit: str, *, ours: bool) -> list[str]:
        self.listing(commit)
        if commit in self.cut:
            return [f"expected at most {MOST_FILES:,} files; found more, which were not looked at"]
        return []

    def folder(self, commit: str, names: Iterable[str]) -> Path:
        from huggingface_hub import hf_hub_download

        listing, path = self.listing(commit), self.cache
        for name in names:
            if name not in listing or is_odd_name(name):
                raise PrismaError(
                    f"expected a file {shown(name)}; found {'none' if name not in listing else 'its name'}"
                )

            def fetch(name: str = name) -> str:
                return str(hf_hub_download(self.repo, name, revision=commit, cache_dir=self.cache, repo_type=self.kind))

            path = Path(self.ask(f"send {name}", fetch))
            found = File.of(name, path).record
            if not is_same(listing[name], found):
                raise PrismaError(
                    f"expected {name} of {_stated(listing[name])}, as the Hub lists it; found {_stated(found)}"
                )
            path = Path(str(path).removesuffix(name))
        return path

    def header(self, commit: str, name: str) -> Mapping[str, str]:
        found = self.ask(
            f"send the header of {name}",
            lambda: self.api.parse_safetensors_file_metadata(self.repo, name, revision=commit).metadata,
        )
        if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
            raise PrismaError(f"expected strings in the header of {name}; found others")
        return found

    def message(self, commit: str, name: str) -> str | None:
        rows = self._expanded(commit, [name])
        return rows[0].last_commit.title if rows and rows[0].last_commit else ""

    def changed_by(self, commit: str, names: Iterable[str]) -> dict[str, str]:
        rows = self._expanded(commit, list(names))
        return {row.path: row.last_commit.oid for row in rows if row.last_commit}

    def _expanded(self, commit: str, names: list[str]) -> list[Any]:
        return self.ask(
            f"tell what changed files at {shown(commit)}",
            lambda: self.api.get_paths_info(self.repo, names, expand=True, revision=commit, repo_type=self.kind),
        )

    def forget(self) -> None:
        for entry in self.cache.iterdir():
            remove(entry)

    def ask(self, what: str, call: Callable[[], T], *, once: bool = False) -> T:
        """The answer of a call. What the client cannot make sense of is a PrismaError too."""
        try:
            answer: T = super().ask(what, call, once=once)
            return answer
        except (PrismaError, UnansweredError):
            raise
        except Exception as error:  # of any kind: answers of strangers, read by the client
            text = shown(" ".join(str(error).split()), 200)
            raise PrismaError(
                f"expected the Hub to {what} of {self.repo}; found {type(error).__name__} ({text})"
            ) from None


def _stated(record: FileRecord) -> str:
    return f"{record.size} bytes of hash {record.sha256 or record.oid}"


@contextmanager
def on_the_hub(repo: str, kind: str = MODEL) -> Iterator[HubSource]:
    """A repository of the Hub, and a temporary folder for what is downloaded of it."""
    expect_packages("huggingface_hub", extra="publish")
    with tempfile.TemporaryDirectory(prefix="prisma-audit-") as cache:
        yield HubSource(repo, kind=kind, cache=Path(cache))


def named_like(pattern: str) -> list[str]:
    """The repositories of the Hub whose names begin as a pattern OWNER/START*.

    Raises:
        PrismaError: the Hub does not answer.
    """
    from huggingface_hub import HfApi

    kind, start = kind_and_repo(pattern.removesuffix("*"))
    owner, _, name = start.partition("/")

    def find() -> list[str]:
        listed = HfApi().list_models if kind == MODEL else HfApi().list_datasets
        found = listed(author=owner, search=name, limit=MOST_REPOSITORIES)
        return sorted(name_of(kind, one.id) for one in found if one.id.startswith(start))

    return Calls().ask(f"list the {kind}s of {owner}", find)
