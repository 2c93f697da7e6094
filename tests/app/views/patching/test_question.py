"""The question of patching: the classes, the gap, and one sentence for everything that is wrong."""

from collections.abc import Callable

import pytest
import torch
from prisma_app.library import Scene
from prisma_app.views.patching.question import question_of, sites_of

from prisma.errors import PrismaError
from prisma.metrics import Logit, LogitDiff, Probability


def test_the_classes_are_what_the_final_weights_answer(scene: Callable[..., Scene]) -> None:
    early, final = scene(corrupt="3", step=0), scene(corrupt="3")
    with torch.no_grad():
        clean, corrupt = (final.loaded.model(x.x[None])[0] for x in (final.picture, final.corrupt))
    target = int(clean.argmax())
    against = next(c for c in corrupt.argsort(descending=True).tolist() if c != target)
    for some in (early, final):
        question = question_of(some)
        assert (question.target, question.against) == (target, against)
        assert question.metric == LogitDiff(target, against)
    assert early.loaded is not final.loaded


@pytest.mark.parametrize(
    ("given", "metric"),
    [
        ({"metric": "logit", "target": 7}, Logit(7)),
        ({"metric": "probability", "target": 0}, Probability(0)),
        ({"target": 4, "against": 2}, LogitDiff(4, 2)),
    ],
)
def test_a_given_class_is_measured(scene: Callable[..., Scene], given: dict[str, object], metric: object) -> None:
    assert question_of(scene(**given)).metric == metric


def test_a_given_class_is_never_the_other_one_too(scene: Callable[..., Scene]) -> None:
    default = question_of(scene())
    assert question_of(scene(target=default.against)).against != default.against
    assert question_of(scene(against=default.target)).target != default.target


def test_the_gap_runs_from_the_changed_run_to_the_other(scene: Callable[..., Scene]) -> None:
    runs = {"clean": 4.0, "corrupt": 1.0}
    values = torch.tensor([4.0, 1.0, 2.5])
    noising, denoising = question_of(scene()), question_of(scene(into="corrupt"))
    assert (noising.gap(runs), denoising.gap(runs)) == (-3.0, 3.0)
    for question, shares in ((noising, [0.0, 1.0, 0.5]), (denoising, [1.0, 0.0, 0.5])):
        found = question.recovered(values, runs)
        assert found is not None
        assert found.tolist() == shares


def test_runs_that_differ_by_rounding_have_no_gap(scene: Callable[..., Scene]) -> None:
    question = question_of(scene())
    assert question.gap({"clean": 9.0, "corrupt": 9.000001}) is None
    assert question.recovered(torch.zeros(2), {"clean": 0.0, "corrupt": 0.0}) is None
    assert question.gap({"clean": 9.0, "corrupt": 9.001}) == pytest.approx(0.001)


def test_sites_are_those_of_the_model(scene: Callable[..., Scene]) -> None:
    assert sites_of(scene().config) == ["resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out"]
    assert "mlp_out" not in sites_of(scene(model="lab/glyphs").config)  # it has attention only


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"site": "attn.z"}, "expected a site of the token map among resid_pre, .*; found 'attn.z'"),
        ({"model": "lab/glyphs", "site": "mlp_out"}, "found 'mlp_out'"),
        ({"target": 10}, "expected a class from 0 to 9; found 10"),
        ({"against": 99}, "expected a class from 0 to 9; found 99"),
        ({"target": 1, "against": 1}, "expected two classes that differ"),
        ({"corrupt": "0"}, "differs from the clean image"),
        ({"corrupt": "999"}, "expected an example"),
        ({"corrupt": "blur:16"}, "expected patches from 0 to 15; found 16"),
        ({"corrupt": "smear:1"}, "one of blur, noise, mean"),
        ({"corrupt": "mean:1,,2"}, "expected patches as numbers"),
        ({"corrupt": "mean:٣"}, "expected patches as numbers"),
    ],
)
def test_every_mistake_is_a_sentence(scene: Callable[..., Scene], given: dict[str, object], sentence: str) -> None:
    with pytest.raises(PrismaError, match=sentence):
        question_of(scene(**given))
