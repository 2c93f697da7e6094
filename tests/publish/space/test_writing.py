"""The folder of a Space: whole, or not at all, and never in the place of something else."""

from dataclasses import replace
from pathlib import Path

import pytest

from prisma import PrismaError
from prisma.publish.space import Plan, write
from prisma.publish.space.planning import _listed


@pytest.fixture
def small(planned: Plan) -> Plan:
    return _listed(replace(planned, files={"app.py": b"print(1)", "prisma/a.py": b"", "hub/x": b"model"}))


def test_it_holds_just_the_planned_files(small: Plan, tmp_path: Path) -> None:
    out = tmp_path / "new" / "space"
    assert write(small, out) is True
    found = {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert found == dict(small.files)
    assert write(small, out) is False


def test_an_earlier_space_is_replaced_with_what_its_run_left(small: Plan, tmp_path: Path) -> None:
    write(small, tmp_path / "space")
    (tmp_path / "space" / "prisma" / "__pycache__").mkdir()
    (tmp_path / "space" / "prisma" / "__pycache__" / "a.pyc").write_bytes(b"1")
    newer = _listed(replace(small, files={"app.py": b"print(2)"}))
    assert write(newer, tmp_path / "space") is True
    assert sorted(path.name for path in (tmp_path / "space").iterdir()) == ["app.py", "space.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["space"]


@pytest.mark.parametrize("how", ["foreign", "more", "changed", "link", "file", "linked"])
def test_a_folder_that_holds_something_else_stays_as_it_is(small: Plan, tmp_path: Path, how: str) -> None:
    out = tmp_path / "space"
    if how == "file":
        out.write_text("mine")
    elif how == "linked":
        out.symlink_to(tmp_path)
    elif how == "foreign":
        out.mkdir()
        (out / "thesis.tex").write_text("mine")
    else:
        write(small, out)
        if how == "more":
            (out / "notes.txt").write_text("mine")
        elif how == "changed":
            (out / "app.py").write_text("mine")
        else:
            (out / "app.py").unlink()
            (out / "app.py").symlink_to(tmp_path / "mine")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(PrismaError, match=r"expected (a new|only files that `prisma space` wrote)"):
        write(_listed(replace(small, files={"app.py": b"print(3)"})), out)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_file_that_changed_since_the_plan_is_found(small: Plan, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"before")
    made = _listed(replace(small, files={"app.py": tmp_path / "source"}))
    (tmp_path / "source").write_bytes(b"after")
    with pytest.raises(PrismaError, match=r"source to stay as it was; found it changed"):
        write(made, tmp_path / "space")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
