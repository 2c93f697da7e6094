"""Which models are shown, in which order, and what a state names among them."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prisma_app.library import Library, Scene, best, library_of
from prisma_app.models import Mouse, Shipped

from prisma import PrismaError
from prisma.repository import Published
from tests.app.conftest import ANIMALS, DIGITS, GLYPHS


def test_every_mouse_of_a_hub_and_the_chosen_one_first(lab: Path) -> None:
    assert library_of(lab, GLYPHS, ()).names == [GLYPHS, DIGITS]
    accuracy = {repo: Mouse(Published(repo, lab)).about()["accuracy"]["value"] for repo in (DIGITS, GLYPHS)}
    assert library_of(lab, None, ()).names[0] == max(accuracy, key=lambda repo: round(accuracy[repo], 2))
    assert best([DIGITS, "lab/none"], lab) == DIGITS


def test_without_a_hub_the_mice_in_the_package(lab: Path) -> None:
    library = library_of(None, None, ())
    assert library.names[0] == "mice/sprites" and len(library.names) >= 4
    assert library_of(lab, "mice/digits", ()).names[0] == "mice/digits"
    assert isinstance(library.subject("mice/digits", None), Shipped)
    with pytest.raises(PrismaError, match="there is no mouse 'mice/digit' in this package; the nearest: mice/digits"):
        library_of(None, "mice/digit", ())


def test_what_decides_between_a_mouse_and_a_pretrained_model(
    lab: Path, vit_folder: Path, clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert library_of(tmp_path / "no hub", str(vit_folder), ()).names == ["small-vit"]
    assert library_of(lab, str(vit_folder), ()).subject(None, None).labels == ANIMALS
    monkeypatch.chdir(vit_folder.parent)
    Path(DIGITS).mkdir(parents=True)
    assert library_of(lab, DIGITS, ()).names[0] == DIGITS
    clip = library_of(lab, str(clip_folder), ("a", "b"))
    assert clip.subject(None, None) is clip.subject(None, None)
    assert clip.subject(None, None).labels == ["a", "b"]
    for model in (DIGITS, None):
        with pytest.raises(PrismaError, match="prompts are the classes of a CLIP"):
            library_of(lab, model, ("a",))
    for hub, name, sentence in ((tmp_path / "none", None, "no such folder"), (lab, "lab/digit", "nearest: lab/digits")):
        with pytest.raises(PrismaError, match=sentence):
            library_of(hub, name, ())


def test_a_scene_is_at_the_commit_of_the_link(scene: Callable[..., Scene], lab: Path) -> None:
    commit = Published(DIGITS, lab).file("config.json").parent.name
    assert scene(model=DIGITS).subject.rev == scene(model=DIGITS, rev=commit).subject.rev == commit
    assert scene(model=DIGITS).subject is scene(model=DIGITS, rev=commit).subject
    assert scene(model=DIGITS, rev="main").subject is scene(model=DIGITS).subject  # what it names now, not later
    found = scene(model=DIGITS, rev=commit, step=8, img="2").resolved(token=1)
    assert found == {"model": DIGITS, "rev": commit, "img": "2", "step": 8, "token": 1}


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"model": "lab/glyph"}, "there is no model 'lab/glyph' here; the nearest: lab/glyphs"),
        ({"model": "<img src=x>"}, "there is no model '<img src=x>' here"),
        ({"rev": "0" * 40}, "has no revision"),
        ({"rev": "../../etc"}, "revision|commit"),
        ({"step": 3}, "publishes 8 training steps from 0 to 40; found step 3; the nearest: 0, 1, 2, 4, 8"),
        ({"img": "99"}, "expected an example from 0 to 19"),
        ({"prompts": "a cat"}, "expected a CLIP for prompts"),
        ({"layer": 5}, "expected a layer from 0 to 1; found 5"),
    ],
)
def test_what_does_not_exist_is_one_sentence(scene: Callable[..., Scene], keys: dict[str, Any], sentence: str) -> None:
    with pytest.raises(PrismaError, match=sentence) as raised:
        found = scene(**keys)
        _ = found.loaded, found.picture, found.index("layer", found.state.layer, found.config.n_layers)
    assert len(str(raised.value)) < 500 and not re.search(r"\n", str(raised.value))


def test_prompts_are_the_classes_of_a_clip(clip_library: Library) -> None:
    from prisma_app.state import State

    found = clip_library.scene(State.of({"prompts": "a cat\n\n two cats "}))
    assert found.subject.labels == ["a cat", "two cats"] and found.loaded.config.n_classes == 2
    assert clip_library.subject(None, None).labels != found.subject.labels
    with pytest.raises(PrismaError, match="expected 1 to 50 prompts, one in each line; found 51"):
        clip_library.scene(State.of({"prompts": "a\n" * 51}))


def test_visitors_are_not_told_where_the_models_lie(lab: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = tmp_path / "link"
    link.symlink_to(lab)
    monkeypatch.chdir(tmp_path)
    for hub in (lab, link, Path("link")):
        library = library_of(hub, DIGITS, ())
        said = PrismaError(f"expected JSON in {lab / 'models--lab--digits/x.json'}; found none. See {link.absolute()}")
        words = library.words(said)
        assert words.startswith("expected JSON in models--lab--digits/x.json; found none. See "), hub
        assert str(lab) not in words and (hub == lab or words.endswith("the folder of the models"))
    assert Library([DIGITS], Shipped, folder=Path("/")).words(PrismaError("a / b")) == "a / b"
    assert library_of(None, None, ()).words(PrismaError("github/x")) == "github/x"
