"""What is made when it is first asked for, so that the address of the app is there before torch is imported."""

from collections.abc import Awaitable, Callable
from threading import Lock
from typing import Any, Generic, TypeVar

from starlette.concurrency import run_in_threadpool

T = TypeVar("T")


class Later(Generic[T]):
    """A value that whoever asks first makes; others wait. If that fails, it raises, and the next one tries again."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make, self._lock, self._made = make, Lock(), list[T]()

    def __call__(self) -> T:
        with self._lock:
            if not self._made:
                self._made.append(self._make())
            return self._made[0]


class LaterApp:
    """An ASGI application whose first request makes it."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._app = Later(make)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """One request."""
        app: Callable[..., Awaitable[None]] = await run_in_threadpool(self._app)
        await app(scope, receive, send)
