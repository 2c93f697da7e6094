"""What a test says to the server itself, which is not part of the Hub and not in the log."""

from starlette.responses import JSONResponse, Response

from tests.hubserver.faults import Chance, Fault
from tests.hubserver.routing import Asked, RefusedError, route


@route("GET DELETE", "/_control/requests", bucket=None)
async def control_requests(asked: Asked) -> Response:
    """The log; DELETE empties it."""
    if asked.request.method == "DELETE":
        asked.app.log.clear()
    return JSONResponse(asked.app.log_as_json())


@route("GET POST DELETE", "/_control/faults", bucket=None)
async def control_faults(asked: Asked) -> Response:
    """The faults that wait; POST a list adds some; DELETE forgets all, and the chance of more."""
    faults = asked.app.faults
    try:
        if asked.request.method == "POST":
            faults.waiting += [Fault(**row) for row in await asked.request.json()]
    except (TypeError, ValueError) as error:
        raise RefusedError(400, str(error)) from error
    if asked.request.method == "DELETE":
        faults.clear()
    return JSONResponse(faults.as_json())


@route("POST", "/_control/chance", bucket=None)
async def control_chance(asked: Asked) -> Response:
    """Faults by chance: {"seed": 7, "routes": {"commit": 0.2, "*": 0.01}, "kinds": ["503", "drop"]}."""
    try:
        asked.app.faults.chance = Chance(**await asked.json())
    except TypeError as error:
        raise RefusedError(400, str(error)) from error
    return JSONResponse({})


@route("POST", "/_control/clock", bucket=None)
async def control_clock(asked: Asked) -> Response:
    """Put the clock forward: {"advance": 3600}."""
    asked.app.clock.ahead += (await asked.json())["advance"]
    return JSONResponse({"now": asked.app.clock.now()})


@route("POST", "/_control/settings", bucket=None)
async def control_settings(asked: Asked) -> Response:
    """Change settings by name."""
    try:
        asked.app.settings.change(await asked.json())
    except ValueError as error:
        raise RefusedError(400, str(error)) from error
    return JSONResponse({})
