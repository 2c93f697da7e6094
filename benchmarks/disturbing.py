"""One disturbance of one publication: where it takes place, what is done there, and a process that is killed at it."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.synchronize import Event
from pathlib import Path
from unittest.mock import patch

import pytest

from prisma.errors import PrismaError
from prisma.publish import audit, publish
from prisma.publish.calls import Calls
from prisma.publish.commits import Hub
from prisma.publish.folder_hub import FolderHub
from prisma.publish.plan import Plan
from prisma.publish.publishing import send
from prisma.publish.things import hub_for
from prisma.publish.watching import watch
from prisma.repository import MAIN, Published
from tests import processes
from tests.hubserver.running import TOKEN, use
from tests.publish.disturbing import OPERATIONS, before_operation, die
from tests.publish.small_plans import expect_served, remote_hub


@dataclass(frozen=True)
class Where:
    """A place to publish in, as another process can be told about it."""

    folder: Path
    url: str | None  # of a Hub; None is a folder hub

    @property
    def repo(self) -> str:
        return "lab/tiny" if self.url is None else f"lab/{self.folder.name}"

    @property
    def folder_hub(self) -> Path | None:
        return self.folder / "hub" if self.url is None else None

    def hub(self) -> Hub:
        if self.folder_hub is not None:
            return FolderHub(Published(self.repo, self.folder_hub))
        return remote_hub(self.folder, self.repo)

    def labels(self, run: Path) -> dict[str, str]:
        """What is published there of a run, or of nothing."""
        if self.folder_hub is not None and not self.folder_hub.exists():
            return {}
        return hub_for(run, self.repo, self.folder_hub).labels()

    def send(self, plan: Plan) -> bool:
        """Whether anything was written."""
        return send(plan, self.hub(), progress=False).changed

    def publish(self, run: Path) -> bool:
        """Whether anything was written."""
        return publish(run, self.repo, self.folder_hub, progress=False).changed

    def watch(self, run: Path) -> bool:
        """Whether anything was written."""
        return watch(run, self.repo, self.folder_hub).changed

    def audit(self, deep: bool) -> list[str]:
        """The problems."""
        return [finding.problem for finding in audit(self.repo, self.folder_hub, deep)]

    def expect_own_weights(self, plan: Plan) -> int:
        """Every label that exists serves the files of its own step; how many there are."""
        if self.folder_hub is not None and not self.folder_hub.exists():
            return 0
        hub, wanted = self.hub(), {step.label: step.commit for step in plan.steps}
        labels = hub.labels()
        for label, commit in labels.items():
            assert label == MAIN or hub.differing(commit, wanted[label]) == [], f"{label} serves something else"
        assert MAIN not in labels or wanted.keys() <= labels.keys(), "main before its checkpoints"
        return len(labels)

    def expect_complete(self, plan: Plan) -> None:
        """The same call completes it, and the next finds nothing to do."""
        self.send(plan)
        assert not self.send(plan), "it wrote again what was there"
        hub = self.hub()
        labels = hub.labels()
        assert labels.keys() == {MAIN, *(step.label for step in plan.steps)}
        assert hub.differing(labels[MAIN], plan.main(labels)) == []
        self.expect_own_weights(plan)
        if self.url is not None:
            expect_served(plan, self.repo)


@contextmanager
def client(url: str | None, folder: Path) -> Iterator[None]:
    """The Hub's client speaks to this Hub, and nothing waits."""
    with pytest.MonkeyPatch.context() as patches:
        if url is not None:
            use(patches, url, folder / "cache")
            patches.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
            patches.setattr(Calls, "pause", lambda *_: None)
        yield


@dataclass(frozen=True)
class Blow:
    """When a process is killed: by itself, before an operation or request, or from outside, after some seconds."""

    moment: int  # the number of the operation or request; 0 is none
    seconds: float
    operations: tuple[str, ...] = OPERATIONS  # of the file system, by their names in `os`


def doomed(where: Where, act: Callable[[], object], blow: Blow, begun: Event) -> None:
    """What a process does that is killed."""
    asked: list[object] = []
    honest = Calls._count

    def counting(calls: Calls, request: object) -> None:
        asked.append(request)
        if len(asked) == blow.moment:
            die()
        honest(calls, request)

    with client(where.url, where.folder), patch.object(Calls, "_count", counting):
        if blow.moment and where.url is None:
            before_operation(pytest.MonkeyPatch(), blow.moment, die, blow.operations)
        begun.set()
        with suppress(PrismaError):
            act()


def kill(where: Where, act: Callable[[], object], blow: Blow, *, longest: float | None = None) -> bool:
    """Do something in another process that is killed; whether it died of it.

    Args:
        longest: the seconds after which it is killed in any case, if it does not end by itself.
    """
    begun = processes.context().Event()
    child = processes.context().Process(target=doomed, args=(where, act, blow, begun))
    child.start()
    assert begun.wait(timeout=120), "it did not begin"
    if not blow.moment or longest is not None:
        child.join(longest if blow.moment else blow.seconds)
        child.kill()
    return processes.ended(child) == -signal.SIGKILL


def told(call: Callable[[], object]) -> bool:
    """Whether it succeeded; if not, it must have said why in a sentence, without the token."""
    try:
        call()
    except PrismaError as error:
        text = str(error)
        assert text.startswith("expected") or ": " in text, text
        assert "\n" not in text, text
        assert TOKEN not in text, text
        return False
    return True
