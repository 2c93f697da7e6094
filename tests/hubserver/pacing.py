"""How many requests and commits an account may make, by a clock that a test can put forward."""

import math
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime

from tests.hubserver.settings import Settings

HOUR = 3600


@dataclass
class Clock:
    ahead: float = 0.0  # seconds before the machine's clock

    def now(self) -> float:
        return time.time() + self.ahead

    def date(self) -> str:
        return datetime.fromtimestamp(self.now(), UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


@dataclass
class Pacing:
    settings: Settings
    clock: Clock
    windows: dict[tuple[str, str], tuple[float, int]] = field(default_factory=dict)  # -> (its begin, requests in it)
    commits: dict[str, deque[float]] = field(default_factory=dict)  # account -> when, in the last hour

    def request(self, bucket: str | None, account: str) -> tuple[bool, dict[str, str]]:
        """Count a request: whether it is allowed, and what the headers say about it."""
        limit = {"api": self.settings.api_requests, "resolvers": self.settings.resolver_requests}.get(bucket or "")
        if limit is None:
            return True, {}
        now, window = self.clock.now(), self.settings.window
        begin, used = self.windows.get((bucket or "", account), (now, 0))
        if now >= begin + window:
            begin, used = now, 0
        allowed = used < limit
        used += allowed
        self.windows[bucket or "", account] = (begin, used)
        wait = math.ceil(begin + window - now)
        headers = {
            "RateLimit": f'"{bucket}";r={limit - used};t={wait}',
            "RateLimit-Policy": f'"fixed window";"{bucket}";q={limit};w={window}',
        }
        return allowed, headers if allowed else {**headers, "Retry-After": str(wait)}

    def commit(self, account: str) -> bool:
        """Count a commit, if one is allowed now."""
        made, now = self.commits.setdefault(account, deque()), self.clock.now()
        while made and made[0] <= now - HOUR:
            made.popleft()
        allowed = self.settings.commits is None or len(made) < self.settings.commits
        if allowed:
            made.append(now)
        return allowed
