"""The catalog: every analysis can be run by name, with its own options."""

from dataclasses import fields
from pathlib import Path

import pytest
import torch

from prisma import PrismaError
from prisma.analysis.patching.activation_patching import activation_patching
from prisma.study.catalog import ANALYSES, analysis, canonical_name, options_of
from prisma.study.inputs import ShardInputs
from tests.study.study import job_of

GIVEN = {
    "circuit_evaluation": {"corrupt": "mean", "metric": "logit"},  # of noise, an effect of one sign in all pairs
    "causal_tracing": {"samples": "2"},
    "linear_probes": {"training": "8"},
    "compare_maps": {"methods": "occlusion,attn-lrp", "points": "3"},
    "attribute": {"tolerance": "1"},
    "map_curves": {"tolerance": "1"},
    "modularity": {"null": "3", "k": "2"},
    "clip_dissect": {"clip": "a-small-clip", "words": str(Path(__file__).with_name("words.txt")), "top": "3"},
    "register_neurons": {"factor": "1.1"},
    "test_time_registers": {"factor": "1.1", "neurons": "2"},
    "interchange": {"exchange": "hue", "steps": "2", "training": "20", "site": "blocks.0.resid_post"},
    "steering": {"concept": "shape:x", "training": "40", "site": "blocks.0.resid_post", "controls": "1"},
    "concept_vectors": {"concept": "hue:1", "training": "48", "site": "blocks.0.resid_post", "draws": "2"},
}


@pytest.mark.parametrize("name", ANALYSES)
def test_every_array_of_every_analysis_has_its_images_first_or_is_the_same_for_all(name: str, tmp_path: Path) -> None:
    job = job_of(name, tmp_path, **GIVEN.get(name, {}))
    inputs = [ShardInputs(job.model, job.pictures, rows, job.options) for rows in (range(3), range(3, 5))]
    found, other = map(ANALYSES[name].function, inputs)
    assert type(found) is ANALYSES[name].result
    for array in (f.name for f in fields(found) if f.name != "metadata" and getattr(found, f.name) is not None):
        if found.axes[array][0] == "image":
            assert len(getattr(found, array)) == 3
        else:
            assert torch.equal(getattr(found, array), getattr(other, array)), f"{array} cannot be merged"


def test_options_reach_the_analysis(tmp_path: Path) -> None:
    job = job_of("activation_patching", tmp_path, site="resid_mid", into="corrupt", metric="probability")
    inputs = ShardInputs(job.model, job.pictures, range(5), job.options)
    found = ANALYSES["activation_patching"].function(inputs)
    images = inputs.images
    expected = activation_patching(job.model, images, images.roll(-1, 0), "resid_mid", inputs.metric, into="corrupt")
    assert found.axes["values"] == ("image", "layer", "token")
    assert torch.equal(found.arrays["values"], expected.values)


@pytest.mark.parametrize(("by", "same"), [("zero", True), ("mean", True), ("resample", False)])
def test_ablation_has_its_reference(by: str, same: bool, tmp_path: Path) -> None:
    job = job_of("ablation", tmp_path, by=by)
    first, whole = (
        ANALYSES["ablation"].function(ShardInputs(job.model, job.pictures, rows, job.options)).arrays["values"]
        for rows in (range(3), range(5))
    )
    assert torch.allclose(first, whole[:3], rtol=1e-10) == same


def test_dashes_are_accepted_for_underscores() -> None:
    assert canonical_name("logit-lens") == canonical_name("logit_lens") == "logit_lens"
    assert analysis("logit-lens") is ANALYSES["logit_lens"]


def test_the_result_names_its_analysis() -> None:
    for name, entry in ANALYSES.items():
        assert name == "".join(f"_{c.lower()}" if c.isupper() else c for c in entry.result.__name__).strip("_")


def test_options_are_read_by_type() -> None:
    options = options_of("causal-tracing", {"noise": "2", "samples": "3", "site": "mlp_out"})
    assert (options["noise"], options["samples"], options["site"], options["window"]) == (2.0, 3, "mlp_out", 1)


def test_an_unknown_name_is_refused_and_the_nearest_are_given() -> None:
    nearest = "path_patching, relevance_patching, activation_patching"
    message = f"expected the name of an analysis; found 'patchin'; the nearest: {nearest}"
    for call in (lambda: analysis("patchin"), lambda: canonical_name("patchin"), lambda: options_of("patchin", {})):
        with pytest.raises(PrismaError, match=message):
            call()
