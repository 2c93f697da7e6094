"""Exact cells: the numbers of `prisma.sweep`, each by itself, and no more than a visitor waits for."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from prisma_app.lanes import HEAVY, BusyError
from prisma_app.library import Library, Scene
from prisma_app.state import State
from prisma_app.views.patching import runs
from prisma_app.views.patching.question import question_of

from prisma.analysis.patching.activation_patching import sweep
from prisma.errors import PrismaError


def table(lines: list[dict[str, Any]], axis: str, key: str, like: torch.Tensor) -> torch.Tensor:
    found = torch.full_like(like, torch.nan)
    for line in lines[1:]:
        found[line["layer"], line[axis]] = line[key]
    return found


@pytest.mark.parametrize("into", ["clean", "corrupt"])
@pytest.mark.parametrize(("what", "axis", "site"), [("heads", "head", "attn.z"), ("tokens", "token", "resid_mid")])
def test_a_stream_is_the_sweep(scene: Callable[..., Scene], what: str, axis: str, site: str, into: str) -> None:
    some = scene(img="2", corrupt="noise:1,6", site="resid_mid", into=into)
    question = question_of(some)
    expected = sweep(question.model, question.clean, question.corrupt, site, question.metric, into=into, axis=axis)
    lines = list(runs.stream(some, what))
    assert lines[0] == {"cells": expected.numel()}
    torch.testing.assert_close(table(lines, axis, "value", expected), expected)
    metrics = {run: question.measured(logits) for run, logits in question.logits().items()}
    torch.testing.assert_close(table(lines, axis, "recovered", expected), question.recovered(expected, metrics))


def test_the_top_is_exact_where_the_estimate_is_largest(vit_library: Library) -> None:
    scene = vit_library.scene(State.of({"corrupt": "blur:", "metric": "logit"}))
    question = question_of(scene)
    size = runs.token_estimate(question).abs()
    lines = list(runs.stream(scene, "top"))[1:]
    cells = [(line["layer"], line["token"]) for line in lines]
    assert len(set(cells)) == runs.TOP
    assert min(size[cell] for cell in cells) >= size.flatten().sort(descending=True).values[runs.TOP - 1]
    found = torch.tensor([line["value"] for line in lines])
    torch.testing.assert_close(found, runs.exact(question, "token", cells))


def test_parts_are_short_and_hold_every_cell_once(vit_library: Library) -> None:
    question = question_of(vit_library.scene(State()))
    cells = runs.all_tokens(question)
    parts = list(runs.parts(cells, question.config))
    assert [cell for part in parts for cell in part] == cells
    costs = [sum(1 - layer / question.config.n_layers for layer, _ in part) for part in parts]
    assert max(costs) <= runs.AT_ONCE
    assert max(map(len, parts)) > min(map(len, parts))  # later layers are cheaper


def test_who_goes_away_ends_the_rest_and_holds_no_place(
    scene: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "AT_ONCE", 1.0)
    asked: list[int] = []
    exact = runs.exact
    monkeypatch.setattr(runs, "exact", lambda *args: (asked.append(1), exact(*args))[1])
    lines = runs.stream(scene(), "tokens")
    assert next(lines) == {"cells": 34}
    assert [next(lines)["token"], next(lines)["token"]] == [0, 1]
    with HEAVY.place():  # it waits for the visitor, outside of the lane
        pass
    lines.close()  # type: ignore[attr-defined]
    assert len(asked) == 2
    assert HEAVY._inside == 0


def test_who_asks_again_needs_no_place(scene: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"img": "5", "corrupt": "7", "target": 1, "against": 2}
    first = list(runs.stream(scene(**given), "heads"))
    monkeypatch.setattr(runs, "exact", None)  # a second computation would fail
    with HEAVY.place():
        assert list(runs.stream(scene(**given, layer=1, head=3, view="lens"), "heads")) == first
    for other in ({"corrupt": "8"}, {"step": 8}, {"into": "corrupt"}, {"metric": "logit"}, {"img": "6"}, {"target": 3}):
        with pytest.raises(TypeError, match="not callable"):
            list(runs.stream(scene(**{**given, **other}), "heads"))


def test_time_ends(scene: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "MOST_SECONDS", -1.0)
    with pytest.raises(BusyError, match="longer than the -1 seconds"):
        list(runs.stream(scene(), "heads"))
    with pytest.raises(BusyError, match="use prisma"):
        runs.exact_heads(question_of(scene()), runs.time_until(-1.0))


def test_no_gap_has_no_share(scene: Callable[..., Scene]) -> None:
    dark = scene(img="ink:1:AA", corrupt="blur:", target=0, against=1)  # an image of one colour
    lines = list(runs.stream(dark, "heads"))[1:]
    assert {line["recovered"] for line in lines} == {None}


@pytest.mark.parametrize(
    ("given", "what", "sentence"),
    [
        ({}, "all", "expected what among heads, top, tokens; found 'all'"),
        ({"site": "mlp"}, "heads", "expected a site"),
    ],
)
def test_every_mistake_is_a_sentence(
    scene: Callable[..., Scene], given: dict[str, object], what: str, sentence: str
) -> None:
    with pytest.raises(PrismaError, match=sentence):
        list(runs.stream(scene(**given), what))
