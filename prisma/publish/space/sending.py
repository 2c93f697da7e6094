"""Making or updating a Space on the Hub: one commit, nothing when nothing changed, public only once it works."""

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from prisma.errors import PrismaError
from prisma.publish.remote import sending
from prisma.publish.space.asking import asked
from prisma.publish.space.planning import Plan, Source
from prisma.publish.space.running import Address, address_of, expect_running
from prisma.publish.space.smoke import expect_answers

KEPT = frozenset({".gitattributes"})  # made by the Hub
KIND = "space"
TIMEOUT = 900.0  # seconds for a build: installing torch and Gradio takes minutes
ANSWER = 180.0  # seconds until one that runs must answer as this build


@dataclass(frozen=True)
class Report:
    """The outcome of making or updating a Space."""

    space: str
    url: str  # of its page
    app: str  # where it is served
    commit: str
    changed: bool  # False: nothing was committed
    stage: str  # as the Hub names it
    private: bool

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def send(
    planned: Plan,
    *,
    private: bool | None = None,
    timeout: float = TIMEOUT,
    say: Callable[[str], None] = lambda sentence: None,
) -> Report:
    """Make or update a Space, wait until it runs, and check what it answers.

    A new Space is private until it answers; then it becomes public, if asked.

    Args:
        private: whether it shall be; None: as it is, and a new one is private.
        timeout: seconds to wait until it runs, after the commit; it must answer soon after.
        say: told what is being done.

    Raises:
        PrismaError: the Hub refuses (the sentence says what to do), the Space does not run within the time, or what it
            answers is not what the library computes.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    say(f"making or finding the Space {planned.space}")
    page = asked(
        f"make the Space {planned.space}",
        api.create_repo,
        planned.space,
        repo_type=KIND,
        space_sdk=planned.sdk,
        space_hardware=planned.hardware,
        private=True,
        exist_ok=True,
    )
    info = asked(f"read the Space {planned.space}", api.space_info, planned.space)
    if info.sdk not in (None, planned.sdk):
        say(f"it was a Space of the SDK {info.sdk}, and becomes one of {planned.sdk}")
    if private and not info.private:
        _let_be(api, planned.space, private=True)
    commit, changed = _commit(api, planned, info.sha, say)
    _use_hardware(api, planned)
    say("waiting until it runs")
    where = Address(str(page), address_of(api, planned), bool(info.private) or bool(private))
    stage = expect_running(api, planned, where, commit, timeout)
    say(f"checking what {where.app} answers")
    expect_answers(planned, where, min(timeout, ANSWER))
    if private is False and info.private:
        _let_be(api, planned.space, private=False)
    hidden = bool(info.private) if private is None else private
    return Report(planned.space, where.page, where.app, commit, changed, stage, hidden)


def _let_be(api: Any, space: str, *, private: bool) -> None:
    kind = "private" if private else "public"
    asked(f"make {space} {kind}", api.update_repo_settings, space, repo_type=KIND, visibility=kind)


def _use_hardware(api: Any, planned: Plan) -> None:
    """Ask for hardware, where the Space has other: on creation it has what it was made with."""
    if planned.hardware is None:
        return
    runtime = asked(f"read the state of {planned.space}", api.get_space_runtime, planned.space)
    if planned.hardware not in (runtime.requested_hardware, runtime.hardware):
        what = f"get the hardware {planned.hardware} for {planned.space}"
        asked(what, api.request_space_hardware, planned.space, planned.hardware)


def _commit(api: Any, planned: Plan, head: str, say: Callable[[str], None]) -> tuple[str, bool]:
    """Make the Space hold just the planned files, in one commit -> its id, and whether one was needed."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    what = f"list the files of {planned.space}"
    there = asked(what, lambda: list(api.list_repo_tree(planned.space, repo_type=KIND, recursive=True, revision=head)))
    known = {entry.path: _identity(entry) for entry in there if hasattr(entry, "blob_id")}
    operations: list[Any] = [
        CommitOperationAdd(name, source if isinstance(source, bytes) else str(source))
        for name, source in planned.files.items()
        if known.get(name) not in (planned.hashes[name], _git_id(source))
    ]
    stale = [name for name in known if name not in planned.files and name not in KEPT]
    operations += [CommitOperationDelete(name) for name in stale]
    if not operations:
        return head, False
    say(f"sending {len(operations)} of {len(planned.files)} files")
    with sending():
        made = asked(
            f"commit to {planned.space}",
            api.create_commit,
            planned.space,
            operations,
            commit_message=f"Build {planned.build[:12]} by prisma space",
            repo_type=KIND,
            parent_commit=head,
        )
    if not getattr(made, "oid", None):
        raise PrismaError(f"expected the Hub to name the commit to {planned.space}; found no name")
    return str(made.oid), True


def _identity(entry: Any) -> str:
    """What names the content of a file on the Hub: its SHA-256 where it is large, else its id in git."""
    return str(entry.lfs.sha256 if entry.lfs else entry.blob_id)


def _git_id(source: Source) -> str:
    """The id that git gives to a content."""
    content = source if isinstance(source, bytes) else Path(source).read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
