"""Which coders the app finds: those published beside their base model, and no damaged one."""

from pathlib import Path

from prisma_app.coders import coders_of
from prisma_app.models import Mouse, Shipped

from prisma.repository import ARTEFACT, MAIN, Published
from tests.app.coded import EARLY, END, coded_hub
from tests.app.conftest import DIGITS, GLYPHS


def test_coders_are_found_by_their_base_model(lab: Path, tmp_path: Path) -> None:
    hub = coded_hub(lab, tmp_path)
    found = coders_of(Mouse(Published(DIGITS, hub)))
    assert [(one.name, one.step) for one in found] == [(EARLY, 0), (END, 40)]
    assert found[1].coder.config.width == 24
    assert coders_of(Mouse(Published(GLYPHS, hub))) == coders_of(Shipped("mice/digits")) == []
    there = Published(END, hub)
    path = there.snapshot(there.commit_of(MAIN)) / ARTEFACT
    path.unlink()
    path.write_text("{}")
    assert [one.name for one in coders_of(Mouse(Published(DIGITS, hub)))] == [EARLY]
