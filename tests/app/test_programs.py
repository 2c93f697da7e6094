"""What the endpoints answer is what the views compute; `test_api` asks through Gradio."""

import pytest
from prisma_app.answers import answer_of
from prisma_app.library import Library
from prisma_app.programs import OTHERS, SLOW, asked, entry
from prisma_app.state import State
from prisma_app.subject import Subject
from prisma_app.views import HEAVY_PARTS, VIEWS

from prisma import PrismaError
from tests.app.conftest import DIGITS


def test_numbers_are_those_of_the_views_and_none_is_the_default(library: Library) -> None:
    scene = library.scene(State.of({"model": DIGITS, "img": "3", "step": 8}))
    given = {"model": DIGITS, "img": "3", "step": 8, "rev": None}
    assert asked(library, "answer", given) == answer_of(scene)
    assert asked(library, "decompose", {**given, "target": 2}) == VIEWS["decompose"].values(
        library.scene(State.of({"model": DIGITS, "img": "3", "step": 8, "target": 2}))
    )
    assert set(SLOW) < {*VIEWS, *OTHERS}
    with pytest.raises(PrismaError, match="expected a class from 0 to 9; found 44"):
        asked(library, "decompose", {**given, "target": 44})


def test_what_is_slow_for_a_program_is_slow_for_the_page() -> None:
    parts = {
        "circuit": ("patching", 3), "estimates": ("patching", 4), "paths": ("patching", 5), "naming": ("decompose", 0),
        "registers": ("units", 0), "steering": ("steering", 0), "training": ("training", 1),
    }  # fmt: skip
    assert {"patching", *parts} == set(SLOW)  # the maps of patching are a stream, which has a lane of its own
    assert {*parts.values(), ("latents", 0)} == HEAVY_PARTS


def test_an_entry_says_what_a_model_is(library: Library) -> None:
    about = entry(library, DIGITS)
    assert (about["layers"], about["heads"], about["tokens"], about["examples"]) == (2, 4, 17, 20)
    assert about["steps"][-1] == 40 and about["labels"] == [str(i) for i in range(10)]


def test_a_model_that_cannot_be_read_does_not_hide_the_others(library: Library) -> None:
    def make(name: str) -> Subject:
        if name == "lab/damaged":
            raise PrismaError("this mouse is damaged")
        return library.make(name)

    partly = Library(["lab/damaged", DIGITS], make)
    found = [entry(partly, name) for name in partly.names]
    assert found[0] == {"model": "lab/damaged", "error": "this mouse is damaged"}
    assert found[1] == entry(library, DIGITS)
