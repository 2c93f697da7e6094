"""What is kept between requests, within a budget of bytes: the least recently used goes first."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock, RLock
from typing import Generic, TypeVar

T = TypeVar("T")


class Cache(Generic[T]):
    """Values by key. Two requests for the same missing value make it once: the second waits for the first."""

    def __init__(self, budget: int, size: Callable[[T], int]) -> None:
        self.budget, self.size, self.held = budget, size, 0
        self._values: OrderedDict[Hashable, tuple[T, int]] = OrderedDict()
        self._making: dict[Hashable, RLock] = {}
        self._lock = Lock()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value of a key, made if it is not held. What `make` raises is raised, and nothing is kept."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key][0]
            making = self._making.setdefault(key, RLock())
        with making:
            with self._lock:
                if key in self._values:
                    return self._values[key][0]
            try:
                value = make()
                self.put(key, value)
            finally:
                with self._lock:
                    self._making.pop(key, None)
            return value

    def put(self, key: Hashable, value: T) -> None:
        """Keep a value, unless it alone is larger than the budget."""
        size = self.size(value)
        with self._lock:
            if key in self._values:
                self.held -= self._values.pop(key)[1]
            if size > self.budget:
                return
            self._values[key] = (value, size)
            self.held += size
            while self.held > self.budget:
                _, (_, gone) = self._values.popitem(last=False)
                self.held -= gone

    def find(self, key: Hashable) -> T | None:
        """The value of a key, if it is held."""
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key][0]
