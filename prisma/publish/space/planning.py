"""Everything that a Space will hold, decided before a byte is written or sent."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from prisma import __version__
from prisma.errors import PrismaError, quoted
from prisma.files import sha256, to_json
from prisma.publish.space.card import Facts, render
from prisma.publish.space.code import APP, package_files, requirements
from prisma.publish.space.shown import copies, pinned
from prisma.repo_names import expect_repo_name
from prisma.repository import Published

LIST = "space.json"
MADE_BY = "prisma space"
HUB = "hub"  # the folder of copied mice
LARGEST = 1_000_000_000  # bytes that the Hub lets a Space hold
IMAGES, STEPS = 6, 8  # that a static Space shows of each mouse, if it has as many

Source = bytes | Path


@dataclass(frozen=True)
class Plan:
    """The files of a Space. Equal inputs and an equal installation give equal bytes."""

    space: str  # OWNER/NAME
    models: tuple[Published, ...]  # each at its commit
    static: bool
    hardware: str | None
    files: Mapping[str, Source]  # name -> the content, or a file that holds it
    hashes: Mapping[str, str]  # name -> SHA-256 of the content

    @property
    def sdk(self) -> str:
        return "static" if self.static else "gradio"

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(size_of(source) for source in self.files.values())

    @property
    def build(self) -> str:
        """What tells this build of the Space from every other: the SHA-256 of the list of its files."""
        return self.hashes[LIST]


def plan(
    space: str,
    models: Sequence[str],
    hub: Path | None = None,
    *,
    static: bool = False,
    hardware: str | None = None,
    images: int = IMAGES,
    steps: int = STEPS,
) -> Plan:
    """Decide what a Space will hold.

    Args:
        space: OWNER/NAME.
        models: published mice, `OWNER/NAME` or `OWNER/NAME@COMMIT`; none means all of the folder hub.
        hub: a folder hub, whose mice are copied into the Space; None: mice of the Hugging Face Hub, which are not.
        static: a page of views that are computed now, instead of the app.
        hardware: of the Space, as the Hub names it; a static Space has none.
        images, steps: how many images and training steps of each mouse a static Space shows.

    Raises:
        PrismaError: a name is not allowed, a mouse cannot be shown (see `shown.pinned`), or the Space is too large.
    """
    expect_repo_name(space)
    if static and hardware is not None:
        raise PrismaError(f"expected no hardware for a static Space, which runs nothing; found {hardware!r}")
    if hardware is not None:
        _expect_hardware(hardware)
    if min(images, steps) < 1:
        raise PrismaError(f"expected at least one image and one step; found {images} and {steps}")
    mice = pinned(models, hub)
    facts = Facts(space, mice, hub is not None, static, hardware)
    files: dict[str, Source] = {"README.md": render(facts).encode()}
    if static:
        # By name, because imports run one way: the app imports prisma, and this only asks it for the views of its tabs.
        files |= import_module("prisma_app.twin").files_of(mice, space.split("/")[1], images, steps)
    else:
        files |= {"app.py": APP.encode(), "requirements.txt": requirements(hardware).encode(), **dict(package_files())}
        if hub is not None:
            files |= {f"{HUB}/{name}": source for mouse in mice for name, source in copies(mouse)}
    return _listed(Plan(space, mice, static, hardware, files, {}))


def _expect_hardware(name: str) -> None:
    """Raise PrismaError if the Hub's client knows no hardware of this name."""
    from huggingface_hub import SpaceHardware

    known = [hardware.value for hardware in SpaceHardware]
    if name not in known:
        raise PrismaError(
            f"expected hardware that the Hub has ({', '.join(known)}; for a newer one, upgrade huggingface_hub); found "
            f"{quoted(name)}"
        )


def _listed(planned: Plan) -> Plan:
    """The same plan, in order, with the list of its files."""
    files = dict(sorted(planned.files.items()))
    hashes = {name: hash_of(source) for name, source in files.items()}
    facts = {
        "made_by": MADE_BY,
        "prisma": __version__,
        "hub": any(name.startswith(f"{HUB}/") for name in files),
        "models": [{"repo": mouse.repo, "commit": mouse.commit} for mouse in planned.models],
        "files": hashes,
    }
    content = to_json(facts)
    whole = {**files, LIST: content}
    made = Plan(
        planned.space, planned.models, planned.static, planned.hardware, whole, {**hashes, LIST: hash_of(content)}
    )
    if made.size > LARGEST:
        raise PrismaError(f"expected a Space of at most {LARGEST:,} bytes; found {made.size:,}: show fewer models")
    return made


def size_of(source: Source) -> int:
    """Bytes of the content of a file."""
    return len(source) if isinstance(source, bytes) else source.stat().st_size


def hash_of(source: Source) -> str:
    """SHA-256 of the content of a file."""
    return hashlib.sha256(source).hexdigest() if isinstance(source, bytes) else sha256(source)
