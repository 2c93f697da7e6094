"""Analyses of single units by name: their top images, words for these, and register neurons."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from prisma.analysis.attention.register_neurons import RegisterNeurons, register_neurons
from prisma.analysis.attention.test_time_registers import TestTimeRegisters, test_time_registers
from prisma.analysis.clip_dissect import ClipDissect, similarity_of
from prisma.analysis.top_images import TopImages, top_images
from prisma.data.pictures import Pictures
from prisma.errors import PrismaError, quoted
from prisma.fields import parse
from prisma.filesystem import given
from prisma.loaded import load
from prisma.reading import read_lines
from prisma.study.entry import Analysis
from prisma.study.inputs import ShardInputs
from prisma.study.options import OPTIONS

_OF_SITE: Mapping[str, Any] = {"site": None, "units": None, "head": None, "where": "patches", "pool": "mean", "top": 9}


def _site(inputs: ShardInputs) -> str:
    """The neurons of the last block where none is asked for."""
    return inputs.options["site"] or f"blocks.{inputs.model.config.n_layers - 1}.mlp.post"


def _units(inputs: ShardInputs) -> tuple[int, ...] | None:
    """Those that are asked for; None is all of the site."""
    given = inputs.options["units"]
    return None if given is None else parse("units", given, tuple[int, ...])


def _top(inputs: ShardInputs, images: Tensor | Pictures, units: tuple[int, ...] | None) -> TopImages:
    where = inputs.options["where"]
    return top_images(
        inputs.model, images, _site(inputs), units, inputs.options["top"], batch=inputs.batch,
        where=int(where) if where.removeprefix("-").isdecimal() else where, **inputs.select_options("head", "pool"),
    )  # fmt: skip


def _top_images(inputs: ShardInputs) -> TopImages:
    """The same for all shards: of the whole data set."""
    return inputs.once("top_images", lambda: _top(inputs, inputs.pictures, _units(inputs)))


def _clip_dissect(inputs: ShardInputs) -> ClipDissect:
    """The same for all shards: of the whole data set, at which the CLIP looks through its own transform."""

    def named() -> ClipDissect:
        words, clip = _expect_given(inputs, "words", "FILE"), _expect_given(inputs, "clip", "REF")
        known = read_lines(given(words), "words")
        _top(inputs, inputs.pictures.read([0]).to(inputs.model.embed.prefix), _units(inputs))  # refuses what it refuses
        looks = load(clip)
        if looks.text is None:
            raise PrismaError(f"expected a CLIP with its text side for clip; found {quoted(clip)}, which has none")
        looks.model.to(inputs.device)
        pictures = inputs.pictures.for_model(looks.transform, looks.input_shape)
        found = ClipDissect.of(
            _top(inputs, inputs.pictures, None), similarity_of(looks, pictures, known).cpu(), known, _units(inputs)
        )
        return replace(found, metadata={**found.metadata, "clip": clip})

    return inputs.once("clip_dissect", named)


def _expect_given(inputs: ShardInputs, name: str, form: str) -> str:
    """An option without a default. Raises PrismaError unless it was given."""
    if inputs.options[name] is None:
        raise PrismaError(f"expected --set {name}={form}, {OPTIONS[name].help}; found none")
    return str(inputs.options[name])


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
        _OF_SITE,
        TopImages,
        _top_images,
    ),
    "clip_dissect": Analysis(
        "A word for each unit of a site: what a CLIP finds likely for its images, and not for those of other units.",
        {**_OF_SITE, "words": None, "clip": None},
        ClipDissect,
        _clip_dissect,
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
