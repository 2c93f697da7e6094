"""Which coders the app finds: those published beside their base model, and no damaged one."""

import shutil
from pathlib import Path

import pytest
import torch
from prisma_app import coders
from prisma_app.coders import coders_of
from prisma_app.library import library_of
from prisma_app.models import Mouse, Shipped
from prisma_app.state import State
from prisma_app.views import VIEWS, latents

from prisma.errors import PrismaError
from prisma.repository import ARTEFACT, MAIN, Published
from tests.app.coded import EARLY, END, coded_hub
from tests.app.conftest import DIGITS, GLYPHS
from tests.hubserver.running import serving


@pytest.fixture(scope="module")
def coded(lab: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return coded_hub(lab, tmp_path_factory)


def test_coders_are_found_by_their_base_model(coded: Path, tmp_path: Path) -> None:
    hub = Path(shutil.copytree(coded, tmp_path / "hub", symlinks=True))
    found = coders_of(Mouse(Published(DIGITS, hub)))
    assert [(one.name, one.step) for one in found] == [(EARLY, 0), (END, 40)]
    assert found[1].coder.config.width == 24
    assert coders_of(Mouse(Published(GLYPHS, hub))) == coders_of(Shipped("mice/digits")) == []
    there = Published(END, hub)
    path = there.snapshot(there.commit_of(MAIN)) / ARTEFACT
    path.unlink()
    path.write_text("{}")
    assert [one.name for one in coders_of(Mouse(Published(DIGITS, hub)))] == [EARLY]


def test_on_the_hub_they_are_those_of_the_owner(coded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = {repo: Published(repo, coded) for repo in (DIGITS, GLYPHS, END, EARLY)}
    folders = {repo: one.snapshot(one.commit_of(MAIN)) for repo, one in there.items()}
    monkeypatch.setattr(coders, "_ASKED", {})
    with serving(monkeypatch, tmp_path, folders) as hub:
        mouse = Mouse(Published(DIGITS))
        found = coders_of(mouse)
        assert [(one.name, one.step) for one in found] == [(EARLY, 0), (END, 40)]
        assert torch.equal(found[1].coder.W_dec, coders_of(Mouse(there[DIGITS]))[1].coder.W_dec)
        assert coders_of(mouse) == found and len(hub.asked("list")) == 1  # within a minute, the Hub is asked once
        assert coders_of(Mouse(Published(GLYPHS))) == []
        monkeypatch.setattr(latents, "coders_of", lambda _: found)  # the mouse itself is read from its folder
        scene = library_of(coded, DIGITS, ()).scene(State.of({"model": DIGITS, "img": "2", "change": "scale:0"}))
        view = VIEWS["latents"].view(scene)
        assert f"prisma.load_coder({END!r}, revision={found[1].published.commit!r})" in view.facts["code"]
        assert view.facts["coder"] == END and [one["name"] for one in view.facts["coders"]] == [EARLY, END]
        names: dict[str, object] = {}
        exec(view.facts["code"], names)
        answers = VIEWS["latents"].values(scene)
        assert names["changed"][0].tolist() == pytest.approx(answers["changed"], abs=1e-5)  # type: ignore[index]
        coders._ASKED.clear()
        hub.fail("500", "list", times=None)
        with pytest.raises(PrismaError, match="expected the Hub to list the sparse coders of lab; found status 500"):
            coders_of(mouse)
