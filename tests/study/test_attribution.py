"""Attribution over a data set: a shard's numbers are those of the same images in the whole data set."""

from pathlib import Path

import torch

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
