"""Analyses of single units by name: their top images, and register neurons."""

from collections.abc import Mapping

from prisma.analysis.attention.register_neurons import RegisterNeurons, register_neurons
from prisma.analysis.attention.test_time_registers import TestTimeRegisters, test_time_registers
from prisma.analysis.top_images import TopImages, top_images
from prisma.fields import parse
from prisma.study.entry import Analysis
from prisma.study.inputs import ShardInputs


def _top_images(inputs: ShardInputs) -> TopImages:
    """The same for all shards: of the whole data set."""
    given, where = inputs.options["units"], inputs.options["where"]
    units = None if given is None else parse("units", given, tuple[int, ...])
    site = inputs.options["site"] or f"blocks.{inputs.model.config.n_layers - 1}.mlp.post"
    return inputs.once(
        "top_images",
        lambda: top_images(
            inputs.model, inputs.pictures, site, units, inputs.options["top"], batch=inputs.batch,
            where=int(where) if where.isdecimal() else where, pool=inputs.options["pool"],
        ),
    )  # fmt: skip


def _register_neurons(inputs: ShardInputs) -> RegisterNeurons:
    """The same for all shards: of the first images."""
    options = inputs.select_options("stage", "factor")
    return inputs.once(
        "register_neurons",
        lambda: register_neurons(inputs.model, inputs.reference, batch=inputs.batch, **options),
    )


UNITS: Mapping[str, Analysis] = {
    "top_images": Analysis(
        "The images of the data set to which each unit of a site answers most, and where in them.",
        {"site": None, "units": None, "where": "patches", "pool": "mean", "top": 9},
        TopImages,
        _top_images,
    ),
    "register_neurons": Analysis(
        "The neurons that answer at the patches with unusually large norms, in the first images.",
        {"stage": None, "factor": 3.0},
        RegisterNeurons,
        _register_neurons,
    ),
    "test_time_registers": Analysis(
        "What becomes of artifacts, attention and logits when register neurons are moved to an added empty token.",
        {"stage": None, "factor": 3.0, "neurons": 10, "registers": 1, "seed": 0},
        TestTimeRegisters,
        lambda inputs: test_time_registers(
            inputs.model,
            inputs.images,
            _register_neurons(inputs),
            n=inputs.options["neurons"],
            batch=inputs.batch,
            **inputs.select_options("registers", "seed"),
        ),
    ),
}
"""Name -> analysis."""
