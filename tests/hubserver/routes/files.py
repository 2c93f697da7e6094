"""What a revision holds: listings, and the files themselves."""

from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qs, urlencode

from starlette.responses import FileResponse, JSONResponse, RedirectResponse, Response

from tests.hubserver.objects import Commit, Entry
from tests.hubserver.routing import Asked, RefusedError, route
from tests.hubserver.store import Repository


def next_page(asked: Asked, cursor: object) -> dict[str, str]:
    """The header that says where the next rows are."""
    request = asked.request
    kept = [(name, value) for name, value in request.query_params.multi_items() if name != "cursor"]
    query = urlencode([*kept, ("cursor", cursor)])
    return {"Link": f'<{asked.app.url}{request.scope["raw_path"].decode()}?{query}>; rel="next"'}


def _file(repository: Repository, path: str, entry: Entry, *, expand: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"type": "file", "oid": entry.oid, "size": entry.size, "path": path}
    if entry.sha256:
        row["lfs"] = {"oid": entry.sha256, "size": entry.size, "pointerSize": entry.pointer_size}
    if expand and (last := repository.commit(entry.last)):
        row["lastCommit"] = {"id": last.id, "title": last.title, "date": last.date}
    return row


def _rows(repository: Repository, commit: Commit, paths: Iterable[str], *, expand: bool) -> list[dict[str, Any]]:
    rows = []
    for path in paths:
        if entry := commit.files.get(path):
            rows.append(_file(repository, path, entry, expand=expand))
        elif oid := commit.folders.get(path):
            rows.append({"type": "directory", "oid": oid, "size": 0, "path": path})
    return rows


@route("GET", "/api/{kind}/{owner}/{name}/tree/{revision}", "tree")
@route("GET", "/api/{kind}/{owner}/{name}/tree/{revision}/{path}", "tree")
async def tree(asked: Asked) -> Response:
    repository = asked.repository()
    commit, folder, expand = asked.commit(repository), asked["path"].strip("/"), asked.flag("expand")
    if folder not in commit.folders:
        raise RefusedError(404, f"{folder} does not exist on {asked['revision']!r}", "EntryNotFound")
    above = f"{folder}/" if folder else ""
    inside = (path for path in (*commit.files, *commit.folders) if path.startswith(above) and path != folder)
    paths = sorted(path for path in inside if asked.flag("recursive") or "/" not in path[len(above) :])
    begin = int(asked.request.query_params.get("cursor", 0))
    end = begin + (asked.app.settings.expanded_page if expand else asked.app.settings.page)
    headers = next_page(asked, end) if end < len(paths) else {}
    return JSONResponse(_rows(repository, commit, paths[begin:end], expand=expand), headers=headers)


@route("POST", "/api/{kind}/{owner}/{name}/paths-info/{revision}")
async def paths_info(asked: Asked) -> Response:
    repository = asked.repository()
    commit, body = asked.commit(repository), await asked.request.body()
    if asked.request.headers.get("content-type", "").startswith("application/json"):
        given = await asked.json()
        paths, expand = given.get("paths", []), bool(given.get("expand"))
    else:
        form = parse_qs(body.decode())
        paths, expand = form.get("paths", []), form.get("expand", [""])[0].lower() in ("1", "true")
    return JSONResponse(_rows(repository, commit, [path.strip("/") for path in paths], expand=expand))


@route("HEAD GET", "/{web}{owner}/{name}/resolve/{revision}/{path}", bucket="resolvers")
async def resolve(asked: Asked) -> Response:
    repository = asked.repository()
    if repository.facts["gated"] and asked.account is None:
        raise RefusedError(401, f"Access to {repository.id} is restricted. You must be authenticated.", "GatedRepo")
    commit = asked.commit(repository)
    headers = {"X-Repo-Commit": commit.id, "Accept-Ranges": "bytes"}
    entry = commit.files.get(asked["path"])
    if entry is None:
        raise RefusedError(404, "Entry not found", "EntryNotFound", headers)
    if entry.sha256 is None:
        return FileResponse(repository.blob(entry.oid), headers={**headers, "ETag": f'"{entry.oid}"'})
    storage = f"{asked.app.storage_url}/{repository.kind}/{repository.id}/{entry.sha256}"
    linked = {"X-Linked-ETag": f'"{entry.sha256}"', "X-Linked-Size": str(entry.size), "ETag": f'"{entry.oid}"'}
    return RedirectResponse(asked.app.signed(storage), 302, {**headers, **linked})
