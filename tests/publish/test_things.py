"""What a text or a path means, where its journal is, and what is refused."""

from pathlib import Path

import pytest

from prisma.errors import PrismaError
from prisma.publish.artefacts.artefact import Artefact
from prisma.publish.folder_hub import FolderHub
from prisma.publish.hugging_face_hub import HuggingFaceHub
from prisma.publish.plan import Plan
from prisma.publish.things import About, hub_for, planned_for, thing
from prisma.repository import DATASET, MODEL


def test_each_thing_says_what_it_is(finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "home"))
    run = thing(finished_run, "lab/tiny", None, About(), progress=False)
    assert (run.folder, run.kind) == (finished_run, MODEL)
    assert isinstance(run.plan(), Plan)
    data = thing("task:circle-7", "lab/circle", None, About(), progress=False)
    assert (data.folder, data.kind) == (tmp_path / "home" / "prisma", DATASET)
    assert isinstance(data.plan(), Artefact)
    assert thing("task:circle-7", "lab/circle", tmp_path, About(), progress=False).folder == tmp_path
    (tmp_path / "tuned_lens.json").touch()
    about = About("lab/tiny", "mit")
    assert thing(tmp_path, "lab/lens", None, about, progress=False).kind == MODEL
    assert thing(Path("task:circle-7"), "lab/circle", None, About(), progress=False).folder == Path("task:circle-7")


@pytest.mark.parametrize("about", [About("lab/tiny"), About(license="mit")])
def test_only_an_artefact_needs_to_be_told(about: About, finished_run: Path) -> None:
    for what in (finished_run, "task:circle-7"):
        with pytest.raises(PrismaError, match="expected no base model and no license for"):
            thing(what, "lab/tiny", None, about, progress=False)


def test_there_is_no_such_task() -> None:
    with pytest.raises(PrismaError, match="there is no task 'sprite'; the nearest: sprites"):
        thing("task:sprite", "lab/sprites", None, About(), progress=False)


def test_where_it_is_published(tmp_path: Path) -> None:
    folder, hub = hub_for(tmp_path, "lab/x", tmp_path / "hub", DATASET), hub_for(tmp_path, "lab/x", None, DATASET)
    assert isinstance(folder, FolderHub) and folder.folder == tmp_path / "hub" / "datasets--lab--x"
    assert isinstance(hub, HuggingFaceHub) and hub.kind == hub.remote.kind == DATASET
    assert hub.journal.path == tmp_path / "publishing" / "lab--x.jsonl"


def test_a_folder_hub_is_a_folder_and_has_no_private_repositories(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for hub, public, words in ((tmp_path / "file", False, "found a file"), (tmp_path, True, "no option `public`")):
        with (
            pytest.raises(PrismaError, match=words),
            planned_for("task:circle-7", "lab/x", hub, About(), public=public),
        ):
            pass
