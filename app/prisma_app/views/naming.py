"""Naming heads: which few of the model's classes, or prompts of a CLIP, span what each head writes to the output.

A head's contribution is a vector for each test image. Names say something of a head where they explain much more of its
variance over images than as many random directions do.
"""

from math import isnan
from typing import Any

import torch
from torch import Tensor

from prisma.analysis.directions.text_span import NONE, TextSpan, text_span
from prisma.config import ViTConfig
from prisma.errors import PrismaError
from prisma.view.browser import View, numbers
from prisma_app.library import Scene
from prisma_app.views.shared import below, code_head, program

READ = 128  # images that are read, at most
MOST_WORK = 1e12  # multiply-adds of the weights, some seconds: else fewer images
STEPS, MOST_STEPS, CONTROLS = 3, 10, 3


def naming_run(scene: Scene) -> View:
    """The names of every head in order, and what they explain: `explained`, `random` and `size` [layer, head].

    Raises:
        PrismaError: the model has no classes with directions, or fewer than two images; there are not so many names.
    """
    found, steps, read = _found(scene)
    facts = {
        "names": _names(scene, found),
        "what": _what(scene),
        "most": min(MOST_STEPS, len(scene.subject.labels)),
        "read": read,
        "similarity": [float(found.similarity[:, kept].mean()) for kept in (0, steps)],
        "more": below(_lines(scene, steps, read)),  # below the Python of the bars
        "state": scene.resolved(span=steps, prompts=scene.state.prompts or None),
    }
    last = {"explained": found.explained[..., -1], "random": found.random_explained[..., -1], "size": found.size}
    return View(facts, {name: numbers(values, missing=True) for name, values in last.items()})


def naming_values(scene: Scene) -> dict[str, Any]:
    """The share of each head's variance that its names explain [layer, head]; None of a head that never varies."""
    found, steps, read = _found(scene)
    arrays = {"values": found.explained[..., -1], "random": found.random_explained[..., -1], "size": found.size}
    listed = {name: _listed(values) for name, values in arrays.items()}
    more = {"names": _names(scene, found), "span": steps, "images": read, **listed}
    return {**scene.resolved(), "axes": ["layer", "head"], **more}


def naming_code(scene: Scene) -> str:
    """The Python that finds the names."""
    _, steps, read = _found(scene)
    return program(f"{code_head(scene)}{_lines(scene, steps, read)}")


def _lines(scene: Scene, steps: int, read: int) -> str:
    return (
        f"tested = {scene.subject.code_of_examples(read)}\n"
        f"span = prisma.text_span(loaded.model, tested, steps={steps}, controls={CONTROLS})\n"
        "explained, by_chance = span.explained[..., -1], span.random_explained[..., -1]  # [layer, head]\n"
        "named = span.heads()  # (layer, head) -> its directions in order, from the head that varies most down\n"
    )


def _listed(values: Tensor) -> list[list[float | None]]:
    """Numbers as lists, with None for NaN, which JSON has not."""
    return [[None if isnan(x) else x for x in row] for row in values.double().tolist()]


def _names(scene: Scene, found: TextSpan) -> list[list[list[str]]]:
    """[layer][head]: its names in order."""
    labels = scene.subject.labels
    return [[[labels[i] for i in steps if i != NONE] for steps in heads] for heads in found.chosen.tolist()]


def _what(scene: Scene) -> str:
    """What the names are of; the outputs of a mouse that was trained for something else are no classes."""
    if scene.subject.prompts is not None:
        return "prompts"
    return "outputs" if scene.subject.about().get("result") else "classes"


def _found(scene: Scene) -> tuple[TextSpan, int, int]:
    config, count = scene.config, len(scene.subject.labels)
    if not config.n_classes and scene.subject.prompts is None:
        raise PrismaError(
            "expected a model with classes, or a CLIP with prompts, whose directions name heads; found "
            f"{scene.subject.name}, which has neither"
        )
    steps = min(STEPS, count) if scene.state.span is None else scene.state.span
    if not 1 <= steps <= min(MOST_STEPS, count):
        raise PrismaError(f"expected from 1 to {min(MOST_STEPS, count)} names of each head; found {steps}")
    images = torch.stack([picture.x for picture in scene.subject.test_images(_most(scene, config))])
    return text_span(scene.loaded.model, images, steps=steps, controls=CONTROLS), steps, len(images)


def _most(scene: Scene, config: ViTConfig) -> int:
    """How many images are read: as many as a visitor waits for."""
    work = sum(p.numel() for p in scene.loaded.model.parameters()) * config.n_tokens
    return max(2, min(READ, int(MOST_WORK / work)))
