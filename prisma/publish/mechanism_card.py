"""Write a mechanism card: into a folder, or into `main` of a published mouse, in one commit."""

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from prisma.checkpoint import WEIGHTS
from prisma.errors import PrismaError
from prisma.files import write_atomic
from prisma.filesystem import given, sentences
from prisma.mechanisms.findings import SOURCE, Mechanism
from prisma.mechanisms.page import PICTURES, section
from prisma.mechanisms.pictures import pictures
from prisma.publish.commits import File, FileRecord, Hub
from prisma.publish.manifest import Manifest, message_with
from prisma.publish.mechanism_section import card_with_section, rendered_files, stale_pictures
from prisma.publish.prose import CARD
from prisma.publish.signing import ENDING, Signer
from prisma.publish.things import hub_for
from prisma.reading import read_bytes
from prisma.repository import MAIN, MANIFEST


@dataclass(frozen=True)
class MechanismReport:
    """What was done with a published mouse."""

    repo: str
    changed: bool  # False: it has this mechanism card already
    commit: str  # of main
    files: tuple[str, ...] = ()  # that are written
    removed: tuple[str, ...] = ()  # pictures of a card before it


def files_of(card: Mechanism) -> tuple[File, ...]:
    """All files of a mechanism card, the pictures drawn anew."""
    drawn = sorted(pictures(card).items())
    return (*rendered_files(card), *(File.of(name, data) for name, data in drawn))


def expect_own_files(folder: Path) -> None:
    """Raise PrismaError unless `write_mechanism` can write into a folder.

    It cannot into a commit of a folder hub, whose files nobody may change, or where a model card has one mark
    without the other.
    """
    if folder.resolve().parent.name == "snapshots" or (folder / WEIGHTS).is_symlink():
        raise PrismaError(
            f"expected a folder with files of its own; found {folder}, a commit of a hub, which stays as it is: give "
            "the name OWNER/NAME and --hub, or a folder with --out"
        )
    if (folder / CARD).is_file():
        card_with_section(read_bytes(folder / CARD), "", str(folder / CARD))


def write_mechanism(card: Mechanism, folder: Path) -> tuple[Path, ...]:
    """Write the files of a mechanism card into a folder, and its section into the model card if one lies there.

    Each file is written whole or not at all; `mechanism.json`, on which the others depend, is the last. Pictures of a
    card before that this one does not have are removed then.

    Raises:
        PrismaError: a model card whose marks are broken (before anything is written), or no room.
    """
    folder = given(folder)
    readme, files = folder / CARD, list(files_of(card))
    if readme.is_file():
        files.append(File.of(CARD, card_with_section(read_bytes(readme), section(card), str(readme))))
    files.sort(key=lambda file: file.name == SOURCE)
    with sentences(folder):
        for file in files:
            write_atomic(folder / file.name, b"".join(file.chunks()))
        pictures_there = [path.relative_to(folder).as_posix() for path in folder.glob(f"{PICTURES}/*.png")]
        for name in stale_pictures(card, pictures_there):
            (folder / name).unlink()
    return tuple(folder / file.name for file in files)


def publish_mechanism(
    card: Mechanism, repo: str, hub: str | Path | None = None, *, sign: str | Path | None = None, dry_run: bool = False
) -> MechanismReport:
    """Put a mechanism card into `main` of a published mouse: its files, and a section of the model card.

    The manifest states the new files. A second call replaces the section; with the same card it changes nothing.
    Publishing the run again leaves all of it there.

    Args:
        repo: OWNER/NAME.
        hub: a folder hub; None is the Hugging Face Hub.
        sign: the file of a private key, with which the manifest is signed again.
        dry_run: only say which files would be written.

    Raises:
        PrismaError: no such mouse, other weights than those of the card, a model card whose marks are broken, or what
            `publish` raises.
    """
    where = given(hub) if hub is not None else None
    signer = Signer.of(sign) if sign else None
    with TemporaryDirectory() as temporary, sentences(where or Path(temporary)):
        writer = hub_for(Path(temporary), repo, where)
        labels = writer.labels()
        beside = files_of(card)
        changed, removed, _ = _changes(card, writer, beside)
        if not (changed or removed) or dry_run:
            return MechanismReport(repo, False, labels[MAIN], tuple(file.name for file in changed), removed)
        with writer.writing():
            changed, removed, manifest = _changes(card, writer, beside)  # again: another process may have written
            new = File.of(MANIFEST, replace(manifest, files=_records(manifest, changed, removed)).to_json())
            signed = _signed(new, signer)
            message = message_with(f"Mechanism card of {card.images} test images", new.sha256)
            commit = writer.amend((*changed, new, *signed), message, removed)
    return MechanismReport(repo, True, commit, tuple(file.name for file in changed), removed)


def _changes(card: Mechanism, hub: Hub, beside: tuple[File, ...]) -> tuple[tuple[File, ...], tuple[str, ...], Manifest]:
    """The files that `main` lacks or has otherwise, the pictures that it has of a card before, and its manifest."""
    manifest = _manifest(hub)
    stated = {record.name: record for record in manifest.files}
    files = (_readme(card, hub, manifest), *beside)
    changed = tuple(file for file in files if stated.get(file.name) != file.record)
    return changed, stale_pictures(card, stated), manifest


def _manifest(hub: Hub) -> Manifest:
    data = hub.read(MANIFEST) if MAIN in hub.labels() else None
    if data is None:
        raise PrismaError(f"expected a published mouse {hub.repo} in {hub.place}; found no {MANIFEST} there")
    return Manifest.parse(data)


def _readme(card: Mechanism, hub: Hub, manifest: Manifest) -> File:
    """The model card with the section."""
    stated = next((record.sha256 for record in manifest.files if record.name == WEIGHTS), None)
    if stated != card.weights:
        raise PrismaError(
            f"expected a mechanism card of the weights of {hub.repo}, of SHA-256 {stated}; found one of "
            f"{card.weights}: "
            "the mouse was published again meanwhile"
        )
    data = hub.read(CARD)
    if data is None:
        raise PrismaError(f"expected {CARD} in main of {hub.repo}; found none: publish it again")
    text = card_with_section(data, section(card), f"{CARD} of {hub.repo}")
    return File.of(CARD, text)


def _records(manifest: Manifest, changed: tuple[File, ...], removed: tuple[str, ...]) -> tuple[FileRecord, ...]:
    """Those of the manifest that stay, with the new ones in their places, and what is added after them."""
    new = {file.name: file.record for file in changed}
    kept = tuple(new.pop(record.name, record) for record in manifest.files if record.name not in removed)
    return (*kept, *new.values())


def _signed(manifest: File, signer: Signer | None) -> tuple[File, ...]:
    if signer is None:
        return ()
    return (File.of(f"{MANIFEST}{ENDING}", signer.signature(MANIFEST, b"".join(manifest.chunks()))),)
