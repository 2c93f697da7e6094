"""Does a revision hold the files that a manifest states, and does the manifest's own commit state its hash?"""

from collections.abc import Iterator, Mapping

from prisma.errors import shown
from prisma.files import sha256
from prisma.publish.commits import FileRecord
from prisma.publish.manifest import hash_in
from prisma.publish.remote import is_same
from prisma.publish.sources import Source
from prisma.publish.unsafe import why_unsafe


def file_problems(wanted: tuple[FileRecord, ...], found: Mapping[str, FileRecord]) -> Iterator[str]:
    """How the files of a revision differ from those that the manifest states."""
    stated = {record.name: record for record in wanted}
    for name in sorted(stated.keys() | found.keys()):
        if name not in found:
            yield f"expected a file {shown(name)}, as in the manifest; found none"
        elif name not in stated:
            why = why_unsafe(name)
            yield f"expected only the files of the manifest; found {shown(name)}{f', {why}' if why else ''}"
        elif not is_same(found[name], stated[name]):
            there, record = found[name], stated[name]
            yield (
                f"expected {shown(name)} of {record.size} bytes of SHA-256 {shown(record.sha256)}, as in the manifest; "
                f"found {there.size} bytes of {there.sha256 or there.oid or 'a file that cannot be read'}"
            )


def message_problems(source: Source, commit: str, manifest: str) -> Iterator[str]:
    """Whether the commit that wrote the manifest states its hash. A folder hub has no messages.

    Args:
        manifest: the name of its file.
    """
    message = source.message(commit, manifest)
    if message is None:
        return
    found, there = hash_in(message, manifest), source.listing(commit)[manifest]
    digest = there.sha256 or sha256(source.folder(commit, [manifest]) / manifest)
    if found is None:
        yield f"expected a commit message that states the SHA-256 of {manifest}; found {shown(message)}"
    elif found != digest:
        yield f"expected {manifest} of SHA-256 {found}, as its commit message states; found {digest}"
