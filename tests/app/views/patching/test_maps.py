"""The maps, their numbers for programs, and the Python that makes them."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from prisma_app.library import Library, Scene
from prisma_app.state import State
from prisma_app.views import VIEWS
from prisma_app.views.patching import code, maps, values, view
from prisma_app.views.patching.question import question_of

from prisma.analysis.patching.activation_patching import activation_patching, sweep
from prisma.errors import PrismaError
from tests.app.unpack import read


def test_a_mouse_is_exact_at_once(scene: Callable[..., Scene]) -> None:
    some = scene(img="1", corrupt="mean:2,3", site="attn_out", metric="probability")
    question, shown = question_of(some), view(some)
    assert shown.facts["exact"]
    for name, site, axis in (("heads", "attn.z", "head"), ("tokens", "attn_out", "token")):
        expected = sweep(question.model, question.clean, question.corrupt, site, question.metric, axis=axis)
        torch.testing.assert_close(read(shown, name).float(), expected)
    assert shown.facts["state"] == {
        **some.resolved(), "corrupt": "mean:2,3", "metric": "probability", "into": "clean", "site": "attn_out",
        "target": question.target, "against": question.against,
    }  # fmt: skip
    assert shown.facts["captions"]["corrupt"].endswith("2 of 16 patches replaced by their mean")


def test_a_link_with_what_was_filled_in_is_the_same_figure(scene: Callable[..., Scene]) -> None:
    first = view(scene(img="4", into="corrupt"))
    again = view(scene(**first.facts["state"]))
    assert again.pack() == first.pack()


def test_a_large_model_has_estimates_first(vit_library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maps, "QUICK", 0)
    shown = view(vit_library.scene(State.of({"corrupt": "2"})))
    assert not shown.facts["exact"]
    assert set(shown.arrays) == {"clean", "corrupt", "heads.estimate", "tokens.estimate"}
    assert shown.facts["counts"] == {"heads": 6, "tokens": 2 * 197}


def test_the_real_sizes_are_told_apart(scene: Callable[..., Scene], vit_library: Library) -> None:
    tiny = {"n_layers": 12, "n_heads": 3, "d_model": 192, "d_mlp": 768}
    config = vit_library.scene(State()).config
    assert maps._cost(scene().config) < maps.QUICK < maps._cost(replace(config, **tiny))


def test_values_are_the_sweep_with_the_recovered_share(scene: Callable[..., Scene]) -> None:
    some = scene(img="3", corrupt="5", into="corrupt")
    question, found = question_of(some), values(some)
    expected = activation_patching(
        question.model, question.clean, question.corrupt, "attn.z", question.metric, into="corrupt"
    )
    assert found["axes"] == ["layer", "head"]
    torch.testing.assert_close(torch.tensor(found["values"]), expected.effect)
    torch.testing.assert_close(torch.tensor(found["recovered"]), expected.normalised())
    assert found["clean"] == pytest.approx(expected.clean.item())
    assert found["corrupt"] == pytest.approx(expected.corrupt.item())
    assert (found["pair"], found["into"]) == ({"clean": "3", "corrupt": "5"}, "corrupt")
    assert (found["target"], found["against"]) == (question.target, question.against)


@pytest.mark.parametrize(
    "given",
    [
        {"corrupt": "3"},
        {"corrupt": "blur:", "metric": "logit", "target": 2},
        {"corrupt": "noise:0,5", "into": "corrupt", "step": 0},
        {"corrupt": "mean:4", "metric": "probability"},
    ],
)
def test_the_code_gives_the_same_numbers(scene: Callable[..., Scene], given: dict[str, Any]) -> None:
    some = scene(img="1", **given)
    names: dict[str, Any] = {}
    exec(code(some), names)
    torch.testing.assert_close(names["values"].tolist(), values(some)["values"], rtol=1e-5, atol=1e-5)


def test_images_without_a_gap_are_shown_without_shares(scene: Callable[..., Scene]) -> None:
    shown = view(scene(img="ink:1:AA", corrupt="blur:", target=0, against=1))
    assert shown.facts["gap"] is None
    assert values(scene(img="ink:1:AA", corrupt="blur:", target=0, against=1))["recovered"] is None


def test_only_known_parts(scene: Callable[..., Scene]) -> None:
    with pytest.raises(PrismaError, match="expected part 1"):
        VIEWS["patching"].view(scene(), 9)
