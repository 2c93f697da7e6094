"""What a tab is: a title, a help text, a view, and, where it needs them, controls and a state of its own.

To add a tab, write `tabs/NAME.py` with a `TAB`, and add NAME to the table in `tabs/__init__.py`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from prisma.view.browser import View
from prisma_app.session import Session
from prisma_app.subject import Picture, Subject

Controls = Mapping[str, Any]
"""Name -> Gradio component."""

Updates = dict[Any, Any]
"""Gradio component -> its new value, or `gr.update(...)`."""


@dataclass(frozen=True)
class Event:
    """One thing that a visitor can do with a tab's controls."""

    listen: Callable[..., Any]  # of a component: `dropdown.input`
    change: Callable[..., Any]  # (session, *values of the inputs) -> the tab's new state; may raise PrismaError
    inputs: Sequence[Any]  # components


class Tab(ABC):
    """One tab. It stores nothing: what a visitor has chosen is in the session."""

    TITLE: ClassVar[str]
    HELP: ClassVar[str]  # Markdown, shown above the view
    VIEWER: ClassVar[str]  # one of `prisma.view.browser.VIEWERS`

    @abstractmethod
    def view(self, session: Session) -> View:
        """What the tab shows. Raises PrismaError if it cannot show this model; the page then shows the message."""

    def state(self, subject: Subject, picture: Picture, before: Session | None) -> Any:
        """This tab's state after a visitor has chosen a model or an image.

        Args:
            before: the session until now, from which choices may be kept; None on the first view.
        """
        return None

    def lay_out(self) -> Controls:
        """Make this tab's controls, inside its `gr.Tab`, between the help text and the view."""
        return {}

    def events(self, controls: Controls) -> Sequence[Event]:
        """What the controls do."""
        return ()

    def updates(self, controls: Controls, before: Session | None, after: Session) -> Updates:
        """New values of the controls that differ between two sessions; of all of them without `before`."""
        return {}
