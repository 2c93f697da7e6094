"""Which models the app of a Space shows, and what ends it."""

import json
import sys
import types
from pathlib import Path

import pytest
from prisma_app import space

from prisma import PrismaError
from prisma.files import sha256
from prisma.repository import Published
from tests.app.conftest import DIGITS, GLYPHS

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def lists(folder: Path, *, hub: bool, **models: str) -> None:
    rows = [{"repo": repo, "commit": commit} for repo, commit in models.items()]
    (folder / space.SPACE).write_text(json.dumps({"hub": hub, "models": rows}))


def test_models_are_those_of_the_list_at_their_commits(tmp_path: Path) -> None:
    lists(tmp_path, hub=False, **{"lab/a": COMMIT, "lab/b": COMMIT[::-1]})
    assert space.listed_models(tmp_path) == [Published("lab/a", None, COMMIT), Published("lab/b", None, COMMIT[::-1])]
    lists(tmp_path, hub=True, **{"lab/a": COMMIT})
    assert space.listed_models(tmp_path) == [Published("lab/a", tmp_path / "hub", COMMIT)]


@pytest.mark.parametrize("content", ['{"models": []}', '{"models": [{"repo": "a/b"}]}', '{"models": 3}', "{}"])
def test_a_list_without_models_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / space.SPACE).write_text(content)
    with pytest.raises(PrismaError, match=r"expected a list of models, each with repo and commit, in space.json"):
        space.listed_models(tmp_path)


def test_the_page_offers_the_listed_models_and_names_its_build(lab: Path, tmp_path: Path) -> None:
    (tmp_path / "hub").symlink_to(lab)
    commit = Published(GLYPHS, lab).file("config.json").parent.name
    lists(tmp_path, hub=True, **{GLYPHS: commit})
    library = space.library_in(tmp_path)
    assert (list(library.names), library.build) == ([GLYPHS], sha256(tmp_path / space.SPACE))
    assert library.subject(None, None).rev == commit


def test_without_a_list_it_shows_the_hub_beside_it(lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PRISMA_MODEL", raising=False)
    (tmp_path / "hub").symlink_to(lab)
    library = space.library_in(tmp_path)
    assert (set(library.names), library.build) == ({DIGITS, GLYPHS}, None)


def test_a_mistake_ends_it_with_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRISMA_MODEL", "a--b/x")
    with pytest.raises(SystemExit, match=r"^The variable PRISMA_MODEL or the folder hub/ is wrong: .*which has '--'"):
        space.start(tmp_path)
    (tmp_path / space.SPACE).write_text("{}")
    with pytest.raises(SystemExit, match=r"^space.json is wrong: expected a list of models"):
        space.start(tmp_path)


def test_zero_gpu_gets_the_function_that_it_wants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    declared: list[object] = []
    monkeypatch.setitem(sys.modules, "spaces", types.SimpleNamespace(GPU=declared.append))
    (tmp_path / space.SPACE).write_text("{}")
    for value, expected in (("", 0), ("true", 1)):
        monkeypatch.setenv("SPACES_ZERO_GPU", value)
        with pytest.raises(SystemExit):
            space.start(tmp_path)
        assert len(declared) == expected
