"""The catalogue: every analysis can be run by name, and its options are read and refused by name."""

from dataclasses import fields
from pathlib import Path

import pytest
import torch

from prisma import PrismaError
from prisma.analysis.patching.activation_patching import activation_patching
from prisma.study.catalog import ANALYSES, OPTIONS, analysis, options_of
from prisma.study.inputs import ShardInputs
from tests.study.study import study_of

GIVEN = {"causal_tracing": {"samples": "2"}}


@pytest.mark.parametrize("name", ANALYSES)
def test_every_array_of_every_analysis_has_its_images_first(name: str, tmp_path: Path) -> None:
    study = study_of(name, tmp_path, **GIVEN.get(name, {}))
    found = ANALYSES[name].function(ShardInputs(study.model, study.pictures, range(3), study.options))
    assert type(found) is ANALYSES[name].result
    for array in (f.name for f in fields(found) if f.name != "metadata" and getattr(found, f.name) is not None):
        assert found.axes[array][0] == "image", f"{array} cannot be joined"
        assert len(getattr(found, array)) == 3


def test_options_reach_the_analysis(tmp_path: Path) -> None:
    study = study_of("activation_patching", tmp_path, site="resid_mid", into="corrupt", metric="probability")
    inputs = ShardInputs(study.model, study.pictures, range(5), study.options)
    found = ANALYSES["activation_patching"].function(inputs)
    images = inputs.images
    expected = activation_patching(study.model, images, images.roll(-1, 0), "resid_mid", inputs.metric, into="corrupt")
    assert found.axes["values"] == ("image", "layer", "token")
    assert torch.equal(found.arrays["values"], expected.values)


@pytest.mark.parametrize(("by", "same"), [("zero", True), ("mean", True), ("resample", False)])
def test_ablation_has_its_reference(by: str, same: bool, tmp_path: Path) -> None:
    study = study_of("ablation", tmp_path, by=by)
    first, whole = (
        ANALYSES["ablation"].function(ShardInputs(study.model, study.pictures, rows, study.options)).arrays["values"]
        for rows in (range(3), range(5))
    )
    assert torch.allclose(first, whole[:3], rtol=1e-10) == same


def test_what_an_option_is_stands_in_one_table() -> None:
    assert {option for a in ANALYSES.values() for option in a.options} == set(OPTIONS)
    for a in ANALYSES.values():
        for name, default in a.options.items():
            assert default is None or type(default) is OPTIONS[name].kind


def test_options_are_read_by_kind() -> None:
    found = options_of("causal_tracing", {"noise": "2", "samples": "3", "site": "mlp_out"})
    assert (found["noise"], found["samples"], found["site"], found["window"]) == (2.0, 3, "mlp_out", 1)
    assert options_of("logit_lens", {"tokens": "Yes"}) == {"tokens": True}


@pytest.mark.parametrize(
    ("name", "given", "sentence"),
    [
        ("patchin", {}, "there is no analysis 'patchin'; the nearest: path_patching, activation_patching"),
        ("rollout", {"head": "mean"}, "rollout has no option 'head'; the nearest of its own: heads"),
        ("rollout", {"metric": "logit"}, "rollout has no option 'metric'"),
        ("rollout", {"residual": "half"}, "expected residual to be a number; found 'half'"),
        ("causal_tracing", {"samples": "2.5"}, "expected samples to be a whole number; found '2.5'"),
        ("logit_lens", {"tokens": "some"}, "expected tokens to be yes or no; found 'some'"),
    ],
)
def test_mistakes_offer_what_there_is(name: str, given: dict[str, str], sentence: str) -> None:
    with pytest.raises(PrismaError, match=sentence):
        options_of(name, given)
    if name == "patchin":
        with pytest.raises(PrismaError, match=sentence):
            analysis(name)
