"""The training view: rows, scores and curves at every checkpoint equal the library's, and its Python gives them."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from prisma_app.answers import answer_view
from prisma_app.cache import Cache
from prisma_app.library import Library, Scene
from prisma_app.models import Mouse
from prisma_app.pictures import Picture
from prisma_app.state import State
from prisma_app.subject import Subject
from prisma_app.views import training

import prisma
from prisma import PrismaError, ViT, ViTConfig
from prisma.errors import NotFiniteError
from prisma.loaded import Loaded
from prisma.repository import Published
from prisma.run_folder import read_metrics
from tests.app.conftest import DIGITS
from tests.app.unpack import attention, unpack

STEPS = [0, 1, 2, 4, 8, 16, 32, 40]


def test_rows_are_those_of_the_class_token_at_every_step(scene: Callable[..., Scene], lab: Path) -> None:
    facts, arrays = unpack(training.view(scene(model=DIGITS, img="2")).pack())
    assert facts["steps"] == STEPS and facts["of"] == "the class token"
    found = attention(arrays, "rows")
    x = scene(model=DIGITS, img="2").picture.x[None]
    for i, step in enumerate(STEPS):
        model = prisma.load(DIGITS, f"step-{step:06d}", hub=lab).model
        _, acts = prisma.record(model, x, "blocks.*.attn.pattern")
        for layer in range(2):
            expected = acts[f"blocks.{layer}.attn.pattern"][0, :, 0].double()
            torch.testing.assert_close(found[i, layer], expected, rtol=0, atol=2e-3)


def test_curves_are_what_the_run_logged(scene: Callable[..., Scene], lab: Path) -> None:
    lines = list(read_metrics(Published(DIGITS, lab).file("metrics.jsonl")))
    curves = training.view(scene(model=DIGITS)).facts["curves"]
    evaluated = {f"{split}_{kind}" for split in ("test", "train") for kind in ("loss", "accuracy")}
    assert set(curves) == {"loss", "lr", *evaluated, "weight_norm", "gradient_norm"}
    for name, curve in curves.items():
        logged = [(line["step"], line[name]) for line in lines if name in line]
        assert list(zip(curve["steps"], curve["values"], strict=True)) == logged and curve["count"] == len(logged)


def test_long_curves_are_thinned_evenly_on_the_axis_of_steps() -> None:
    count = 50_000
    curve = training._thinned({"steps": list(range(count)), "values": [float(i) for i in range(count)]})
    assert curve["count"] == count and len(curve["steps"]) <= training.MOST_POINTS
    assert curve["steps"][:4] == [0, 1, 2, 3] and curve["steps"][-1] == count - 1
    assert curve["values"] == [float(step) for step in curve["steps"]]


def test_scores_are_the_librarys_at_every_step(scene: Callable[..., Scene], lab: Path) -> None:
    there = scene(model=DIGITS)
    answer = training.values(there)
    probe, _ = Published(DIGITS, lab).probe()
    loaded = prisma.load(DIGITS, hub=lab)
    assert loaded.transform is not None
    images = loaded.transform.normalise(probe[: answer["images"]])
    values = torch.tensor(answer["values"])
    assert answer["axes"] == ["step", "score", "layer", "head"] and answer["steps"] == STEPS and answer["images"] == 32
    names = [about["name"] for about in answer["scores"]]
    for i, step in enumerate(STEPS):
        model = prisma.load(DIGITS, f"step-{step:06d}", hub=lab).model
        expected = prisma.head_scores(model, images, names[2:])
        torch.testing.assert_close(values[i, 2:], expected.mean, rtol=0, atol=1e-7)
    first = answer["appears"]["values"][names.index("class_token")][1][2]
    history = values[:, names.index("class_token"), 1, 2].tolist()
    assert first == next(s for s, value in zip(STEPS, history, strict=True) if value >= history[-1] / 2)
    test = answer["metrics"]["test_accuracy"]
    assert test["axes"] == ["step"] and test["steps"] == STEPS and len(test["values"]) == len(STEPS)
    facts, arrays = unpack(training.view(there, training.SCORED).pack())
    torch.testing.assert_close(arrays["scores"].float(), values, rtol=0, atol=1e-6)
    assert arrays["appears"].tolist() == answer["appears"]["values"]
    scope: dict[str, Any] = {}
    exec(facts["code"], scope)
    assert facts["code"] == training.code(there)
    torch.testing.assert_close(scope["values"], values, rtol=0, atol=1e-7)
    expect_changes(answer["changes"], arrays, values.double())
    found = scope["changes"].change.view(values.shape[1:])
    single = arrays["change"][0].isfinite()
    assert torch.equal(arrays["change"][0][single], found[single].double()) and 0 < int(single.sum()) < single.numel()


def expect_changes(said: dict[str, Any], arrays: dict[str, torch.Tensor], values: torch.Tensor) -> None:
    """Each score has a step of change where its jump is surely not 0, and it divides the curve best."""
    (step, first, last), (jump, least, most) = arrays["change"], arrays["jump"]
    assert said["axes"] == ["score", "layer", "head"]
    for place in torch.cartesian_prod(*map(torch.arange, values.shape[1:])).tolist():
        curve = values[:, *place]
        halves = [(curve[:c], curve[c:]) for c in range(1, len(STEPS))]
        errors = [sum(float((half - half.mean()).square().sum()) for half in pair) for pair in halves]
        best = min(range(len(errors)), key=lambda c: (round(errors[c], 12), c))
        before, after = halves[best]
        key = tuple(place)
        assert float(jump[key]) == pytest.approx(float(after.mean() - before.mean()), abs=1e-5)
        assert least[key] <= jump[key] <= most[key] or float(least[key]) == pytest.approx(float(jump[key]), abs=1e-5)
        has = bool((least[key] > 0) | (most[key] < 0))
        assert bool(step[key].isfinite()) == has
        i, j, k = place
        assert said["step"][i][j][k] == (STEPS[best + 1] if has else None)
        assert not has or (step[key] == STEPS[best + 1] and first[key] <= last[key])


def test_pages_without_a_server_get_the_chosen_steps_in_one_file(scene: Callable[..., Scene]) -> None:
    there = scene(model=DIGITS)
    facts, arrays = unpack(training.view(there, [0, 8, 40]).pack())
    _, rows = unpack(training.view(there).pack())
    _, scores = unpack(training.view(there, training.SCORED).pack())
    kept = [STEPS.index(step) for step in (0, 8, 40)]
    assert facts["steps"] == [0, 8, 40]
    assert torch.equal(arrays["rows"], rows["rows"][kept]) and torch.equal(arrays["scores"], scores["scores"][kept])
    with pytest.raises(PrismaError, match="expected part 1"):
        training.view(there, 2)


def test_a_model_with_one_checkpoint_has_no_rows(vit_library: Library) -> None:
    view = training.view(vit_library.scene(State()))
    assert view.facts["steps"] == [0] and not view.arrays and view.facts["curves"] == {}


class Young(Subject):
    """Two steps of a model without a class token, whose one image is noise; no test images."""

    name, rev, steps = "young", "1", [0, 5]

    def __init__(self) -> None:
        config = ViTConfig(
            image_size=8, patch_size=4, channels=1, d_model=16, n_layers=1, n_heads=2, d_mlp=16, n_classes=2,
            class_token=False, pool="mean",
        )  # fmt: skip
        self.models = {step: ViT(config) for step in self.steps}

    @property
    def final(self) -> Loaded:
        return self._checkpoint(5)

    def _checkpoint(self, step: int) -> Loaded:
        return Loaded(self.models[step], None, ())

    def examples(self) -> list[Picture]:
        return [Picture("noise", torch.ones(1, 8, 8).cumsum(-1) / 8, "0")]

    def kinds(self) -> Sequence[Any]:
        return [0]

    def metrics(self) -> list[dict[str, Any]]:
        return [{"step": 0, "loss": float("nan"), "note": "text", "done": True}, {"step": 5, "loss": 1}]


def test_without_a_class_token_rows_are_means_over_tokens() -> None:
    scene = Scene(State(), Young())
    view = training.view(scene)
    _, arrays = unpack(view.pack())
    _, acts = prisma.record(scene.at_step(0).loaded.model, scene.picture.x[None], "blocks.0.attn.pattern")
    expected = acts["blocks.0.attn.pattern"][0].mean(-2).double()
    torch.testing.assert_close(attention(arrays, "rows")[0, 0], expected, rtol=0, atol=2e-3)
    assert view.facts["of"] == "all tokens, on average"
    assert view.facts["curves"] == {"loss": {"count": 1, "steps": [5], "values": [1.0]}}
    answer = training.values(scene)
    assert answer["images"] == 1 and answer["changes"] is None  # of one image there is no interval


@dataclass(frozen=True)
class Broken(Mouse):
    """A mouse whose checkpoint of one step has diverged."""

    at_step: int

    def _checkpoint(self, step: int) -> Loaded:
        loaded = super()._checkpoint(step)
        if step != self.at_step:
            return loaded
        model = deepcopy(loaded.model)
        model.readout.head.bias.data[0] = torch.nan
        return replace(loaded, model=model)


@pytest.mark.parametrize("at_step", [16, 40])
def test_a_checkpoint_that_has_diverged_is_left_out_and_named(
    scene: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch, at_step: int
) -> None:
    monkeypatch.setattr(training, "_FINITE", Cache(9, lambda _: 1))
    monkeypatch.setattr(training, "_SCORED", Cache(9, lambda _: 1))
    whole = scene(model=DIGITS)
    expected = unpack(training.view(whole, training.SCORED).pack())[1]["scores"]
    monkeypatch.setattr(training, "_FINITE", Cache(9, lambda _: 1))
    monkeypatch.setattr(training, "_SCORED", Cache(9, lambda _: 1))
    mouse = whole.subject
    assert isinstance(mouse, Mouse)
    there = Scene(State(step=at_step), Broken(mouse.published, at_step))
    left = [step for step in STEPS if step != at_step]
    facts, arrays = unpack(training.view(there).pack())
    assert (facts["steps"], facts["diverged"], len(arrays["rows"])) == (left, [at_step], 7)
    scores = unpack(training.view(there, training.SCORED).pack())[1]["scores"]
    assert torch.equal(scores, expected[[STEPS.index(step) for step in left]])
    answer = training.values(there)
    assert (answer["steps"], answer["diverged"]) == (left, [at_step])
    assert f"# step {at_step}\n" not in training.code(there) and "# step 32\n" in training.code(there)
    head = answer_view(there)
    assert head.facts["diverged"] and head.facts["top"] == [] and set(head.arrays) == {"image"}


@dataclass(frozen=True)
class Damaged(Broken):
    """As it is when the weights are not finite: they cannot be read."""

    def _checkpoint(self, step: int) -> Loaded:
        if step == self.at_step:
            raise NotFiniteError("expected finite weights")
        return super()._checkpoint(step)


def test_a_checkpoint_without_finite_weights_is_left_out(
    scene: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "_FINITE", Cache(9, lambda _: 1))
    mouse = scene(model=DIGITS).subject
    assert isinstance(mouse, Mouse)
    there = Scene(State(), Damaged(mouse.published, 16))
    assert training.finite_steps(there) == tuple(step for step in STEPS if step != 16)


def test_a_run_that_has_diverged_from_the_start_is_a_sentence(
    scene: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "_FINITE", Cache(9, lambda _: 1))
    monkeypatch.setattr(training, "_finite", lambda _: ())
    with pytest.raises(PrismaError, match="found that all of lab/digits have diverged"):
        training.view(scene(model=DIGITS))
