"""Repositories: made, deleted, moved, shown to others, described."""

from typing import Any

from starlette.responses import JSONResponse, PlainTextResponse, Response

from tests.hubserver.cards import metadata
from tests.hubserver.objects import Commit
from tests.hubserver.routes import spaces
from tests.hubserver.routing import Asked, RefusedError, route
from tests.hubserver.store import NAME, Repository


def _kind(given: dict[str, Any]) -> str:
    return f"{given.get('type') or 'model'}s"


def _name(asked: Asked, given: dict[str, Any]) -> tuple[str, str]:
    return given.get("organization") or asked.app.settings.user, given.get("name") or ""


@route("POST", "/api/repos/create")
async def create_repo(asked: Asked) -> Response:
    given = await asked.json()
    kind, (owner, name), app = _kind(given), _name(asked, given), asked.app
    author = asked.expect_account(owner)
    if not (NAME.fullmatch(owner) and NAME.fullmatch(name)):
        raise RefusedError(400, f"Invalid repository name: {owner}/{name}")
    if there := app.store.find(kind, owner, name):
        text = f"You already created this {kind[:-1]} repo"
        return JSONResponse({"error": text, "url": f"{app.url}/{there.web}"}, 409)
    if kind == "spaces":
        spaces.expect_allowed(asked, owner, given.get("sdk"), given.get("hardware"))
    private = given.get("visibility") == "private" or given.get("private") is True
    facts = {"private": private, "gated": False, **(spaces.first(asked, given) if kind == "spaces" else {})}
    made = app.store.create(kind, owner, name, author, app.clock.date(), facts)
    return JSONResponse({"url": f"{app.url}/{made.web}", "name": made.id, "id": made.id})


@route("DELETE", "/api/repos/delete")
async def delete_repo(asked: Asked) -> Response:
    given = await asked.json()
    found = asked.named(_kind(given), "/".join(_name(asked, given)), write=True)
    asked.app.store.delete(found)
    return PlainTextResponse("OK")


@route("POST", "/api/repos/move")
async def move_repo(asked: Asked) -> Response:
    given = await asked.json()
    found = asked.named(_kind(given), given["fromRepo"], write=True)
    owner, _, name = given["toRepo"].partition("/")
    asked.expect_account(owner)
    if not (NAME.fullmatch(owner) and NAME.fullmatch(name)):
        raise RefusedError(400, f"Invalid repository name: {owner}/{name}")
    if asked.app.store.find(found.kind, owner, name):
        raise RefusedError(409, f"{owner}/{name} exists already")
    asked.app.store.move(found, owner, name)
    return JSONResponse({})


@route("PUT", "/api/{kind}/{owner}/{name}/settings")
async def settings(asked: Asked) -> Response:
    found, given = asked.repository(write=True), await asked.json()
    if "visibility" in given or "private" in given:
        found.facts["private"] = given.get("visibility", "private" if given.get("private") else "public") == "private"
    if "gated" in given:
        found.facts["gated"] = given["gated"]
    found.save()
    return JSONResponse({"private": found.facts["private"], "gated": found.facts["gated"]})


@route("GET", "/api/{kind}/{owner}/{name}/auth-check", "auth_check")
@route("GET", "/api/{kind}/{owner}/{name}/auth-check/{write}", "auth_check")
async def auth_check(asked: Asked) -> Response:
    asked.repository(write=bool(asked["write"]))
    return JSONResponse({})


@route("GET", "/api/{kind}/{owner}/{name}", "info")
@route("GET", "/api/{kind}/{owner}/{name}/revision/{revision}", "info")
async def info(asked: Asked) -> Response:
    found = asked.repository()
    asked.arguments.setdefault("revision", "main")
    facts = _description(asked, found, asked.commit(found))
    if wanted := asked.request.query_params.getlist("expand"):
        facts = {name: value for name, value in facts.items() if name in ("id", *wanted)}
    return JSONResponse(facts)


@route("GET", "/api/{kind}", "list")
async def listing(asked: Asked) -> Response:
    """The repositories of an owner whose names contain some text and whose cards have some tags, as far as the asking
    account may see them."""
    query, kind = asked.request.query_params, asked["kind"]
    seen = (
        found for found in asked.app.store.owned(kind, query.get("author", "")) if query.get("search", "") in found.id
    )
    public = [found for found in seen if asked.account is not None or not found.facts["private"]]
    facts = [_description(asked, found, commit) for found in public if (commit := found.find("main")) is not None]
    wanted = set(query.getlist("filter"))
    shown = [{name: one[name] for name in ("id", "private", "tags")} for one in facts if wanted <= {*one["tags"]}]
    return JSONResponse(shown)


def _description(asked: Asked, found: Repository, commit: Commit) -> dict[str, Any]:
    card = commit.files.get("README.md")
    data = metadata(found.content(card).read_bytes()) if card else {}
    tags = [*data.get("tags", [])] if isinstance(data.get("tags"), list) else []
    facts: dict[str, Any] = {
        "id": found.id,
        "author": found.owner,
        "sha": commit.id,
        "createdAt": found.facts["created"],
        "lastModified": commit.date,
        "private": found.facts["private"],
        "gated": found.facts["gated"],
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": [*tags, *([f"license:{data['license']}"] if "license" in data else [])],
        "siblings": _siblings(commit, blobs=asked.flag("blobs")),
        "cardData": data,
        **{name: data[name] for name in ("library_name", "pipeline_tag", "model-index") if name in data},
    }
    return {**facts, **spaces.description(asked, found)} if found.kind == "spaces" else facts


def _siblings(commit: Commit, *, blobs: bool) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for path, entry in sorted(commit.files.items()):
        row: dict[str, Any] = {"rfilename": path}
        if blobs:
            row |= {"size": entry.size, "blobId": entry.oid}
            if entry.sha256:
                row["lfs"] = {"sha256": entry.sha256, "size": entry.size, "pointerSize": entry.pointer_size}
        rows.append(row)
    return rows
