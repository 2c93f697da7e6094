"""Spaces: who may have one, and how it runs. Nothing is built; a Space runs after some questions for its stage."""

from typing import Any

from starlette.responses import JSONResponse, Response

from tests.hubserver.routing import Asked, RefusedError, route
from tests.hubserver.store import Repository

FREE, ZERO = "cpu-basic", "zero-a10g"
FREE_ZERO_SPACES = 2
SPACE = "/api/{space}/{owner}/{name}"


def expect_allowed(asked: Asked, owner: str, sdk: str | None, hardware: str | None) -> None:
    """What a free account may have: static Spaces, and two on ZeroGPU.

    Raises:
        RefusedError: the account would have to pay.
    """
    if sdk not in ("gradio", "docker", "static", "streamlit"):
        raise RefusedError(400, f'"sdk" must be one of [gradio, docker, static, streamlit]; found {sdk}')
    if sdk == "static" or asked.app.settings.pro:
        return
    if sdk == "gradio" and hardware == ZERO:
        others = [space for space in asked.app.store.owned("spaces", owner) if space.facts["hardware"] == ZERO]
        if len(others) < FREE_ZERO_SPACES:
            return
    text = f"A PRO subscription is required to host {sdk.capitalize()} Spaces on {hardware or FREE}"
    raise RefusedError(402, f"{text}. Static Spaces are free for everybody.")


def first(asked: Asked, given: dict[str, Any]) -> dict[str, Any]:
    """What is noted about a new Space."""
    noted: dict[str, dict[str, Any]] = {"secrets": {}, "variables": {}}
    for group, known in noted.items():
        for row in given.get(group) or []:
            known[row["key"]] = _noted(asked, group, row)
    return {"sdk": given["sdk"], "hardware": given.get("hardware") or FREE, "stage": "NO_APP_FILE", "polls": 0, **noted}


def begin(repository: Repository) -> None:
    """Build it."""
    static = repository.facts["sdk"] == "static"
    repository.facts |= {"stage": "RUNNING" if static else "BUILDING", "polls": 0}
    repository.save()


def description(asked: Asked, repository: Repository) -> dict[str, Any]:
    host = asked.app.settings.space_host
    where = {"host": host, "subdomain": repository.id.replace("/", "-").lower()} if host else {}
    return {"sdk": repository.facts["sdk"], "runtime": _runtime(repository), **where}


def _runtime(repository: Repository) -> dict[str, Any]:
    facts, domain = repository.facts, f"{repository.id.replace('/', '-').lower()}.hf.space"
    running = facts["stage"] == "RUNNING"
    return {
        "stage": facts["stage"],
        "hardware": {"current": facts["hardware"] if running else None, "requested": facts["hardware"]},
        "storage": None,
        "gcTimeout": facts.get("sleep", 172800),
        "replicas": {"current": int(running), "requested": 1},
        "devMode": False,
        "domains": [{"domain": domain, "stage": "READY"}],
    }


@route("GET", SPACE + "/runtime")
async def space_runtime(asked: Asked) -> Response:
    space = asked.repository()
    if space.facts["stage"] == "BUILDING":
        space.facts["polls"] += 1
        if space.facts["polls"] > asked.app.settings.polls:
            space.facts["stage"] = asked.app.settings.outcome
        space.save()
    return JSONResponse(_runtime(space))


@route("POST", SPACE + "/restart")
async def space_restart(asked: Asked) -> Response:
    space = _expect_dynamic(asked)
    begin(space)
    return JSONResponse(_runtime(space))


@route("POST", SPACE + "/pause")
async def space_pause(asked: Asked) -> Response:
    space = _expect_dynamic(asked)
    space.facts["stage"] = "PAUSED"
    space.save()
    return JSONResponse(_runtime(space))


def _expect_dynamic(asked: Asked) -> Repository:
    space = asked.repository(write=True)
    if space.facts["sdk"] == "static":
        raise RefusedError(400, "Static Spaces are always running")
    return space


@route("POST", SPACE + "/hardware")
async def space_hardware(asked: Asked) -> Response:
    space, given = asked.repository(write=True), await asked.json()
    if given["flavor"] not in (FREE, ZERO) and not asked.app.settings.pro:
        raise RefusedError(402, "Payment required: add a payment method to your account")
    space.facts["hardware"] = given["flavor"]
    begin(space)
    return JSONResponse(_runtime(space))


@route("POST", SPACE + "/sleeptime")
async def space_sleeptime(asked: Asked) -> Response:
    space, given = asked.repository(write=True), await asked.json()
    space.facts["sleep"] = given["seconds"]
    space.save()
    return JSONResponse(_runtime(space))


def _noted(asked: Asked, group: str, row: dict[str, Any]) -> dict[str, Any]:
    """A secret's value is not kept: the Hub never tells it."""
    value = {} if group == "secrets" else {"value": row["value"]}
    return {"key": row["key"], "description": row.get("description"), "updatedAt": asked.app.clock.date(), **value}


@route("GET POST DELETE", SPACE + "/secrets", "space_secrets")
@route("GET POST DELETE", SPACE + "/variables", "space_variables")
async def notes(asked: Asked) -> Response:
    group = asked.request.url.path.rpartition("/")[2]
    space = asked.repository(write=True)
    known: dict[str, dict[str, Any]] = space.facts[group]
    if asked.request.method != "GET":
        given = await asked.json()
        if asked.request.method == "POST":
            known[given["key"]] = _noted(asked, group, given)
        else:
            known.pop(given["key"], None)
        space.save()
    return JSONResponse(known)
