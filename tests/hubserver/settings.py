"""What can be chosen about the Hub, at its start and while it runs."""

from dataclasses import dataclass, fields
from typing import Any


@dataclass
class Settings:
    user: str = "tester"  # whom the token belongs to
    pro: bool = False  # a paid account, which may host Gradio Spaces
    role: str = "write"  # of the token; "read" may change nothing
    foreign: tuple[str, ...] = ()  # owners under whose name the user may not write
    api_requests: int | None = None  # in each window, for each account; None: no limit, and no headers about it
    resolver_requests: int | None = None  # the same for downloads
    window: int = 300  # seconds
    commits: int | None = None  # in an hour, for each account
    page: int = 1000  # rows of a listing
    expanded_page: int = 50
    commits_page: int = 50
    large: int = 10 * 2**20  # bytes from which a file is large whatever its name
    multipart: int = 5 * 10**9  # bytes from which a large file is uploaded in parts
    part: int = 16 * 2**20  # bytes of a part
    polls: int = 2  # questions for a Space's stage until it is no longer being built
    outcome: str = "RUNNING"  # of building a Space
    space_host: str | None = None  # where the Spaces answer

    def change(self, changes: dict[str, Any]) -> None:
        """Set what is named.

        Raises:
            ValueError: a name that is no setting.
        """
        known = {field.name for field in fields(self)}
        if unknown := changes.keys() - known:
            raise ValueError(f"expected settings among {sorted(known)}; found {sorted(unknown)}")
        for name, value in changes.items():
            setattr(self, name, value)
