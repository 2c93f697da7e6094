"""One state, one address: each can be made from the other, and nothing else is let in."""

import re
from typing import Any
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prisma_app.state import VIEWS, State

from prisma import PrismaError
from prisma.view.browser import ASSETS

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), min_size=1, max_size=30)
WHOLE = st.integers(0, 10**9)
KEYS = {
    "model": TEXT, "rev": TEXT, "view": st.sampled_from(VIEWS), "img": TEXT, "step": WHOLE, "layer": WHOLE,
    "head": WHOLE, "token": WHOLE, "corrupt": TEXT, "metric": st.sampled_from(["logit_diff", "logit", "probability"]),
    "into": st.sampled_from(["clean", "corrupt"]), "site": TEXT, "target": WHOLE, "against": WHOLE, "prompts": TEXT,
    "ablate": TEXT, "units": TEXT, "number": WHOLE, "estimate": st.sampled_from(["atp", "relp", "atp_star"]),
    "steer": TEXT, "where": st.sampled_from(["class", "all"]), "direction": st.sampled_from(["means", "readout"]),
    "reach": WHOLE, "outlying": TEXT, "after": WHOLE, "moved": WHOLE, "span": WHOLE,
}  # fmt: skip


@given(st.fixed_dictionaries({}, optional=KEYS))
def test_an_address_restores_the_state(values: dict[str, Any]) -> None:
    state = State.of(values)
    assert State.of(dict(parse_qsl(state.address()[1:]))) == state


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"step": "x"}, "expected step as a whole number; found 'x'"),
        ({"step": True}, "expected step as a whole number; found True"),
        ({"step": 3.5}, "expected step as a whole number; found 3.5"),
        ({"layer": -1}, "expected layer as a whole number from 0"),
        ({"head": 10**13}, "expected head as a whole number from 0"),
        ({"target": float("nan")}, "expected target as a whole number"),
        ({"img": ["1"]}, r"expected img as text; found \['1'\]"),
        ({"model": {"a": 1}}, "expected model as text"),
        (
            {"view": "<b>"},
            "expected view as attention, lens, patching, training, decompose, steering, latents or units; found '<b>'",
        ),
        ({"into": "both"}, "expected into as clean or corrupt"),
        ({"corrupt": "1," * 3000}, "expected corrupt of at most 4,000 characters; found 6,000"),
        ({"mode": "1"}, "expected keys among v, model, .*; found 'mode'"),
        ({"v": "2"}, "expected v as 1"),
        ({3: "2"}, "expected keys as text"),
    ],
)
def test_other_values_are_one_sentence(values: dict[Any, Any], sentence: str) -> None:
    with pytest.raises(PrismaError, match=f"^{sentence}") as raised:
        State.of(values)
    assert len(str(raised.value)) < 400


def test_whole_numbers_come_as_floats_and_text_too() -> None:
    assert State.of({"step": 64.0, "layer": "2", "img": 3, "v": "1"}) == State.of({"step": 64, "layer": 2, "img": "3"})


def test_the_page_has_the_same_keys() -> None:
    text = (ASSETS / "state.js").read_text()
    table = text[text.index("export const KEYS") : text.index("  // ---")]
    assert set(re.findall(r"(\w+):", table)) == set(State.model_fields)
    views = re.search(r"export const VIEWS = \[(.*)\]", text)
    assert views is not None
    assert tuple(re.findall(r'"(\w+)"', views[1])) == VIEWS
    defaults = re.search(r"export const DEFAULTS = \{(.*?)\}", text, re.S)
    assert defaults is not None
    for key, value in re.findall(r'(\w+): "?(\w+)"?', defaults[1]):
        if key in State.model_fields:
            assert str(getattr(State(), key)) == value
