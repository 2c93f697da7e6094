"""Attribution over a data set: a shard's numbers are those of the same images in the whole data set."""

from pathlib import Path

import pytest
import torch

from prisma import PrismaError
from prisma.analysis.attribution.attribute import attribute
from prisma.analysis.attribution.questions import Neuron
from prisma.study.attribution import attribute_of, compare_maps_of, importance_of, map_curves_of
from prisma.study.inputs import ShardInputs
from tests.study.study import job_of


def test_results_do_not_depend_on_shards(tmp_path: Path) -> None:
    given = {
        "attribute": (attribute_of, {"method": "kernel_shap", "samples": "20"}, ["map"]),
        "map_curves": (map_curves_of, {"method": "rise", "samples": "10", "points": "3"}, ["curve", "random"]),
        "compare_maps": (
            compare_maps_of,
            {"methods": "occlusion,attn-lrp", "points": "3"},
            ["deletion", "sensitivity"],
        ),
        "importance": (importance_of, {"target": "2"}, ["map"]),
    }
    for name, (function, options, arrays) in given.items():
        job = job_of(name, tmp_path, **options)
        parts = [function(ShardInputs(job.model, job.pictures, rows, job.options)) for rows in (range(2, 5), range(5))]
        for array in arrays:
            torch.testing.assert_close(getattr(parts[0], array), getattr(parts[1], array)[2:], equal_nan=True)


def test_a_neuron_is_explained_over_a_data_set(tmp_path: Path) -> None:
    neuron = Neuron("blocks.0.mlp.post", 3, token=None)
    options = {"neuron": "blocks.0.mlp.post:3,token=mean", "samples": "8", "tolerance": "1"}
    for variant in ("base", "no_head"):
        job = job_of("attribute", tmp_path, variant=variant, **options)
        found = attribute_of(ShardInputs(job.model, job.pictures, range(5), job.options))
        images = job.pictures.read(range(5))
        expected = attribute(job.model, images, neuron, samples=8, tolerance=1)
        torch.testing.assert_close(found.map, expected.map)
        assert found.metadata["target"] == repr(neuron)
    both = job_of("map_curves", tmp_path, neuron="blocks.0.mlp.post:3", target="1")
    with pytest.raises(PrismaError, match=r"a neuron or a target; found both, blocks\.0\.mlp\.post:3 and 1"):
        map_curves_of(ShardInputs(both.model, both.pictures, range(5), both.options))


def test_the_absence_of_a_curve_is_not_that_of_a_gradient(tmp_path: Path) -> None:
    job = job_of("map_curves", tmp_path, absent="baseline", samples="8", tolerance="1", points="3")
    found = map_curves_of(ShardInputs(job.model, job.pictures, range(5), job.options))
    assert found.metadata["absent"] == "baseline"
