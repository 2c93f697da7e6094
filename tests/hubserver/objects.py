"""What a repository is made of, and its ids: files, folders and commits, hashed as git does, with the time left out."""

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

INITIAL_MESSAGE = "initial commit"


class Entry(NamedTuple):
    """A file of a commit."""

    oid: str  # git's id of the file, or of the pointer if it is large
    size: int
    sha256: str | None  # of a large file, which is stored apart
    last: str  # the commit that last changed it

    @property
    def pointer_size(self) -> int:
        return len(pointer(self.sha256 or "", self.size))


def git_id(kind: str, data: bytes) -> str:
    return hashlib.sha1(f"{kind} {len(data)}\0".encode() + data).hexdigest()


def blob_id(data: bytes) -> str:
    return git_id("blob", data)


def pointer(sha256: str, size: int) -> bytes:
    """What git keeps in the place of a large file."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


def folder_ids(files: dict[str, Entry]) -> dict[str, str]:
    """Git's id of every folder; that of the repository is at "".

    Raises:
        ValueError: a path is both a file and a folder.
    """
    children: dict[str, dict[str, str]] = {"": {}}  # folder -> name -> id, or "" of a folder
    for path, entry in files.items():
        folder, _, name = path.rpartition("/")
        children.setdefault(folder, {})[name] = entry.oid
        while folder:
            above, _, name = folder.rpartition("/")
            known = children.setdefault(above, {})
            if known.get(name) == "":
                break
            known[name] = ""
            folder = above
    if both := files.keys() & children.keys():
        raise ValueError(f"{min(both)} is both a file and a folder")
    found: dict[str, str] = {}
    for folder in sorted(children, key=lambda path: (path != "", path.count("/")), reverse=True):  # the deepest first
        rows = []
        for name, oid in children[folder].items():
            full = f"{folder}/{name}" if folder else name
            mode, key = ("100644", name) if oid else ("40000", name + "/")
            rows.append((key.encode(), f"{mode} {name}\0".encode() + bytes.fromhex(oid or found[full])))
        found[folder] = git_id("tree", b"".join(row for _, row in sorted(rows)))
    return found


@dataclass(frozen=True)
class Commit:
    id: str
    parent: str | None
    title: str
    message: str
    author: str
    date: str
    files: dict[str, Entry] = field(repr=False)

    @cached_property
    def folders(self) -> dict[str, str]:
        return folder_ids(self.files)

    @classmethod
    def made(
        cls, parent: str | None, title: str, message: str, author: str, date: str, files: dict[str, Entry]
    ) -> "Commit":
        """A new commit.

        Args:
            files: every file; `last` is filled in where it is empty.

        Raises:
            ValueError: a path is both a file and a folder.
        """
        tree = folder_ids(files)[""]
        above = f"parent {parent}\n" if parent else ""
        text = f"tree {tree}\n{above}author {author} <> 0 +0000\ncommitter {author} <> 0 +0000\n\n{title}\n\n{message}"
        oid = git_id("commit", text.encode())
        known = {path: entry if entry.last else entry._replace(last=oid) for path, entry in files.items()}
        return cls(oid, parent, title, message, author, date, known)

    def as_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Commit":
        return cls(**{**data, "files": {path: Entry(*row) for path, row in data["files"].items()}})
