"""Requests to the Hugging Face Hub: counted, repeated while the fault may pass, and never faster than it allows.

The Hub's client repeats uploads and listings itself, but not the making of repositories, branches and commits, and it
gives up after half a minute where a limit of commits lasts an hour.
"""

import re
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from prisma.errors import PrismaError, shown

T = TypeVar("T")

PASSING = frozenset({408, 429, 500, 502, 503, 504})
"""Statuses after which the same request may succeed."""
TRIES = 8  # of a request that fails without saying when to ask again
LONGEST_WAIT = 3700.0  # seconds; a limit per hour passes in this time
COMMITS_PER_HOUR = 120  # the Hub was seen to allow 128
HOUR = 3600.0  # seconds
_SECONDS_LEFT = re.compile(r"\br=(\d+)\s*;\s*t=(\d+)")


class UnansweredError(Exception):
    """A request may or may not have taken effect: its answer was lost, or was a fault of the server."""


class UnreachableError(PrismaError):
    """The Hub did not answer a question after all tries."""


@dataclass
class Calls:
    """How one publication talks to the Hub.

    `sleep` and `clock` are replaced in tests of waiting.
    """

    say: Callable[[str], None] = print
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.time
    commits_per_hour: int = COMMITS_PER_HOUR
    requests: int = 0
    commits: deque[float] = field(default_factory=deque)  # when those of the last hour were made

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Within, every request of the Hub's client to the Hub is counted, those that it repeats too."""
        from huggingface_hub import constants, get_session

        session = get_session()

        def count(request: Any) -> None:
            self.requests += str(request.url).startswith(constants.ENDPOINT)

        session.event_hooks["request"].append(count)
        try:
            yield
        finally:
            session.event_hooks["request"].remove(count)

    def ask(self, what: str, call: Callable[[], T], *, once: bool = False) -> T:
        """The answer of a call of the Hub's client; it is repeated while its fault may pass.

        Args:
            what: what the call does, for messages: "make the branch step-000128 of lab/mouse".
            once: the call must not be repeated blindly, because it may have taken effect.

        Raises:
            PrismaError: the Hub refuses, or does not answer after all tries. It holds text alone, because an error of
                the client holds the token.
            UnansweredError: with `once`, it is not known whether the call took effect.
        """
        tries = 0
        while True:
            try:
                return call()
            except Exception as error:
                status, headers, text = _answer(error)
                if status is None and not _is_of_the_network(error):
                    raise
                problem = f"status {status}: {text}" if status else text
            if status == 429:
                self._wait(what, _wait_of(headers, text) or self._backoff(tries), problem)
            elif status is None or status in PASSING:
                if once:
                    raise UnansweredError(problem)
                if (tries := tries + 1) >= TRIES:
                    raise UnreachableError(
                        f"expected the Hub to {what}; found {problem}, {TRIES} times: try again later"
                    )
                self._wait(what, _wait_of(headers, text) or self._backoff(tries), problem)
            else:
                raise RefusedError(what, status, text)

    def expect_pace(self) -> None:
        """Wait until another commit is allowed in this hour."""
        while self.commits and self.clock() - self.commits[0] > HOUR:
            self.commits.popleft()
        if len(self.commits) >= self.commits_per_hour:
            seconds = HOUR - (self.clock() - self.commits[0]) + 1
            self._wait("take another commit", seconds, f"{len(self.commits)} commits within an hour")
            self.expect_pace()

    def committed(self) -> None:
        self.commits.append(self.clock())

    def _wait(self, what: str, seconds: float, problem: str) -> None:
        seconds = min(seconds, LONGEST_WAIT)
        if seconds > 60:
            self.say(
                f"waiting {seconds / 60:.0f} minutes for the Hub to {what} ({problem}); to stop and go on later is safe"
            )
        self.sleep(seconds)

    def _backoff(self, tries: int) -> float:
        return min(2.0**tries, 60.0)


class RefusedError(PrismaError):
    """The Hub's refusal, in a sentence. `status` is that of HTTP."""

    def __init__(self, what: str, status: int | None, text: str) -> None:
        super().__init__(f"expected the Hub to {what}; found {_reason(status, text)}")
        self.status = status


def _reason(status: int | None, text: str) -> str:
    advice = {
        401: "no permission: run `hf auth login`, or set HF_TOKEN to a token that may write there",
        402: f"that it asks for payment ({text})",
        403: f"no permission ({text}): the token must be allowed to write there",
        404: f"no such repository, revision or file, or no permission to see it ({text}): check the name and the token",
        412: "that somebody else changed the branch meanwhile: publish again",
    }
    return advice.get(status or 0, f"status {status}: {text}")


def _answer(error: Exception) -> tuple[int | None, dict[str, str], str]:
    """Status, headers (lower case) and text of the Hub's answer that an error of the client holds."""
    response = getattr(error, "response", None)
    if response is None:
        return None, {}, shown(" ".join(str(error).split()) or type(error).__name__, 300)
    message = getattr(error, "server_message", None) or str(error)
    headers = {name.lower(): value for name, value in response.headers.items()}
    return response.status_code, headers, shown(" ".join(message.split()), 300)


def _is_of_the_network(error: Exception) -> bool:
    import httpx2

    return isinstance(error, httpx2.TransportError | ConnectionError | TimeoutError)


def _wait_of(headers: dict[str, str], text: str) -> float | None:
    """The seconds after which the Hub says to ask again; None if it says nothing."""
    if (match := _SECONDS_LEFT.search(headers.get("ratelimit", ""))) and int(match[1]) == 0:
        return int(match[2]) + 1.0
    after = headers.get("retry-after", "")
    if after.isascii() and after.isdecimal() and len(after) < 6:
        return int(after) + 1.0
    return HOUR + 1 if "commits" in text and "hour" in text else None
