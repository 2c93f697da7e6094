"""Which function answers a request. Patterns meet the raw path, in which an encoded slash separates nothing."""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.hubserver.objects import Commit
from tests.hubserver.store import Repository

if TYPE_CHECKING:
    from tests.hubserver.application import Application

HUB, STORAGE = "hub", "storage"  # the two origins


class RefusedError(Exception):
    """The answer is an error."""

    def __init__(self, status: int, message: str, code: str = "", headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.message = status, message
        self.headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {}), **(headers or {})}

    def answer(self) -> Response:
        return JSONResponse({"error": self.message}, self.status, self.headers)


@dataclass
class Asked:
    """A request, with what its path says and who asks."""

    app: "Application"
    request: Request
    arguments: dict[str, str]
    account: str | None  # nobody, without a token
    damage: bool = False  # a fault: keep other bytes

    def __getitem__(self, name: str) -> str:
        return self.arguments.get(name) or ""

    async def json(self) -> dict[str, Any]:
        body = await self.request.body()
        try:
            return await self.request.json() if body else {}
        except ValueError as error:
            raise RefusedError(400, f"expected JSON; found {error}") from error

    @property
    def kind(self) -> str:
        """`models`, `datasets` or `spaces`."""
        return self["kind"] or self["web"].rstrip("/") or "models"

    def flag(self, name: str) -> bool:
        return self.request.query_params.get(name, "").lower() in ("1", "true")

    def expect_account(self, owner: str = "") -> str:
        """Who asks.

        Raises:
            RefusedError: nobody, or somebody who may not write under this name.
        """
        if self.account is None:
            raise RefusedError(401, "Invalid username or password.")
        if owner in self.app.settings.foreign or self.app.settings.role != "write":
            raise RefusedError(403, f'You don\'t have the rights to write under the namespace "{owner}"')
        return self.account

    def repository(self, *, write: bool = False) -> Repository:
        """The repository that the path names.

        Raises:
            RefusedError: there is none that the account may see, or none that it may change.
        """
        return self.named(self.kind, f"{self['owner']}/{self['name']}", write=write)

    def named(self, kind: str, repo: str, *, write: bool = False) -> Repository:
        """Any repository; raises as `repository`."""
        owner, _, name = repo.partition("/")
        found = self.app.store.find(kind, owner, name)
        if found is None or (found.facts["private"] and self.account is None):
            raise RefusedError(401 if self.account is None else 404, "Repository not found", "RepoNotFound")
        if write:
            self.expect_account(owner)
        return found

    def commit(self, repository: Repository) -> Commit:
        """The commit that the path names.

        Raises:
            RefusedError: there is no such revision.
        """
        found = repository.find(self["revision"])
        if found is None:
            raise RefusedError(404, f"Invalid rev id: {self['revision']}", "RevisionNotFound")
        return found


Handler = Callable[[Asked], Awaitable[Response]]


@dataclass(frozen=True)
class Route:
    name: str
    methods: tuple[str, ...]
    pattern: re.Pattern[str]
    handler: Handler
    origin: str
    bucket: str | None  # of the rate limits


ROUTES: list[Route] = []
PARTS = {
    "kind": "(?P<kind>models|datasets|spaces)",
    "space": "(?P<kind>spaces)",
    "web": "(?P<web>(?:datasets/|spaces/)?)",
    "path": "(?P<path>.+)",
}


def route(
    methods: str, path: str, name: str = "", origin: str = HUB, bucket: str | None = "api"
) -> Callable[[Handler], Handler]:
    """Let the function answer these methods at a path like /api/{kind}/{owner}/{name}; `path` may hold slashes."""

    def part(found: re.Match[str]) -> str:
        return PARTS.get(found[1], f"(?P<{found[1]}>[^/]+)")

    pattern = re.compile(re.sub(r"\{(\w+)\}", part, path.replace(".", r"\.")))

    def register(handler: Handler) -> Handler:
        known = name or handler.__name__
        ROUTES.append(Route(known, tuple(methods.split()), pattern, handler, origin, bucket))
        return handler

    return register


def find(origin: str, method: str, raw_path: str) -> tuple[Route, dict[str, str]] | None:
    """The route of a request, and what its path says."""
    for known in ROUTES:
        if known.origin == origin and method in known.methods and (found := known.pattern.fullmatch(raw_path)):
            return known, {name: unquote(value) for name, value in found.groupdict().items() if value is not None}
    return None
