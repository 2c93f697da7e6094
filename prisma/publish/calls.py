"""Requests to the Hugging Face Hub: counted, repeated while the fault may pass, and never faster than it allows.

The Hub's client repeats uploads and listings itself, but not the making of repositories, branches and commits, and it
gives up after half a minute where a limit of commits lasts an hour.
"""

import json
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from tqdm import tqdm

from prisma.errors import PrismaError, printable

T = TypeVar("T")

PASSING = frozenset({408, 429, 500, 502, 503, 504})
"""Statuses after which the same request may succeed."""
TRIES = 8  # of a request that fails without saying when to ask again
LONGEST_WAIT = 3700.0  # seconds; a limit per hour passes in this time
COMMITS_PER_HOUR = 120  # the Hub was seen to allow 128
HOUR = 3600.0  # seconds
REASONS = {
    401: "no permission: run `hf auth login`, or set HF_TOKEN to a token that may write there",
    402: "that it asks for payment ({text}): a paid account, or less that is private, is needed",
    403: "no permission ({text}): the token must be allowed to write there",
    404: "no such repository, revision or file, or no permission to see it ({text}): check the name and the token",
    412: "that somebody else changed the branch meanwhile: publish again",
}
"""What a refusal means, and what to do, by status."""
OFFLINE = "that HF_HUB_OFFLINE is set: unset it to use the Hub"
UNREACHABLE = "no connection to it ({text}): connect to the network, and publish again"
_LONGEST_TEXT = 300  # characters of the Hub's words in a message
_SECONDS_LEFT = re.compile(r"\br=(\d+)\s*;\s*t=(\d+)")
_TOKEN = re.compile(r"\b(?:hf|api_org)_\w+")


class UnansweredError(Exception):
    """A request may or may not have taken effect: its answer was lost, or was a fault of the server."""


class RefusedError(PrismaError):
    """The Hub's refusal, in a sentence. `status` is that of HTTP."""

    status: int | None = None

    @classmethod
    def of(cls, what: str, status: int, text: str) -> "RefusedError":
        error = cls(f"expected the Hub to {what}; found {_reason(status, text)}")
        error.status = status
        return error


class UnreachableError(PrismaError):
    """The Hub did not answer a question after all tries."""


def _tell(text: str) -> None:
    """Write a line on stderr, above any bar."""
    tqdm.write(text, file=sys.stderr)


@dataclass
class Calls:
    """How one publication talks to the Hub.

    `sleep` and `clock` are replaced in tests of waiting. None sleeps until `stop` is called from another thread.
    """

    say: Callable[[str], None] = _tell
    sleep: Callable[[float], None] | None = None
    clock: Callable[[], float] = time.time
    commits_per_hour: int = COMMITS_PER_HOUR
    requests: int = 0
    commits: deque[float] = field(default_factory=deque)  # when those of the last hour were made
    _counted: list[Any] = field(default_factory=list, repr=False)  # sessions of the client that count for us
    _stopped: threading.Event = field(default_factory=threading.Event, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)  # the client sends files in threads
    _answered: bool = field(default=False, repr=False)  # whether there is a network at all

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Within, every request of the Hub's client to the Hub is counted.

        Those that the client repeats by itself too, except after a loss of the connection within one call.
        """
        try:
            yield
        finally:
            for session in self._counted:
                session.event_hooks["request"].remove(self._count)
            self._counted.clear()

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
            self._attach()
            try:
                answer = call()
            except Exception as error:
                fault = _Fault.of(error)
                if fault is None:  # ours
                    raise
            else:
                self._answered = True
                return answer
            tries += 1
            self._expect_passing(what, fault)
            if fault.status != 429:  # which says that nothing was done
                if once:
                    raise UnansweredError(fault.text)
                if tries >= TRIES:
                    raise UnreachableError(
                        f"expected the Hub to {what}; found {fault.text}, {TRIES} times: try again later"
                    )
            self._wait(what, fault.wait or min(2.0 ** (tries - 1), 60.0), fault.text)

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

    def pause(self, seconds: float) -> None:
        """Sleep. Raises PrismaError if `stop` is called meanwhile."""
        if self.sleep:
            self.sleep(seconds)
        elif self._stopped.wait(seconds):
            raise PrismaError("expected to publish everything; found that it was stopped: publish again")

    def begin(self) -> None:
        """Let `pause` sleep from now on."""
        self._stopped.clear()

    def stop(self) -> None:
        """End every `pause` of other threads."""
        self._stopped.set()

    def _expect_passing(self, what: str, fault: "_Fault") -> None:
        """Raise PrismaError if the same call will not succeed soon."""
        self._answered |= fault.status is not None
        if fault.status is not None and fault.status not in PASSING:
            raise RefusedError.of(what, fault.status, fault.words)
        if fault.is_final or (fault.is_unreachable and not self._answered):  # not an interruption
            raise UnreachableError(f"expected the Hub to {what}; found {fault.text}")

    def _attach(self) -> None:
        """Count what the client's session sends; it makes a new one after a fault of the network."""
        from huggingface_hub import get_session

        session = get_session()
        with self._lock:
            if not any(session is known for known in self._counted):
                session.event_hooks["request"].append(self._count)
                self._counted.append(session)

    def _count(self, request: Any) -> None:
        from huggingface_hub import constants

        with self._lock:
            self.requests += str(request.url).startswith(f"{constants.ENDPOINT}/")

    def _wait(self, what: str, seconds: float, problem: str) -> None:
        seconds = min(seconds, LONGEST_WAIT)
        if seconds > 60:
            self.say(
                f"waiting {seconds / 60:.0f} minutes for the Hub to {what} ({problem}); to stop and go on later is safe"
            )
        self.pause(seconds)


@dataclass(frozen=True)
class _Fault:
    """What went wrong with a call, in text alone: an error of the client holds the token."""

    status: int | None  # of the Hub's answer; None if there was none
    words: str  # of the Hub, or of the error
    wait: float | None = None  # seconds after which the Hub says to ask again
    is_unreachable: bool = False  # no connection could be made
    is_final: bool = False  # the same call will fail again

    @property
    def text(self) -> str:
        return f"status {self.status}: {self.words}" if self.status else self.words

    @classmethod
    def of(cls, error: Exception) -> "_Fault | None":
        """None: it is no error of the Hub's client."""
        import httpx2
        from huggingface_hub.errors import OfflineModeIsEnabled

        if isinstance(error, PrismaError | UnansweredError):
            return None
        while getattr(error, "response", None) is None and not isinstance(error, httpx2.RequestError):
            if not isinstance(error.__cause__, Exception):
                break
            error = error.__cause__  # such as of an upload in a thread
        words = _words(getattr(error, "server_message", None) or str(error) or type(error).__name__)
        response = getattr(error, "response", None)
        if response is not None:
            headers = {name.lower(): value for name, value in response.headers.items()}
            return cls(response.status_code, words, _wait_of(headers, words))
        if isinstance(error, OfflineModeIsEnabled):
            return cls(None, OFFLINE, is_final=True)
        if isinstance(error, httpx2.RequestError | ConnectionError | TimeoutError):
            if isinstance(
                error, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.ProxyError | httpx2.UnsupportedProtocol
            ):
                return cls(None, UNREACHABLE.format(text=words), is_unreachable=True)
            return cls(None, words)
        if isinstance(error, json.JSONDecodeError):
            return cls(None, f"an answer that is no JSON ({words})")
        is_of_the_client = isinstance(error, OSError | ValueError | RuntimeError | httpx2.InvalidURL)
        return cls(None, words, is_final=True) if is_of_the_client else None


def _words(text: str) -> str:
    """Text in a line, without tokens."""
    from huggingface_hub import get_token

    text = " ".join(text.split())
    if token := get_token():
        text = text.replace(token, "TOKEN")
    return printable(_TOKEN.sub("TOKEN", text), _LONGEST_TEXT)


def _reason(status: int, text: str) -> str:
    return REASONS.get(status, "status {status}: {text}").format(status=status, text=text)


def _wait_of(headers: dict[str, str], text: str) -> float | None:
    """The seconds after which the Hub says to ask again; None if it says nothing."""
    if (match := _SECONDS_LEFT.search(headers.get("ratelimit", ""))) and int(match[1]) == 0:
        return int(match[2]) + 1.0
    after = headers.get("retry-after", "")
    if after.isascii() and after.isdecimal() and len(after) < 6:
        return int(after) + 1.0
    if after and (seconds := _until(after)) is not None:
        return seconds + 1.0
    return HOUR + 1 if "commits" in text and "hour" in text else None


def _until(date: str) -> float | None:
    """The seconds until a date of HTTP; None if it is none."""
    try:
        when = parsedate_to_datetime(date)
    except ValueError:
        return None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.now(UTC)).total_seconds())
