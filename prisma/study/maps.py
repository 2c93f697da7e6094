"""Feature attribution over a data set: what the catalog calls for one shard."""

from collections.abc import Mapping
from typing import Any

from prisma.analysis.attribution.attribute import Attribute, attribute
from prisma.analysis.attribution.compare_maps import CompareMaps, compare_maps
from prisma.analysis.attribution.importance import Importance, importance
from prisma.analysis.attribution.map_curves import MapCurves, map_curves
from prisma.study.inputs import ShardInputs

ATTRIBUTION: Mapping[str, Any] = {
    "method": "integrated_gradients",
    "absent": None,
    "samples": None,
    "segments": None,
    "tolerance": 0.001,
    "seed": 0,
}


def attribute_of(inputs: ShardInputs) -> Attribute:
    options = inputs.select_options("method", "absent", "samples", "segments", "tolerance")
    return attribute(inputs.model, inputs.images, inputs.metric, seed=inputs.seed, batch=inputs.batch, **options)


def map_curves_of(inputs: ShardInputs) -> MapCurves:
    options = inputs.select_options("kind", "absent", "points", "orders")
    maps = attribute_of(inputs).map
    return map_curves(inputs.model, inputs.images, maps, inputs.metric, seed=inputs.seed, batch=inputs.batch, **options)


def compare_maps_of(inputs: ShardInputs) -> CompareMaps:
    named = inputs.options["methods"]
    methods = None if named is None else [name.strip().replace("-", "_") for name in named.split(",")]
    options = inputs.select_options("samples", "absent", "points", "orders")
    return compare_maps(
        inputs.model,
        inputs.images,
        inputs.metric,
        coverage=inputs.object_coverage_or_none,
        methods=methods,
        seed=inputs.seed,
        batch=inputs.batch,
        **options,
    )


def importance_of(inputs: ShardInputs) -> Importance:
    return importance(inputs.model, inputs.images, inputs.classes, of=inputs.options["of"], batch=inputs.batch)
