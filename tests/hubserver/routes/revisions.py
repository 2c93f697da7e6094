"""Branches, tags, and the history that they point into."""

import re
from typing import Any

from starlette.responses import JSONResponse, Response

from tests.hubserver.objects import Commit
from tests.hubserver.routes.files import next_page
from tests.hubserver.routing import Asked, RefusedError, route

BAD_NAME = re.compile(r"(^refs/)|(^[-/.])|(\.\.)|(//)|(@\{)|[\x00-\x20~^:?*\[\\\x7f]|([/.]$)|(\.lock$)|^$|.{201}")


def _expect_name(name: str, what: str) -> str:
    if BAD_NAME.search(name):
        raise RefusedError(400, f"Invalid reference for a {what}: {name!r}")
    return name


@route("GET", "/api/{kind}/{owner}/{name}/refs")
async def refs(asked: Asked) -> Response:
    found: dict[str, list[dict[str, str]]] = {"heads": [], "tags": [], "convert": [], "pr": []}
    for ref, commit in sorted(asked.repository().refs.items()):
        _, group, name = ref.split("/", 2)
        found[group].append({"name": ref if group == "pr" else name, "ref": ref, "targetCommit": commit})
    answer = {"branches": found["heads"], "tags": found["tags"], "converts": found["convert"]}
    return JSONResponse({**answer, **({"pullRequests": found["pr"]} if asked.flag("include_prs") else {})})


@route("GET", "/api/{kind}/{owner}/{name}/commits/{revision}")
async def commits(asked: Asked) -> Response:
    repository = asked.repository()
    rows: list[dict[str, Any]] = []
    commit: Commit | None = asked.commit(repository)
    if cursor := asked.request.query_params.get("cursor"):
        commit = repository.commit(cursor)
    while commit and len(rows) < asked.app.settings.commits_page:
        authors = [{"user": commit.author, "avatar": ""}]
        facts = {"id": commit.id, "title": commit.title, "message": commit.message, "date": commit.date}
        rows.append({**facts, "authors": authors})
        commit = repository.commit(commit.parent) if commit.parent else None
    return JSONResponse(rows, headers=next_page(asked, commit.id) if commit else {})


@route("POST", "/api/{kind}/{owner}/{name}/branch/{branch}")
async def create_branch(asked: Asked) -> Response:
    repository, given = asked.repository(write=True), await asked.json()
    ref = f"refs/heads/{_expect_name(asked['branch'], 'branch')}"
    if ref in repository.refs:
        raise RefusedError(409, f"Reference {ref} already exists")
    asked.arguments["revision"] = given.get("startingPoint") or "main"
    repository.refs[ref] = asked.commit(repository).id
    repository.save()
    return JSONResponse({})


@route("DELETE", "/api/{kind}/{owner}/{name}/branch/{branch}")
async def delete_branch(asked: Asked) -> Response:
    repository, ref = asked.repository(write=True), f"refs/heads/{asked['branch']}"
    if ref == "refs/heads/main":
        raise RefusedError(403, "Cannot delete refs/heads/main")
    if ref not in repository.refs:
        raise RefusedError(404, "Reference does not exist", "RevisionNotFound")
    del repository.refs[ref]
    repository.save()
    return JSONResponse({})


@route("POST", "/api/{kind}/{owner}/{name}/tag/{revision}")
async def create_tag(asked: Asked) -> Response:
    repository, given = asked.repository(write=True), await asked.json()
    ref = f"refs/tags/{_expect_name(given.get('tag', ''), 'tag')}"
    commit = asked.commit(repository)
    if ref in repository.refs:
        raise RefusedError(409, "Tag reference exists already")
    repository.refs[ref] = commit.id
    repository.save()
    return JSONResponse({})


@route("DELETE", "/api/{kind}/{owner}/{name}/tag/{tag}")
async def delete_tag(asked: Asked) -> Response:
    repository = asked.repository(write=True)
    if repository.refs.pop(f"refs/tags/{asked['tag']}", None) is None:
        raise RefusedError(404, "Tag does not exist", "RevisionNotFound")
    repository.save()
    return JSONResponse({})


@route("POST", "/api/{kind}/{owner}/{name}/super-squash/{revision}")
async def super_squash(asked: Asked) -> Response:
    repository, given = asked.repository(write=True), await asked.json()
    ref = f"refs/heads/{asked['revision']}"
    if ref not in repository.refs:
        raise RefusedError(404, f"Invalid rev id: {asked['revision']}", "RevisionNotFound")
    files = {path: entry._replace(last="") for path, entry in asked.commit(repository).files.items()}
    title, author = given.get("message") or "Super-squash branch", asked.account or ""
    repository.add(ref, Commit.made(None, title, "", author, asked.app.clock.date(), files))
    return JSONResponse({})
