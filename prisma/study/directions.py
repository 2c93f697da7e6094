"""The analyses of directions and subspaces that can run over a data set; the catalog lists them among all others."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from prisma.analysis.directions.concept_vectors import Classifiers, ConceptVectors, find_concept
from prisma.analysis.directions.fourier_components import FourierComponents, fourier_components
from prisma.analysis.directions.interchange import Interchange, Search, learn_subspaces
from prisma.analysis.directions.places import Place
from prisma.analysis.directions.second_order_lens import SecondOrderLens, second_order_lens
from prisma.analysis.directions.steering import Steering, mean_difference, steering
from prisma.analysis.directions.text_span import TextSpan, text_span
from prisma.errors import PrismaError
from prisma.fields import parse
from prisma.study.class_space import layers_of
from prisma.study.entry import Analysis
from prisma.study.inputs import ShardInputs

EXAMPLES = 100
"""Images of a concept, at most."""


def _place(inputs: ShardInputs) -> dict[str, Any]:
    """The site and the tokens of the options."""
    where, site = inputs.options["where"], inputs.options["site"]
    if site is None:
        site = f"blocks.{inputs.model.config.n_layers - 1}.resid_post"
    number = where.removeprefix("-").isdecimal()
    return {"site": site, "where": int(where) if number else where, "head": inputs.options["head"]}


def _interchange(inputs: ShardInputs) -> Interchange:
    def learned() -> Any:
        known = inputs.counterfactuals("train", inputs.options["training"])
        search = Search(**inputs.select_options("dim", "steps", "seed"))
        place = Place.of(inputs.model, **_place(inputs))
        return learn_subspaces(
            inputs.model, known.images, known.sources, known.labels, place, search, batch=inputs.batch
        )

    asked = inputs.counterfactuals("test")
    found: Interchange = inputs.once("subspaces", learned).read(
        inputs.model, asked.images, asked.sources, asked.labels, batch=inputs.batch
    )
    return found


def _steering(inputs: ShardInputs) -> Steering:
    def direction() -> Tensor:
        images, chosen = inputs.concept(inputs.options["training"])
        return mean_difference(inputs.model, images, chosen, batch=inputs.batch, **_place(inputs))

    doses = torch.tensor(parse("doses", inputs.options["doses"], tuple[float, ...]))
    return steering(
        inputs.model,
        inputs.images,
        inputs.metric,
        inputs.once("direction", direction),
        doses=doses,
        batch=inputs.batch,
        **inputs.select_options("controls", "seed"),
        **_place(inputs),
    )


def _concept_vectors(inputs: ShardInputs) -> ConceptVectors:
    def concept() -> Any:
        images, chosen = inputs.concept(inputs.options["training"])
        own, others = images[chosen.to(images.device)], images[~chosen.to(images.device)]
        most = min(EXAMPLES, len(others) // 2)
        classifiers = Classifiers(**inputs.select_options("draws", "alpha", "seed"))
        place = Place.of(inputs.model, **_place(inputs))
        return find_concept(inputs.model, own[:most], others, place, classifiers, batch=inputs.batch)

    found: ConceptVectors = inputs.once("concept", concept).read(
        inputs.model, inputs.images, inputs.metric, batch=inputs.batch
    )
    return found


def _named(inputs: ShardInputs) -> tuple[Tensor, dict[str, Any]]:
    """The images of an analysis of all of them together, and the options that its like share."""
    if len(inputs.pictures) < 2:
        raise PrismaError(f"expected two images or more; found {len(inputs.pictures)}")
    images = inputs.pictures.read(range(len(inputs.pictures)))
    options = inputs.select_options("space", "seed") | {"layers": layers_of(inputs), "batch": inputs.batch}
    return images.to(inputs.model.embed.prefix), options


def _text_span(inputs: ShardInputs) -> TextSpan:
    def found() -> TextSpan:
        images, options = _named(inputs)
        return text_span(inputs.model, images, **options, **inputs.select_options("steps", "controls"))

    whole, rows = inputs.once("text_span", found), list(inputs.rows)
    agreement = None if whole.agreement is None else whole.agreement[rows]
    return replace(whole, similarity=whole.similarity[rows], agreement=agreement)


def _second_order_lens(inputs: ShardInputs) -> SecondOrderLens:
    def found() -> SecondOrderLens:
        images, options = _named(inputs)
        return second_order_lens(inputs.model, images, **options, texts=inputs.options["texts"])

    return inputs.once("second_order_lens", found)


def _fourier_components(inputs: ShardInputs) -> FourierComponents:
    """Of all pictures and all training images; the arrays over images are those of this shard's pictures."""

    def found() -> FourierComponents:
        given = inputs.options["frequencies"]
        keys = None if given is None else parse("frequencies", given, tuple[int, ...])
        whole = fourier_components(inputs.model, *inputs.pairs_of_numbers(), frequencies=keys, batch=inputs.batch)
        return replace(whole, training_excluded_loss=whole.excluded_loss[len(inputs.pictures) :])

    whole = inputs.once("fourier_components", found)
    own = {name: getattr(whole, name)[list(inputs.rows)] for name, axes in whole.axes.items() if axes[0] == "image"}
    return replace(whole, **own)


_AT = {"site": None, "where": "class", "head": None}
_ALL = {"space": None, "layers": None, "seed": 0}

DIRECTIONS: Mapping[str, Analysis] = {
    "interchange": Analysis(
        "Whether a learned subspace of an activation carries one factor of the images, against controls.",
        {"exchange": None, **_AT, "dim": 1, "steps": 200, "training": 1024, "seed": 0},
        Interchange,
        _interchange,
    ),
    "steering": Analysis(
        "The metric when the direction of a concept is added to an activation, dose by dose.",
        {
            **{"concept": None, **_AT, "doses": "-2,-1.5,-1,-0.5,0,0.5,1,1.5,2", "controls": 5},
            **{"training": 1024, "seed": 0, "metric": "logit", "target": None},
        },
        Steering,
        _steering,
    ),
    "concept_vectors": Analysis(
        "Whether the metric rises towards a concept, and more often than towards random sets of images (TCAV).",
        {
            **{"concept": None, **_AT, "draws": 20, "alpha": 1.0},
            **{"training": 1024, "seed": 0, "metric": "logit", "target": None},
        },
        ConceptVectors,
        _concept_vectors,
    ),
    "fourier_components": Analysis(
        "The frequencies at which a model that adds modulo p knows its numbers, and its loss with and without them.",
        {"frequencies": None},
        FourierComponents,
        _fourier_components,
    ),
    "text_span": Analysis(
        "Which classes, or prompts of a CLIP, span what each head writes to the output.",
        {"steps": 5, "controls": 3, **_ALL},
        TextSpan,
        _text_span,
    ),
    "second_order_lens": Analysis(
        "What each neuron writes through later heads, and the classes or prompts that are nearest to it.",
        {"texts": 4, **_ALL},
        SecondOrderLens,
        _second_order_lens,
    ),
}
"""Name -> analysis."""
