"""Who the user is, and what the client asks of any Hub before its work."""

from starlette.responses import JSONResponse, PlainTextResponse, Response

from tests.hubserver.cards import problems
from tests.hubserver.routing import Asked, RefusedError, route


@route("GET", "/api/whoami-v2")
async def whoami(asked: Asked) -> Response:
    if asked.account is None:
        raise RefusedError(401, "Invalid username or password.")
    settings = asked.app.settings
    token = {"displayName": "of a test", "role": settings.role, "createdAt": "2026-01-01T00:00:00.000Z"}
    facts = {"type": "user", "id": "0" * 24, "name": settings.user, "fullname": settings.user, "isPro": settings.pro}
    mail = {"email": f"{settings.user}@example.org", "emailVerified": True, "canPay": settings.pro}
    return JSONResponse({**facts, **mail, "orgs": [], "auth": {"type": "access_token", "accessToken": token}})


@route("POST", "/api/validate-yaml")
async def validate_yaml(asked: Asked) -> Response:
    given = await asked.json()
    errors, warnings = problems(given.get("content", ""), given.get("repoType", "model"))
    answer = {"errors": [{"message": text} for text in errors], "warnings": [{"message": text} for text in warnings]}
    return JSONResponse(answer, 400 if errors else 200)


@route("GET", "/api/agent-harnesses", bucket=None)
async def agent_harnesses(_: Asked) -> Response:
    return JSONResponse({"standardEnvVars": [], "harnesses": {}})


@route("HEAD GET", "/api/telemetry/{path}", bucket=None)
async def telemetry(_: Asked) -> Response:
    return PlainTextResponse("")


@route("HEAD GET", "/", bucket=None)
async def home(_: Asked) -> Response:
    return PlainTextResponse("A Hub for tests")
