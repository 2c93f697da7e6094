"""Which mice a Space shows, each pinned to a commit, and the files of a folder hub that are copied into the Space."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from prisma.checkpoint import CONFIG, WEIGHTS
from prisma.downloads import no_network
from prisma.errors import PrismaError, listed
from prisma.files import sha256
from prisma.publish.space.asking import asked
from prisma.repository import MAIN, MANIFEST, Published, published_in
from prisma.run_folder import METRICS, PROBE

NEEDED = (CONFIG, WEIGHTS, MANIFEST, PROBE)
"""The files of `main` that the app reads."""
USED = (*NEEDED, METRICS)
"""The same, and what the curves of a static Space are drawn from."""


def pinned(names: Sequence[str], hub: Path | None) -> tuple[Published, ...]:
    """The mice of these names, each at the commit that its main has now.

    Args:
        names: `OWNER/NAME`, or `OWNER/NAME@REVISION` for another commit of main; none: all of the folder hub.
        hub: a folder hub; None: the Hugging Face Hub.

    Raises:
        PrismaError: no name, no such mouse, no published mouse but another repository, or a private one.
    """
    wanted = list(dict.fromkeys(name.strip() for name in names)) or (published_in(hub) if hub is not None else [])
    if not wanted:
        raise PrismaError("expected the names of published mice, as in --models OWNER/NAME; found none")
    mice = []
    for name in wanted:
        repo, _, revision = name.partition("@")
        mice.append(_in_folder(repo, revision, hub) if hub is not None else _on_hub(repo, revision))
    if len({mouse.repo for mouse in mice}) < len(mice):
        raise PrismaError(f"expected every mouse once; found {listed(wanted)}")
    return tuple(mice)


def _in_folder(repo: str, revision: str, hub: Path) -> Published:
    mouse = Published(repo, hub)
    commit = mouse.file(CONFIG, revision or MAIN).parent.name
    for name in NEEDED:
        mouse.file(name, commit)
    return Published(repo, hub, commit)


def _on_hub(repo: str, revision: str) -> Published:
    from huggingface_hub import HfApi

    Published(repo)  # the name is checked first
    if (why := no_network()) is not None:
        raise PrismaError(f"could not ask for the commit of {repo}: {why}; --hub DIR shows the mice of a folder hub")
    found = asked(f"read {repo}", HfApi().model_info, repo, revision=revision or None)
    if found.private or found.gated:
        kind = "private" if found.private else "gated"
        raise PrismaError(
            f"expected a public mouse, because a Space reads it without a token; found that {repo} is {kind}: make it "
            "public, or show the mice of a folder hub, which are copied into the Space (--hub DIR)"
        )
    there = {file.rfilename for file in found.siblings or ()}
    if missing := [name for name in NEEDED if name not in there]:
        raise PrismaError(f"expected a mouse that `prisma publish` made; found no {listed(missing)} in {repo}")
    return Published(repo, None, found.sha)


def copies(mouse: Published) -> Iterator[tuple[str, bytes | Path]]:
    """Name in the folder hub -> content, of a mouse with all checkpoints that its manifest lists.

    Snapshots hold the files themselves, because a Space has no links.

    Raises:
        PrismaError: weights are not those of the manifest, or a link leads out of the mouse's folder.
    """
    assert mouse.commit is not None
    base = mouse.folder.name
    yield f"{base}/refs/{MAIN}", mouse.commit.encode()
    for name in USED:
        if name in NEEDED or (mouse.snapshot(mouse.commit) / name).exists():
            yield f"{base}/snapshots/{mouse.commit}/{name}", _inside(mouse, mouse.commit, name)
    for entry in mouse.checkpoints():
        try:
            label, commit, expected = str(entry["revision"]), str(entry["commit"]), str(entry["sha256"])
        except (KeyError, TypeError):
            raise PrismaError(
                f"expected a label, a commit and a hash for each checkpoint in {MANIFEST} of {mouse.repo}; found others"
            ) from None
        served = mouse.file(WEIGHTS, label).parent.name
        found = sha256(weights := _inside(mouse, commit, WEIGHTS))
        if (served, found) != (commit, expected):
            raise PrismaError(
                f"expected {label} of {mouse.repo} to serve the weights of its manifest; found others: "
                f"`prisma audit {mouse.repo} --hub {mouse.hub}` lists them"
            )
        yield f"{base}/refs/{label}", commit.encode()
        yield f"{base}/snapshots/{commit}/{CONFIG}", _inside(mouse, commit, CONFIG)
        yield f"{base}/snapshots/{commit}/{WEIGHTS}", weights


def _inside(mouse: Published, commit: str, name: str) -> Path:
    """The file behind a snapshot's link. Raises PrismaError if it lies outside the blobs of this mouse."""
    snapshot = mouse.snapshot(commit)
    real, top = Path(os.path.realpath(snapshot / name)), Path(os.path.realpath(mouse.folder.parent)) / mouse.folder.name
    if not real.is_file() or real not in (top / "blobs" / real.name, top / "snapshots" / commit / name):
        raise PrismaError(f"expected {snapshot / name} to be a file of the hub; found a link that leads elsewhere")
    return real
