"""The analyses of feature attribution that can run over a data set; the catalog lists them among all others."""

from collections.abc import Mapping
from typing import Any

from prisma.analysis.attribution.attribute import Attribute, attribute
from prisma.analysis.attribution.compare_maps import FEW, CompareMaps, compare_maps
from prisma.analysis.attribution.importance import Importance, importance
from prisma.analysis.attribution.map_curves import MapCurves, map_curves
from prisma.analysis.attribution.methods import METHODS
from prisma.analysis.attribution.questions import Neuron, neuron_of
from prisma.errors import PrismaError
from prisma.metrics import Metric
from prisma.study.entry import Analysis
from prisma.study.inputs import ShardInputs

_TARGET = {"metric": "logit", "target": None, "neuron": None}
_MAPS = {
    "method": "integrated_gradients",
    "absent": None,
    "samples": None,
    "segments": None,
    "tolerance": 0.001,
    "seed": 0,
}


def target_of(inputs: ShardInputs) -> Metric | Neuron:
    """The neuron of the options, or else their metric. Raises PrismaError: a neuron and a class."""
    neuron, target = inputs.options["neuron"], inputs.options["target"]
    if neuron is not None and target is not None:
        raise PrismaError(f"expected a neuron or a target; found both, {neuron} and {target}")
    return inputs.metric if neuron is None else neuron_of(neuron)


def attribute_of(inputs: ShardInputs, **changed: Any) -> Attribute:
    options = {**inputs.select_options("method", "absent", "samples", "segments", "tolerance"), **changed}
    return attribute(inputs.model, inputs.images, target_of(inputs), seed=inputs.seed, batch=inputs.batch, **options)


def map_curves_of(inputs: ShardInputs) -> MapCurves:
    options = inputs.select_options("curve", "absent", "points", "orders")
    absent = options["absent"] if METHODS[inputs.options["method"]].removes else None
    maps, target = attribute_of(inputs, absent=absent).map, target_of(inputs)
    return map_curves(inputs.model, inputs.images, maps, target, seed=inputs.seed, batch=inputs.batch, **options)


def compare_maps_of(inputs: ShardInputs) -> CompareMaps:
    named = inputs.options["methods"]
    methods = None if named is None else [name.strip().replace("-", "_") for name in named.split(",")]
    options = inputs.select_options("samples", "absent", "points", "orders")
    return compare_maps(
        inputs.model,
        inputs.images,
        target_of(inputs),
        coverage=inputs.object_coverage_or_none,
        methods=methods,
        seed=inputs.seed,
        batch=inputs.batch,
        **options,
    )


def importance_of(inputs: ShardInputs) -> Importance:
    return importance(inputs.model, inputs.images, inputs.classes, of=inputs.options["of"], batch=inputs.batch)


ATTRIBUTION: Mapping[str, Analysis] = {
    "attribute": Analysis(
        "A map of how much each patch did for the metric, by any of many methods.",
        {**_MAPS, **_TARGET},
        Attribute,
        attribute_of,
    ),
    "map_curves": Analysis(
        "The metric while patches are removed or put in, in the order of a map and in random orders.",
        {"curve": "deletion", "points": None, "orders": 1, **_MAPS, **_TARGET},
        MapCurves,
        map_curves_of,
    ),
    "compare_maps": Analysis(
        "One table of all methods of attribution: curves, agreement with masks, sanity and sensitivity.",
        {"methods": None, "samples": FEW, "absent": None, "points": 9, "orders": 1, "seed": 0, **_TARGET},
        CompareMaps,
        compare_maps_of,
    ),
    "importance": Analysis(
        "The gradient of a class at the class token's attention, in each block and head.",
        {"of": "cross_entropy", "target": None},
        Importance,
        importance_of,
    ),
}
"""Name -> analysis."""
