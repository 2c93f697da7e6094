"""A source that knows a listing, and the message of its last commit."""

from collections.abc import Mapping
from dataclasses import dataclass

from prisma.publish.commits import FileRecord
from prisma.publish.hub_source import HubSource


@dataclass
class Messages(HubSource):
    """Nothing is asked of the Hub."""

    def __init__(self, files: Mapping[str, FileRecord], message: str | None) -> None:
        self.files, self.text = files, message

    def listing(self, commit: str) -> dict[str, FileRecord]:
        return dict(self.files)

    def message(self, commit: str, name: str) -> str | None:
        return self.text
