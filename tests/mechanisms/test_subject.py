"""What a reference means, and what is refused in one sentence."""

import json
import shutil
from pathlib import Path

import pytest

from prisma.checkpoint import WEIGHTS
from prisma.errors import PrismaError
from prisma.files import sha256
from prisma.mechanisms.subject import subject
from prisma.repository import MICE, Published


def test_a_run_a_published_mouse_and_one_of_the_package(run: Path, hub: Path, tmp_path: Path) -> None:
    own, published, shipped = subject(run), subject("lab/tiny", hub), subject("mice/circle")
    assert own.checkpoints is not None and published.checkpoints is not None and shipped.checkpoints is None
    assert list(own.checkpoints) == list(published.checkpoints) == [0, 1, 2, 4, 6]
    assert own.weights == published.weights == sha256(run / WEIGHTS) and shipped.weights == sha256(
        MICE / "circle" / WEIGHTS
    )
    assert (own.name, published.name, shipped.name) == ("digits", "lab/tiny", "mice/circle")
    ours, theirs = own.checkpoints[2](), published.checkpoints[2]()
    assert all(bool((a == b).all()) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))
    folder = shutil.copytree(Published("lab/tiny", hub).file("README.md").parent, tmp_path / "copied")
    assert subject(folder).checkpoints is None and subject(folder).weights == own.weights


@pytest.mark.parametrize(
    "ref",
    ["timm/vit_tiny", "hf/a/b", "../../etc", "a/b/c", "mice/none", "x" * 5000, "no\0name", "", "-", "lab/..", "."],
)
def test_what_is_no_mouse_is_refused_in_one_sentence(ref: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PrismaError) as error:
        subject(ref)
    assert "\n" not in str(error.value) and "\0" not in str(error.value)


def test_a_recipe_that_was_changed_is_refused(run: Path) -> None:
    whole = json.loads((run / "recipe.json").read_text())
    for change, sentence in (
        ({"task": {**whole["task"], "sha256": "0" * 64}}, "of hash"),
        ({"task": {"name": "none"}}, "there is no task"),
        ({"task": {"name": "digits:/etc"}}, "there is no task"),
        ({"task": []}, "expected the name of a task"),
        ({"task": {"name": "circle"}}, "of hash"),
        ({"training": None}, "expected training of recipe.json"),
    ):
        (run / "recipe.json").write_text(json.dumps(whole | change))
        with pytest.raises(PrismaError, match=sentence):
            subject(run)
    (run / "recipe.json").write_text(json.dumps(whole | {"recipe": "<img>\n#"}))
    assert subject(run).name == "mouse"
