"""Faults on demand: which request fails next, and how. One by one, or by chance from a seed."""

import random
from dataclasses import asdict, dataclass, field
from typing import Any

MESSAGES = {
    402: "Payment required: upgrade your account to do this",
    403: "Forbidden: your token has not the required permissions",
    412: "The branch was updated since you opened this page. Please refresh and try again.",
    429: "We had to rate limit you. Please retry later",
    500: "Internal Error - We're working hard to fix this as soon as possible!",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}
KINDS = (
    "drop",  # the connection ends without an answer
    "slow",  # the answer comes `seconds` late
    "truncated_upload",  # the connection ends when half of the request has come
    "truncated_answer",  # the connection ends when half of the answer is sent
    "wrong_hash",  # other bytes are kept: of a large file under its name, of a commit's last file with their own hash
)


@dataclass
class Fault:
    """What goes wrong with the requests that it fits."""

    kind: str  # one of KINDS, or the status of the answer: "503"
    route: str = "*"  # any route
    method: str = "*"
    match: str = ""  # what the path must contain
    times: int | None = 1  # how often; None: always
    after: int = 0  # requests that it fits, which are let through first
    effect: bool = False  # whether the request does its work before the answer is lost ("drop" and statuses)
    seconds: float | None = None  # of "slow"; for a status, what Retry-After says

    def __post_init__(self) -> None:
        if self.kind not in KINDS and not (self.kind.isdigit() and 300 <= int(self.kind) < 600):
            raise ValueError(f"expected a status or one of {', '.join(KINDS)}; found {self.kind!r}")

    def fits(self, route: str, method: str, path: str) -> bool:
        return self.route in ("*", route) and self.method in ("*", method) and self.match in path

    @property
    def status(self) -> int | None:
        return int(self.kind) if self.kind.isdigit() else None

    @property
    def message(self) -> str:
        return MESSAGES.get(self.status or 0, "This request fails on demand")

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.seconds is None or self.status is None else {"Retry-After": f"{self.seconds:g}"}


@dataclass
class Chance:
    """Faults by chance, the same ones for the same seed and the same requests."""

    seed: int
    routes: dict[str, float]  # route, or * for all others -> probability
    kinds: tuple[str, ...] = ("500", "503", "drop")
    effect: float = 0.5  # of the faults that can have one
    seconds: float | None = None
    generator: random.Random = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.generator = random.Random(self.seed)

    def draw(self, route: str) -> Fault | None:
        draws = [self.generator.random() for _ in range(3)]  # always three, so that the sequence does not shift
        if draws[0] >= self.routes.get(route, self.routes.get("*", 0.0)):
            return None
        kind = self.kinds[int(draws[1] * len(self.kinds))]
        return Fault(kind, route, effect=draws[2] < self.effect, seconds=self.seconds)


class Faults:
    """The faults that are waiting, first come first served."""

    def __init__(self) -> None:
        self.waiting: list[Fault] = []
        self.chance: Chance | None = None

    def next(self, route: str, method: str, path: str) -> Fault | None:
        """The fault of this request, which is then used up."""
        fitting = [fault for fault in self.waiting if fault.fits(route, method, path)]
        found = next((fault for fault in fitting if not fault.after), None)
        for fault in fitting:
            fault.after = max(0, fault.after - 1)
        if found is None:
            return self.chance.draw(route) if self.chance else None
        if found.times is not None:
            found.times -= 1
            if found.times == 0:
                self.waiting.remove(found)
        return found

    def clear(self) -> None:
        self.waiting.clear()
        self.chance = None

    def as_json(self) -> list[dict[str, Any]]:
        return [asdict(fault) for fault in self.waiting]
