"""Take a published checkpoint back: its weights stay readable, under another label, and the card says why."""

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from prisma.checkpoint import CONFIG, WEIGHTS, read_checkpoint
from prisma.errors import PrismaError, nearest, printable, quoted
from prisma.filesystem import given, sentences
from prisma.publish.card import Record, render
from prisma.publish.commits import File, Hub
from prisma.publish.manifest import Manifest, Yanked, message_with
from prisma.publish.mechanism_section import section_in, with_section
from prisma.publish.plan import CARD
from prisma.publish.prose import prose_of, with_prose
from prisma.publish.signing import ENDING, Signer
from prisma.publish.things import hub_for
from prisma.reading import parse_json
from prisma.repository import MAIN, MANIFEST
from prisma.run_folder import METRICS, RECIPE, RESULTS

LONGEST_REASON = 500  # characters


@dataclass(frozen=True)
class YankReport:
    """What was taken back."""

    repo: str
    changed: bool  # False: it was taken back already, for this reason
    yanked: Yanked
    commit: str  # of main


def yank(
    repo: str,
    revision: str,
    why: str,
    hub: str | Path | None = None,
    *,
    sign: str | Path | None = None,
    today: str | None = None,
) -> YankReport:
    """Take a checkpoint back, for a reason that everybody can read.

    The label is renamed, so that nobody gets the weights by mistake and whoever needs them can still read them; the
    manifest and the card of `main` state the step, the reason and the day. Publishing the run again leaves it so.

    Args:
        repo: OWNER/NAME.
        revision: the label of a checkpoint, `step-000128`.
        why: one line of at most 500 characters.
        hub: a folder hub; None is the Hugging Face Hub.
        sign: the file of a private key, with which the manifest is signed again. Without it, a signature that is there
            stays, and is that of the manifest before.
        today: the day that is stated, 2026-11-26; by default today.

    Raises:
        PrismaError: no such label, the last checkpoint, an empty reason, or what `publish` raises.
    """
    reason = printable(" ".join(why.split()))
    if not reason or len(reason) > LONGEST_REASON:
        raise PrismaError(f"expected a reason of 1 to {LONGEST_REASON} characters; found {quoted(why)}")
    where = given(hub) if hub is not None else None
    day = today or datetime.now(UTC).date().isoformat()
    signer = Signer.of(sign) if sign else None
    with TemporaryDirectory() as temporary, sentences(where or Path(temporary)):
        writer = hub_for(Path(temporary), repo, where)
        manifest = _manifest(writer)
        if (before := next((row for row in manifest.yanked if row.revision == revision), None)) is not None:
            if before.why == reason and revision not in writer.labels() and _is_signed(writer, signer):
                return YankReport(repo, False, before, writer.labels()[MAIN])
            row, entries = replace(before, why=reason), manifest.checkpoints
        else:
            row = _row(manifest, revision, reason, day)
            entries = tuple(entry for entry in manifest.checkpoints if entry.revision != revision)
        rows = sorted({*manifest.yanked} - {before} | {row}, key=lambda row: row.step)
        changed = replace(manifest, checkpoints=entries, yanked=tuple(rows))
        with writer.writing():
            writer.rename(revision, row.moved_to)
            files = _files(writer, changed)
            message = message_with(f"Yanked {revision}: {reason}", files[-1].sha256)
            if signer:
                signature = signer.signature(MANIFEST, b"".join(files[-1].chunks()))
                files = (*files, File.of(f"{MANIFEST}{ENDING}", signature))
            commit = writer.amend(files, message)
    return YankReport(repo, True, row, commit)


def _is_signed(hub: Hub, signer: Signer | None) -> bool:
    """Whether the published manifest has the signature that is wanted; any, if none is."""
    if signer is None:
        return True
    there = hub.read(f"{MANIFEST}{ENDING}")
    return there is not None and signer.signature(MANIFEST, _read(hub, MANIFEST), there) == there


def _manifest(hub: Hub) -> Manifest:
    labels = hub.labels()
    data = hub.read(MANIFEST) if MAIN in labels else None
    if data is None:
        raise PrismaError(f"expected a published mouse {hub.repo} in {hub.place}; found no {MANIFEST} there")
    return Manifest.parse(data)


def _row(manifest: Manifest, revision: str, why: str, day: str) -> Yanked:
    entries = {entry.revision: entry for entry in manifest.checkpoints}
    if revision not in entries:
        raise PrismaError(
            f"expected the label of a published checkpoint; found {quoted(revision)}; the nearest: "
            f"{nearest(revision, entries)}"
        )
    entry = entries[revision]
    if entry.step == manifest.steps[-1]:
        raise PrismaError(
            f"expected a checkpoint before the last; found {revision}, whose weights are those of main: publish "
            "another run in its place with --replace, or remove the repository"
        )
    return Yanked(entry.step, revision, f"yanked-{revision}", entry.commit, why, day)


def _files(hub: Hub, manifest: Manifest) -> tuple[File, ...]:
    """The card and the manifest of `main`, rendered from its other files."""
    recipe, results = (_json(hub, name) for name in (RECIPE, RESULTS))
    metrics = [json.loads(line) for line in _read(hub, METRICS).splitlines()]
    record = Record(hub.repo, recipe, results, metrics, manifest.checkpoints, manifest.yanked)
    with TemporaryDirectory() as temporary:
        for name in (CONFIG, WEIGHTS):
            (Path(temporary) / name).write_bytes(_read(hub, name))
        text = render(record, read_checkpoint(Path(temporary)))
    before = _read(hub, CARD).decode(errors="replace")
    card = File.of(CARD, with_section(with_prose(text, prose_of(before)), section_in(before)).encode())
    records = tuple(card.record if record.name == CARD else record for record in manifest.files)
    return card, File.of(MANIFEST, replace(manifest, files=records).to_json())


def _json(hub: Hub, name: str) -> dict[str, object]:
    values = parse_json(_read(hub, name).decode(errors="replace"), name)
    if not isinstance(values, dict):
        raise PrismaError(f"expected a JSON object in {name} of {hub.repo}; found something else: publish it again")
    return values


def _read(hub: Hub, name: str) -> bytes:
    if (data := hub.read(name)) is None:
        raise PrismaError(f"expected {name} in main of {hub.repo}; found none: publish it again")
    return data
