"""Steering: the curve and the image's answers are those of runs with the direction added; and what is refused."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from prisma_app.library import Library, Scene
from prisma_app.state import State
from prisma_app.views import steering

import prisma
from prisma import PrismaError
from prisma.analysis.class_space.class_embeddings import class_embeddings
from tests.app.conftest import DIGITS, GLYPHS
from tests.app.unpack import unpack


class Add:
    """Adds a vector to some tokens, by hand."""

    def __init__(self, vector: torch.Tensor, tokens: slice) -> None:
        self.vector, self.tokens = vector, tokens

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        x = x.clone()
        x[:, self.tokens] += self.vector
        return x


@pytest.mark.parametrize(
    ("keys", "site", "tokens"),
    [
        ({"target": 2}, "blocks.0.resid_post", slice(0, 1)),
        ({"target": 2, "against": 7, "where": "patches", "steer": "blocks.1.attn_out", "reach": 2},
         "blocks.1.attn_out", slice(1, 17)),
        ({"target": 4, "direction": "readout", "where": "all", "steer": "blocks.1.resid_pre", "step": 8},
         "blocks.1.resid_pre", slice(0, 17)),
    ],
)  # fmt: skip
def test_a_curve_is_that_of_runs_with_the_direction_added(
    scene: Callable[..., Scene], keys: dict[str, Any], site: str, tokens: slice
) -> None:
    there = scene(model=DIGITS, img="3", **keys)
    facts, arrays = unpack(steering.view(there).pack())
    found, curve = unpack(steering.view(there, 0).pack())
    made: dict[str, Any] = {}
    exec(steering.code(there), made)
    model, target, against = there.loaded.model, keys["target"], keys.get("against")
    labels = torch.tensor([picture.label for picture in there.subject.test_images(256)])
    own, compared, measured = (labels[made[name]] for name in ("own", "compared", "measured"))
    assert bool((own == target).all()) and len(own) == int((labels == target).sum())
    others = labels == against if against is not None else labels != target
    assert set(made["compared"]) & set(made["measured"]) == set() and len(measured) > 2
    assert bool(others[made["compared"] + made["measured"]].all()) and len(compared) == int(others.sum() + 1) // 2

    def means(rows: list[int]) -> torch.Tensor:
        return prisma.record(model, made["images"][rows], site)[1][site][:, tokens].mean((0, 1))

    direction = means(made["own"]) - means(made["compared"])
    if keys.get("direction") == "readout":
        toward = class_embeddings(model)
        direction = torch.nn.functional.normalize(toward[target] - toward.mean(0), dim=0) * direction.norm()
    assert facts["length"] == pytest.approx(float(direction.norm()), rel=1e-4)
    reach = keys.get("reach", 4)
    assert facts["doses"] == torch.linspace(-reach, reach, 17).tolist()
    for i, dose in enumerate(facts["doses"]):
        edit = {site: Add(dose * direction, tokens)}
        probability = prisma.run(model, made["images"][made["measured"]], edit).softmax(-1)[:, target]
        assert curve["effect"][i] == pytest.approx(float(probability.mean()), abs=1e-4)
        torch.testing.assert_close(
            arrays["own"][i], prisma.run(model, there.picture.x[None], edit).softmax(-1)[0].double(), rtol=0, atol=1e-4
        )
    answer = steering.values(there)
    torch.testing.assert_close(made["values"].double(), curve["effect"], rtol=0, atol=1e-6)
    torch.testing.assert_close(torch.tensor(answer["values"]), made["values"], rtol=0, atol=1e-6)
    for name, wanted in {"interval": made["interval"], "random": made["random"]}.items():
        torch.testing.assert_close(torch.tensor(answer[name]["values"]), wanted.float(), rtol=0, atol=1e-6)
        torch.testing.assert_close(curve[name], wanted.double(), rtol=0, atol=1e-6)
    assert answer["images"] == len(made["measured"]) == found["counts"][2] and answer["steer"] == site
    assert torch.tensor(answer["own"]["values"]).shape == (17, 10)


def test_by_default_it_steers_to_the_second_answer(scene: Callable[..., Scene]) -> None:
    there = scene(model=DIGITS, img="3")
    order = there.loaded.model(there.picture.x[None])[0].argsort(descending=True).tolist()
    state = steering.view(there).facts["state"]
    assert state["target"] == order[1] and state["against"] is None
    assert (state["steer"], state["where"], state["reach"]) == ("blocks.0.resid_post", "class", 4)
    assert steering.view(scene(model=GLYPHS)).facts["state"]["where"] == "all"  # its readout is of all tokens


def test_a_model_without_labelled_images_says_why(vit_library: Library) -> None:
    there = vit_library.scene(State.of({"img": "1"}))
    facts = steering.view(there).facts
    assert facts["says"].startswith("Steering needs a model of two classes or more that has test images with labels")
    with pytest.raises(PrismaError, match="has none here"):
        steering.values(there)


def test_of_a_large_model_fewer_images_are_measured(
    scene: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steering, "MOST_WORK", 1)
    assert steering.view(scene(model=DIGITS)).facts["counts"][2] == 2


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"steer": "<b>"}, "expected a site such as blocks.1.resid_pre; found '<b>'"),
        ({"steer": "blocks.2.resid_post"}, "expected a site such as"),
        ({"steer": "blocks.*.resid_post"}, "expected a site such as"),
        ({"reach": 3}, "expected a largest dose among 1, 2, 4, 8, 16; found 3"),
        ({"target": 10}, "expected a class from 0 to 9; found 10"),
        ({"target": 1, "against": 1}, "expected two classes that differ; found 1 as target and as against"),
        ({"steer": "blocks.0.resid_pre"}, "found blocks.0.resid_pre at class, which does not"),
    ],
)
def test_what_does_not_exist_is_one_sentence(scene: Callable[..., Scene], keys: dict[str, Any], words: str) -> None:
    with pytest.raises(PrismaError, match=words):
        steering.view(scene(model=DIGITS, img="3", **keys))
    with pytest.raises(PrismaError, match="expected part 0"):
        steering.view(scene(model=DIGITS), 1)


def test_a_class_without_images_is_refused(scene: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steering, "READ", 3)
    there = scene(model=DIGITS)
    labels = {picture.label for picture in there.subject.test_images(3)}
    missing = next(c for c in range(10) if c not in labels)
    with pytest.raises(PrismaError, match=f"expected an image of class {missing} and two of others among 3"):
        steering.view(scene(model=DIGITS, target=missing))
    assert steering.view(there).facts["state"]["target"] in labels
