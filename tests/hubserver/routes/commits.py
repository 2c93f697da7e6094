"""A commit, and the question before it: which of its files are large."""

import base64
import json
from dataclasses import dataclass
from typing import Any

from starlette.responses import JSONResponse, Response

from tests.hubserver.attributes import is_ignored, is_large
from tests.hubserver.cards import problems
from tests.hubserver.objects import Commit, Entry
from tests.hubserver.routes import spaces
from tests.hubserver.routes.large import damaged
from tests.hubserver.routing import Asked, RefusedError, route
from tests.hubserver.store import Repository

Operation = tuple[str, dict[str, Any]]


def _text(repository: Repository, commit: Commit, path: str) -> str:
    entry = commit.files.get(path)
    return repository.content(entry).read_text() if entry else ""


@route("POST", "/api/{kind}/{owner}/{name}/preupload/{revision}")
async def preupload(asked: Asked) -> Response:
    repository, given = asked.repository(write=True), await asked.json()
    commit, limit = asked.commit(repository), asked.app.settings.large
    attributes = _text(repository, commit, ".gitattributes")
    ignore = given.get("gitIgnore") or _text(repository, commit, ".gitignore")
    rows = []
    for file in given["files"]:
        path, sample = file["path"], base64.b64decode(file["sample"])
        mode = "lfs" if is_large(path, file["size"], sample, attributes, limit) else "regular"
        row = {"path": path, "uploadMode": mode, "shouldIgnore": is_ignored(path, ignore)}
        if there := commit.files.get(path):
            row["oid"] = there.sha256 or there.oid
        rows.append(row)
    return JSONResponse({"files": rows, "commitOid": commit.id})


@route("POST", "/api/{kind}/{owner}/{name}/commit/{revision}")
async def commit(asked: Asked) -> Response:
    repository = asked.repository(write=True)
    header, operations = _parsed(await asked.request.body())
    head, app, request = asked.commit(repository), asked.app, asked.flag("create_pr")
    ref = repository.ref(asked["revision"])
    if not request and (ref is None or ref.startswith("refs/tags/")):
        raise RefusedError(400, f"expected a branch; found {asked['revision']}")
    parent = header.get("parentCommit")
    if parent and parent != head.id:
        text = "A commit has happened since. Please refresh and try again."
        raise RefusedError(412, text if request else f"The branch was updated since you opened this page. {text}")
    files = _Change(asked, repository, dict(head.files)).applied(operations)
    if not app.pacing.commit(asked.account or ""):
        limit = f"{app.settings.commits} per hour"
        raise RefusedError(
            429, f"You have exceeded the rate limit for repository commits ({limit}). Retry in about 1 hour."
        )
    number = 1 + sum(name.startswith("refs/pr/") for name in repository.refs)
    title, message = header.get("summary") or "Upload files", header.get("description") or ""
    try:
        made = Commit.made(head.id, title, message, asked.account or "", app.clock.date(), files)
    except ValueError as error:
        raise RefusedError(400, str(error)) from error
    repository.add(f"refs/pr/{number}" if request or ref is None else ref, made)
    if repository.kind == "spaces" and ref == "refs/heads/main" and not request:
        spaces.begin(repository)
    answer = {"success": True, "commitOid": made.id, "commitUrl": f"{app.url}/{repository.web}/commit/{made.id}"}
    discussion = {"pullRequestUrl": f"{app.url}/{repository.web}/discussions/{number}"} if request else {}
    return JSONResponse({**answer, "hookOutput": "", **discussion})


def _parsed(body: bytes) -> tuple[dict[str, Any], list[Operation]]:
    """The header and the operations."""
    try:
        (first, header), *operations = [
            (row["key"], row["value"]) for row in map(json.loads, filter(None, body.split(b"\n")))
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise RefusedError(400, f"expected lines of JSON with key and value; found {error}") from error
    if first != "header":
        raise RefusedError(400, f"expected a header as the first line; found {first}")
    return header, operations


@dataclass
class _Change:
    """The files of a commit, as its operations change them."""

    asked: Asked
    repository: Repository
    files: dict[str, Entry]

    def applied(self, operations: list[Operation]) -> dict[str, Entry]:
        """All files after the operations.

        Raises:
            RefusedError: an operation is not possible.
        """
        actions = {
            "file": self._file,
            "lfsFile": self._large,
            "copyFile": self._copy,
            "deletedFile": self._delete,
            "deletedFolder": self._delete_folder,
        }
        for key, value in operations:
            if key not in actions:
                raise RefusedError(400, f"expected one of {', '.join(actions)}; found {key}")
            actions[key](_expect_path(value["path"]), value)
        if self.asked.damage and (added := [value["path"] for key, value in operations if key in ("file", "lfsFile")]):
            self.files[added[-1]] = damaged(self.repository, self.files[added[-1]])
        return self.files

    def _put(self, path: str, entry: Entry) -> None:
        there = self.files.get(path)
        same = there is not None and (there.oid, there.sha256) == (entry.oid, entry.sha256)
        self.files[path] = there if there and same else entry

    def _file(self, path: str, value: dict[str, Any]) -> None:
        content = value["content"]
        data = base64.b64decode(content) if value.get("encoding") == "base64" else content.encode()
        if len(data) > self.asked.app.settings.large:
            raise RefusedError(400, f"Your push was rejected because {path} is too large: use LFS for it")
        if path == "README.md":
            errors, _ = problems(data.decode("utf-8", "replace"), self.repository.kind[:-1])
            if errors:
                raise RefusedError(400, f"Your push was rejected: invalid metadata in README.md: {'; '.join(errors)}")
        self._put(path, self.repository.kept(data))

    def _large(self, path: str, value: dict[str, Any]) -> None:
        entry = self.repository.kept_large(value["oid"])
        if entry is None:
            text = "Your push was rejected because an LFS pointer pointed to a file that does not exist"
            raise RefusedError(400, f"{text}: {path} ({value['oid']})")
        self._put(path, entry)

    def _copy(self, path: str, value: dict[str, Any]) -> None:
        source = self.repository.find(value["srcRevision"]) if value.get("srcRevision") else None
        files = source.files if source else self.files
        if value["srcPath"] not in files:
            raise RefusedError(404, "A file with this name doesn't exist", "EntryNotFound")
        self._put(path, files[value["srcPath"]]._replace(last=""))

    def _delete(self, path: str, _: dict[str, Any]) -> None:
        if self.files.pop(path, None) is None:
            raise RefusedError(404, "A file with this name doesn't exist", "EntryNotFound")

    def _delete_folder(self, path: str, _: dict[str, Any]) -> None:
        inside = [name for name in self.files if name.startswith(f"{path}/")]
        if not inside:
            raise RefusedError(404, "A folder with this name doesn't exist", "EntryNotFound")
        for name in inside:
            del self.files[name]


def _expect_path(given: str) -> str:
    path = given.rstrip("/")
    if not path or any(part in ("", ".", "..", ".git") for part in path.split("/")) or "\0" in path:
        raise RefusedError(400, f"Invalid path: {given!r}")
    return path
