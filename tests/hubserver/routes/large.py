"""Large files: asked for on the Hub, sent to the storage, which is another origin and takes no token."""

import hashlib
import os
import re
import uuid
from pathlib import Path
from typing import Any

from starlette.responses import FileResponse, JSONResponse, Response

from tests.hubserver.objects import Entry
from tests.hubserver.routing import STORAGE, Asked, RefusedError, route
from tests.hubserver.store import Repository

LFS = "/{web}{owner}/{name}.git/info/lfs/objects"
OBJECT = "/{kind}/{owner}/{name}/{oid}"
SHA256 = re.compile(r"[0-9a-f]{64}")


def _flip(path: Path) -> None:
    """Let a file hold other bytes, as many."""
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last[0] ^ 1]))


def damaged(repository: Repository, entry: Entry) -> Entry:
    """A stored file that differs from this one in one byte, under its own hash."""
    data = bytearray(repository.content(entry).read_bytes() or b"\n")
    data[-1] ^= 1
    if entry.sha256 is None:
        return repository.kept(bytes(data))
    sha256 = hashlib.sha256(data).hexdigest()
    repository.large(sha256).write_bytes(data)
    return repository.kept_large(sha256) or entry


@route("POST", LFS + "/batch", "lfs_batch")
async def batch(asked: Asked) -> Response:
    repository, given = asked.repository(write=True), await asked.json()
    app, rows = asked.app, []
    size = max((file["size"] for file in given["objects"]), default=0)
    parts = "multipart" in given.get("transfers", []) and size >= app.settings.multipart
    for file in given["objects"]:
        row: dict[str, Any] = {"oid": file["oid"], "size": file["size"]}
        rows.append(row)
        if not SHA256.fullmatch(file["oid"]):
            row["error"] = {"code": 422, "message": f"expected a SHA-256; found {file['oid']}"}
            continue
        if repository.large(file["oid"]).exists():
            continue
        actions = f"{app.url}/{repository.web}.git/info/lfs/objects"
        place = f"{app.storage_url}/{repository.kind}/{repository.id}/{file['oid']}"
        upload: dict[str, Any] = {"href": app.signed(place)}
        if parts:
            count = -(-file["size"] // app.settings.part)
            header = {f"{number:05}": app.signed(f"{place}/{number}") for number in range(1, count + 1)}
            complete = app.signed(f"{actions}/complete/{file['oid']}")
            upload = {"href": complete, "header": {**header, "chunk_size": str(app.settings.part)}}
        row["actions"] = {"upload": upload, "verify": {"href": f"{actions}/verify"}}
    return JSONResponse({"transfer": "multipart" if parts else "basic", "objects": rows})


async def _received(asked: Asked) -> tuple[Path, str]:
    """The body in a file of its own, and its hash."""
    path, digest = asked.app.store.uploads / uuid.uuid4().hex, hashlib.sha256()
    try:
        with path.open("wb") as file:
            async for chunk in asked.request.stream():
                file.write(chunk)
                digest.update(chunk)
    except BaseException:  # the connection has ended
        path.unlink()
        raise
    return path, digest.hexdigest()


def _keep(asked: Asked, path: Path, sha256: str) -> Response:
    """Move an upload to its place.

    Raises:
        RefusedError: it is not what was announced.
    """
    if sha256 != asked["oid"]:
        path.unlink()
        raise RefusedError(400, f"BadDigest: expected {asked['oid']}; found {sha256}")
    if asked.damage:
        _flip(path)
    target = _stored(asked).large(sha256)
    target.parent.mkdir(exist_ok=True)
    path.replace(target)
    return Response(headers={"ETag": f'"{sha256}"'})


def _stored(asked: Asked) -> Repository:
    """The repository of a signed address, which needs no account."""
    asked.app.expect_signature(asked)
    found = asked.app.store.find(asked.kind, asked["owner"], asked["name"])
    if found is None:
        raise RefusedError(404, "NoSuchBucket")
    return found


@route("PUT", OBJECT, "lfs_put", STORAGE, None)
async def put(asked: Asked) -> Response:
    _stored(asked)
    return _keep(asked, *await _received(asked))


@route("PUT", OBJECT + "/{number}", "lfs_part", STORAGE, None)
async def part(asked: Asked) -> Response:
    _stored(asked)
    path, sha256 = await _received(asked)
    path.replace(_part(asked, int(asked["number"])))
    return Response(headers={"ETag": f'"{sha256}"'})


def _part(asked: Asked, number: int) -> Path:
    return asked.app.store.uploads / f"{asked['owner']}-{asked['name']}-{asked['oid']}-{number}"


@route("POST", LFS + "/complete/{oid}", "lfs_complete")
async def complete(asked: Asked) -> Response:
    _stored(asked)
    given, digest = await asked.json(), hashlib.sha256()
    whole = asked.app.store.uploads / uuid.uuid4().hex
    parts = [_part(asked, row["partNumber"]) for row in given["parts"]]
    with whole.open("wb") as file:
        for path, row in zip(parts, given["parts"], strict=True):
            data = path.read_bytes() if path.exists() else b""
            if row["etag"].strip('"') != hashlib.sha256(data).hexdigest():
                raise RefusedError(400, f"InvalidPart: {row['partNumber']}")
            file.write(data)
            digest.update(data)
    answer = _keep(asked, whole, digest.hexdigest())
    for path in parts:
        path.unlink()
    return answer


@route("POST", LFS + "/verify", "lfs_verify")
async def verify(asked: Asked) -> Response:
    repository, given = asked.repository(write=True), await asked.json()
    entry = repository.kept_large(given["oid"])
    if entry is None or entry.size != given["size"]:
        raise RefusedError(404, f"expected {given['size']} bytes; found {entry.size if entry else 'no upload'}")
    return JSONResponse({})


@route("GET HEAD", OBJECT, "lfs_get", STORAGE, None)
async def get(asked: Asked) -> Response:
    path = _stored(asked).large(asked["oid"])
    if not path.exists():
        raise RefusedError(404, "NoSuchKey")
    return FileResponse(path, headers={"ETag": f'"{asked["oid"]}"'})
