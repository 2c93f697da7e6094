"""Waiting until a Space runs, and where it is served then."""

import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from prisma.errors import PrismaError
from prisma.publish.space.asking import asked
from prisma.publish.space.planning import Plan

RUNNING = "RUNNING"
ON_THE_WAY = frozenset({"BUILDING", "RUNNING_BUILDING", "APP_STARTING", "RUNNING_APP_STARTING"})
ASLEEP = frozenset({"SLEEPING", "STOPPED", "PAUSED"})
LOGS = {"BUILD_ERROR": "build", "CONFIG_ERROR": "build", "NO_APP_FILE": "build"}  # stage -> which log; else the app's
POLL = 2.0  # seconds between two questions
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


@dataclass(frozen=True)
class Address:
    """Where a Space is."""

    page: str  # on the Hub
    app: str  # what it serves
    private: bool


def expect_running(api: Any, planned: Plan, where: Address, commit: str, timeout: float, poll: float = POLL) -> str:
    """Wait until a commit of a Space runs -> the stage. One that sleeps is woken, once.

    The Hub may say for a moment that the last commit runs still; `smoke` asks the Space itself which one it is.

    Raises:
        PrismaError: it cannot be built or started (the sentence says where its log is), or the time is over.
    """
    end, woken = time.monotonic() + timeout, False
    while True:
        runtime = asked(f"read the state of {planned.space}", api.get_space_runtime, planned.space)
        stage = str(getattr(runtime.stage, "value", runtime.stage))
        if stage == RUNNING and (runtime.raw or {}).get("sha") in (None, commit):
            return stage
        if stage in ASLEEP and not woken:
            asked(f"start {planned.space}", api.restart_space, planned.space)
            woken = True
        elif stage not in {RUNNING, *ON_THE_WAY, *ASLEEP}:
            raise PrismaError(_failure(planned, where, stage, runtime.raw or {}))
        if time.monotonic() >= end:
            raise PrismaError(
                f"expected {planned.space} to run within {timeout:g} seconds; found it in the stage {stage}: run the "
                f"command again to go on waiting; its log is at {log_of(where, stage)}"
            )
        time.sleep(min(poll, max(0.01, end - time.monotonic())))


def _failure(planned: Plan, where: Address, stage: str, raw: dict[str, Any]) -> str:
    told = " ".join(str(raw.get("errorMessage") or "").split())[:300]
    return (
        f"expected {planned.space} to run; found it in the stage {stage}{f' ({told})' if told else ''}: its log is at "
        f"{log_of(where, stage)}"
    )


def log_of(where: Address, stage: str) -> str:
    """The address of the log that explains a stage."""
    return f"{where.page}?logs={LOGS.get(stage, 'container')}"


def address_of(api: Any, planned: Plan) -> str:
    """The address of what a Space serves: https, and http on this machine."""
    host = asked(f"read {planned.space}", api.space_info, planned.space).host
    if not host:
        raw = asked(f"read the state of {planned.space}", api.get_space_runtime, planned.space).raw or {}
        host = next((entry["domain"] for entry in raw.get("domains") or () if entry.get("domain")), None)
    if not host:
        label = planned.space.lower().replace("/", "-").replace(".", "-").replace("_", "-")
        host = f"{label}.static.hf.space" if planned.static else f"{label}.hf.space"
    host = host if "://" in host else f"https://{host}"
    parts = urlsplit(host)
    return f"{'http' if parts.hostname in LOOPBACK else 'https'}://{parts.netloc}{parts.path}".rstrip("/")
