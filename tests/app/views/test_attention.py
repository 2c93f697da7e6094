"""The attention view: every number is the library's, and its Python gives them again."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from prisma_app.library import Library, Scene
from prisma_app.state import State
from prisma_app.views import attention
from torch import Tensor

import prisma
from prisma import PrismaError
from prisma.view.browser import View
from tests.app.conftest import DIGITS, GLYPHS
from tests.app.unpack import assert_near, read, unpack
from tests.app.unpack import attention as rows_of


def patterns(scene: Scene) -> list[Tensor]:
    _, acts = prisma.record(scene.loaded.model, scene.picture.x[None], "blocks.*.attn.pattern")
    return [acts[f"blocks.{layer}.attn.pattern"][0].double() for layer in range(scene.config.n_layers)]


def shown(view: View) -> Tensor:
    return rows_of(unpack(view.pack())[1])


def near(found: Tensor, expected: Tensor, prefix: int) -> bool:
    """To the precision of 8 bits in each row."""
    error = (found - expected).abs().amax(-1)
    return bool((error <= expected[..., prefix:].amax(-1) / 255 / 2 + 1e-7).all())


@pytest.mark.parametrize(("model", "step", "img"), [(DIGITS, 16, "3"), (GLYPHS, 40, "1")])
def test_every_layer_is_the_librarys(scene: Callable[..., Scene], model: str, step: int, img: str) -> None:
    there = scene(model=model, step=step, img=img)
    for layer, expected in enumerate(patterns(there)):
        view = attention.view(there, layer)
        assert near(shown(view), expected, there.config.n_prefix)
        assert view.facts["layer"] == layer and view.facts["mode"] == "all"
        assert view.facts["state"]["step"] == step and view.facts["state"]["img"] == img
        scope: dict[str, Any] = {}
        exec(view.facts["code"], scope)
        assert_near(scope["values"].double(), expected, 1e-6)


def test_a_page_that_reads_all_layers_costs_two_passes(vit_library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    record = attention.record

    def counted(model: Any, x: Tensor, sites: list[str], **how: Any) -> Any:
        asked.append(list(sites))
        return record(model, x, sites, **how)

    monkeypatch.setattr(attention, "record", counted)
    there = vit_library.scene(State(img="2"))
    for layer in (1, 0, 1):
        assert near(shown(attention.view(there, layer)), patterns(there)[layer], 1)
    assert asked == [["blocks.1.attn.pattern"], ["blocks.0.attn.pattern"]]
    attention.view(vit_library.scene(State(img="3")), 1)
    assert asked[2:] == [["blocks.1.attn.pattern"]]


def test_scores_and_rollout_are_the_librarys(scene: Callable[..., Scene]) -> None:
    there = scene(model=DIGITS, img="4")
    x, model, layers = there.picture.x[None], there.loaded.model, there.config.n_layers
    facts = attention.view(there, 0).facts
    assert facts["parts"] == {"scores": layers, "rollout": layers + 1, "token": layers + 2} and list(
        attention.parts(there)
    ) == [0, 1, 2, 3]
    scores = attention.view(there, layers)
    found = read(scores, "scores")
    for i, about in enumerate(scores.facts["scores"]):
        if about["share"]:
            expected = prisma.head_scores(model, x, about["name"])
            torch.testing.assert_close(found[i], expected.mean[0].double(), rtol=0, atol=1e-6)
            assert about["chance"] == pytest.approx(expected.chance.item())
    expected_map = prisma.rollout(model, x).map
    assert expected_map is not None
    rollout = attention.view(there, layers + 1)
    assert near(shown(rollout), expected_map.double(), 1)
    scope: dict[str, Any] = {}
    exec(rollout.facts["code"], scope)
    assert torch.equal(scope["values"], expected_map[0])


def test_what_one_token_gives_and_gets_in_every_layer(
    scene: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    there = scene(model=DIGITS, token=5)
    with pytest.raises(PrismaError, match="expected a layer from 0 to 1; found 4"):
        attention.view(there, 4)  # all layers are read at once
    monkeypatch.setattr(attention, "MOST_AT_ONCE", 2 * 4 * 17**2 - 1)
    assert attention.view(there, 0).facts["mode"] == "looked" and list(attention.parts(there)) == [0, 1, 2, 3, 4]
    expected, view = torch.cat(patterns(there)), attention.view(there, 4)
    assert view.facts["token"] == 5 and near(shown(view), expected[:, 5:6], 1)
    torch.testing.assert_close(read(view, "from"), expected[:, :, 5], rtol=0, atol=8e-6)


def test_large_models_are_read_by_layer_or_by_token(
    scene: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    there = scene(model=DIGITS, token=5)
    expected = patterns(there)
    monkeypatch.setattr(attention, "MOST_ALL", 16)
    view = attention.view(there, 1)
    assert view.facts["mode"] == "layer" and near(shown(view), expected[1], 1)
    monkeypatch.setattr(attention, "MOST_LAYER", 16)
    view = attention.view(there, 1)
    assert (view.facts["mode"], view.facts["token"]) == ("token", 5)
    assert near(shown(view), expected[1][:, 5:6], 1)
    torch.testing.assert_close(read(view, "from"), expected[1][:, :, 5], rtol=0, atol=8e-6)
    monkeypatch.setattr(attention, "MOST_MEMORY", 1000)
    for part in (2, 3):
        with pytest.raises(PrismaError, match="use prisma in Python"):
            attention.view(there, part)


@pytest.mark.parametrize(
    ("keys", "axes"),
    [
        ({"layer": 1}, ["head", "query", "key"]),
        ({"layer": 1, "head": 2}, ["query", "key"]),
        ({"token": 5}, ["head", "key"]),
        ({"head": 0, "token": 5, "step": 4}, ["key"]),
    ],
)
def test_the_endpoints_numbers_and_its_python(
    scene: Callable[..., Scene], keys: dict[str, Any], axes: list[str]
) -> None:
    there = scene(model=DIGITS, **keys)
    answer = attention.values(there)
    expected = patterns(there)[keys.get("layer", 0)]
    expected = expected[keys["head"]] if "head" in keys else expected
    expected = expected[..., keys["token"], :] if "token" in keys else expected
    assert answer["axes"] == axes and answer["layer"] == keys.get("layer", 0)
    assert_near(torch.tensor(answer["values"], dtype=torch.float64), expected, 1e-6)
    scope: dict[str, Any] = {}
    exec(attention.code(there), scope)
    assert_near(scope["values"].double(), expected, 1e-6)


@pytest.mark.parametrize("keys", [{"layer": 2}, {"head": 4}, {"token": 17}, {"step": 3}, {"img": "99"}])
def test_what_does_not_exist_is_a_sentence(scene: Callable[..., Scene], keys: dict[str, Any]) -> None:
    with pytest.raises(PrismaError, match=r"expected|publishes"):
        attention.values(scene(model=DIGITS, **keys))
    with pytest.raises(PrismaError, match="expected a layer from 0 to 1; found 4"):
        attention.view(scene(model=DIGITS), 4)
