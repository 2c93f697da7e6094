"""A tab without controls needs only its title, help text and view."""

from prisma_app.session import Session
from prisma_app.tab import Tab
from prisma_app.tabs import TABS

from prisma.view.browser import VIEWERS


class Bare(Tab):
    TITLE, HELP, VIEWER = "Bare", "Nothing.", "steps"
    view = TABS["attention"].view


def test_a_tab_has_no_controls_and_no_state_unless_it_says_so(session: Session) -> None:
    tab = Bare()
    assert tab.lay_out() == {}
    assert tab.events({}) == ()
    assert tab.updates({}, None, session) == {}
    assert tab.state(session.subject, session.picture, None) is None


def test_every_tab_of_the_page_has_a_title_a_help_text_and_a_viewer() -> None:
    assert len({tab.TITLE for tab in TABS.values()}) == len(TABS)
    for tab in TABS.values():
        assert tab.HELP.endswith(".")
        assert tab.VIEWER in VIEWERS
