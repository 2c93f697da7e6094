"""What a Space holds: the same each time, nothing of this machine, and a list of it all."""

import getpass
import hashlib
import json
import os
import re
import socket
from pathlib import Path

import pytest

import prisma
from prisma import PrismaError
from prisma.publish.space import Plan, plan, planning
from tests.publish.space.conftest import SPACE

TOKEN = "hf_QwErTyUiOpAsDfGhJkLzXcVbNm12345678"


def content(planned: Plan, name: str) -> bytes:
    source = planned.files[name]
    return source if isinstance(source, bytes) else source.read_bytes()


def test_equal_inputs_give_equal_bytes(planned: Plan, finished_hub: Path) -> None:
    again = plan(SPACE, ["lab/tiny"], finished_hub)
    assert again.hashes == planned.hashes and again.build == planned.build
    assert {name: content(again, name) for name in again.files} == {n: content(planned, n) for n in planned.files}


def test_the_list_has_every_file_with_its_hash(planned: Plan) -> None:
    facts = json.loads(content(planned, "space.json"))
    expected = {n: hashlib.sha256(content(planned, n)).hexdigest() for n in planned.files if n != "space.json"}
    assert facts["files"] == expected
    assert facts["models"] == [{"repo": "lab/tiny", "commit": planned.models[0].commit}]
    assert facts["hub"] is True and planned.build == planned.hashes["space.json"]
    assert planned.size == sum(len(content(planned, name)) for name in planned.files)


def test_files_are_those_that_a_space_needs(planned: Plan) -> None:
    tops = {name.split("/")[0] for name in planned.files}
    assert tops == {
        "LICENSE", "README.md", "app.py", "hub", "prisma", "prisma_app", "requirements.txt", "space.json",
    }  # fmt: skip
    assert not any(".." in name or name.startswith("/") or "\\" in name for name in planned.files)


def test_no_file_holds_a_token_or_a_path_of_this_machine(monkeypatch: pytest.MonkeyPatch, finished_hub: Path) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    root = Path(prisma.__file__).parents[1]
    words = [TOKEN, str(root), str(Path.home()) + "/", str(finished_hub), socket.gethostname() + ".", os.sep + "tmp/"]
    words += [f"/{getpass.getuser()}/"]
    made = plan(SPACE, [], finished_hub)
    for name in made.files:
        found = content(made, name)
        assert [word for word in words if word.encode() in found] == [], name
        assert not re.search(rb"hf_[A-Za-z0-9]{20,}", found), name


@pytest.mark.parametrize(
    ("space", "how", "message"),
    [
        ("explorer", {}, "which has no owner"),
        ("lab/x", {"static": True, "hardware": "zero-a10g"}, "expected no hardware for a static Space"),
        ("lab/x", {"static": True, "images": 0}, "expected at least one image and one step; found 0 and 8"),
    ],
)
def test_what_cannot_be_planned(finished_hub: Path, space: str, how: dict[str, object], message: str) -> None:
    with pytest.raises(PrismaError, match=message):
        plan(space, [], finished_hub, **how)  # type: ignore[arg-type]


def test_a_space_larger_than_the_hub_allows_is_refused(finished_hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "LARGEST", 1000)
    with pytest.raises(PrismaError, match=r"expected a Space of at most 1,000 bytes; found .*: show fewer models"):
        plan(SPACE, [], finished_hub)


def test_a_static_space_is_a_page_with_views(finished_hub: Path) -> None:
    made = plan(SPACE, [], finished_hub, static=True, images=1, steps=1)
    assert made.sdk == "static"
    page = {"README.md", "index.html", "page.css", "page.js", "space.json"}
    assert page <= set(made.files)
    views = {name.split("/")[1] for name in set(made.files) - page if name.startswith("data/")}
    own = {"attention", "lens", "patching", "training", "decompose", "steering", "latents", "units"}
    assert views == {"model", "answer", *own}
    assert b"<title>explorer</title>" in content(made, "index.html")
