"""The circuit of a pair: it is the library's, its figures too, and its Python finds it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from prisma_app.library import Library, Scene
from prisma_app.state import State
from prisma_app.views.patching import circuit_code, circuit_values, maps, view

import prisma
from prisma import PrismaError
from prisma.analysis.circuits.graph import Graph
from tests.app.conftest import DIGITS
from tests.app.unpack import unpack

KEYS = {"model": DIGITS, "img": "3", "corrupt": "7", "metric": "logit"}


def test_the_edges_alone_give_the_metric(scene: Callable[..., Scene]) -> None:
    there = scene(**KEYS)
    facts, arrays = unpack(view(there, 3).pack())
    target = facts["state"]["target"]
    model, metric = there.loaded.model, prisma.Logit(target)
    pair = there.picture.x[None], there.corrupt.x[None]
    places = arrays["edges"].long().tolist()
    edges = [(facts["senders"][s], facts["receivers"][r]) for s, r in places]
    checked = prisma.check_circuit(model, *pair, metric, edges)
    figures = {figure["name"]: figure for figure in facts["figures"]}
    assert figures["faithfulness"]["value"] == pytest.approx(checked.faithfulness, abs=1e-5)
    assert figures["completeness"]["value"] == pytest.approx(checked.completeness, abs=1e-5)
    chance = checked.random_faithfulness
    least, mean, most = figures["faithfulness"]["random"]
    assert (least, most) == pytest.approx((float(chance.min()), float(chance.max())), abs=1e-5)
    assert mean == pytest.approx(float(chance.mean()), abs=1e-5) and figures["completeness"]["random"] is None
    for i, (s, r) in enumerate(places):
        assert arrays["scores"][i] == pytest.approx(float(checked.scores[s, r]), abs=1e-5)
        assert arrays["removal"][i] == pytest.approx(float(checked.removal[s, r]), abs=1e-4)
    evaluated = prisma.circuit_evaluation(model, *pair, metric)
    assert figures["cmd"]["value"] == pytest.approx(evaluated.cmd, abs=1e-4)
    assert figures["cpr"]["random"][1] == pytest.approx(float(evaluated.random_cpr.mean()), abs=1e-4)
    assert facts["count"] == int(Graph(model.config).edges.sum())
    answer, made = circuit_values(there), dict[str, Any]()
    assert answer["edges"] == [list(edge) for edge in edges] and answer["figures"] == facts["figures"]
    assert (answer["axes"], answer["pair"]) == (["sender", "receiver"], {"clean": "3", "corrupt": "7"})
    exec(circuit_code(there), made)
    torch.testing.assert_close(made["circuit"], torch.tensor(answer["values"]), rtol=0, atol=1e-5)
    assert made["evaluation"].cmd == pytest.approx(figures["cmd"]["value"], abs=1e-4)


def test_what_takes_too_long_or_does_not_differ_is_one_sentence(
    scene: Callable[..., Scene], vit_library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert view(scene(**KEYS)).facts["circuit"]
    with pytest.raises(PrismaError, match="expected two classes that differ; found 3"):
        view(scene(model=DIGITS, img="3", target=3, against=3), 3)
    monkeypatch.setattr(maps, "CIRCUIT", 1)
    there = vit_library.scene(State.of({"img": "1"}))
    assert not view(there).facts["circuit"]
    with pytest.raises(PrismaError, match="expected a model that is small enough to run once for each edge"):
        view(there, 3)
