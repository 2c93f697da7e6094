"""Training: what the run logged, and what every head did at every published step.

The first part of the view has the logged curves and the attention to the image's tokens at every step; part 1 has the
scores of all heads at every step, over test images, and when each of them changed most. A checkpoint that has diverged
is left out of both, and named.

Shapes: a row is the attention [key] from one token; scores are [step, score, layer, head].
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from prisma.analysis.border import record
from prisma.errors import NotFiniteError, PrismaError
from prisma.study.trajectory import Trajectory, trajectory
from prisma.view.browser import View, attention_rows, numbers
from prisma_app.cache import Cache
from prisma_app.library import Scene
from prisma_app.views.heads import appears, described, scores_code, scores_of
from prisma_app.views.shared import nested, program

SCORED = 1  # the part with the scores
MOST_IMAGES = 32  # over which scores are averaged
MOST_WORK = 2e12  # multiply-adds of the weights, about half a minute: larger models get fewer images
MOST_POINTS = 600  # of a logged curve on the page


@dataclass(frozen=True)
class Scored:
    """The scores of all heads at every published step."""

    values: Tensor  # [step, score, layer, head], means over images
    about: list[dict[str, Any]]  # of each score
    images: int
    changes: Trajectory | None  # of each score of each head, over all steps; None of one step or one image


_FINITE: Cache[tuple[int, ...]] = Cache(4096, lambda _: 1)
_SCORED: Cache[Scored] = Cache(32 * 2**20, lambda scored: scored.values.numel() * scored.values.element_size())


def view(scene: Scene, part: int | Sequence[int] | None = None) -> View:
    """The logged curves and attention at every step; with `part` = 1 the scores at every step.

    Args:
        part: or training steps: both parts in one, of these steps alone, as pages without a server have them.

    Raises:
        PrismaError: a checkpoint cannot be read, all have diverged, there is no such image or part.
    """
    known = finite_steps(scene)
    if isinstance(part, int):
        if part != SCORED:
            raise PrismaError(f"expected part {SCORED} of training; found {part}")
        return _scores(scene, known)
    if part is None:
        return _first(scene, known)
    steps = [step for step in part if step in known]
    views = [_first(scene, steps), _scores(scene, steps)]
    return View({**views[1].facts, **views[0].facts}, {**views[0].arrays, **views[1].arrays})


def _first(scene: Scene, steps: Sequence[int]) -> View:
    config = scene.subject.final.config
    of = "the class token" if config.class_token else "all tokens, on average"
    curves = {name: _thinned(curve) for name, curve in logged(scene).items()}
    facts = {"steps": list(steps), "diverged": _diverged(scene), "curves": curves, "of": of, "state": scene.resolved()}
    return View(facts, attention_rows("rows", rows(scene, steps), config.n_prefix) if len(steps) > 1 else {})


def _scores(scene: Scene, steps: Sequence[int]) -> View:
    scored, known = scored_steps(scene), finite_steps(scene)
    facts = {"scores": scored.about, "images": scored.images, "code": _code(scene, steps)}
    shown = scored.values[[known.index(step) for step in steps]]
    arrays = {"scores": numbers(shown), "appears": numbers(appears(scored.values, known))}
    return View(facts, arrays | {name: numbers(x, missing=True) for name, x in _changes(scored).items()})


def finite_steps(scene: Scene) -> Sequence[int]:
    """The published steps whose model answers the first example with finite numbers.

    Raises:
        PrismaError: there are none.
    """
    subject = scene.subject
    if subject.rev is None:
        return subject.steps
    found = _FINITE.get((subject.name, subject.rev), lambda: _finite(scene))
    if not found:
        raise PrismaError(f"expected a checkpoint with finite numbers; found that all of {subject.name} have diverged")
    return found


def _finite(scene: Scene) -> tuple[int, ...]:
    x = scene.subject.examples()[0].x[None]

    @torch.no_grad()
    def answers(step: int) -> bool:
        try:
            return bool(scene.at_step(step).loaded.model(x).isfinite().all())
        except NotFiniteError:  # its weights are not
            return False

    return tuple(step for step in scene.subject.steps if answers(step))


def _diverged(scene: Scene) -> list[int]:
    known = finite_steps(scene)
    return [step for step in scene.subject.steps if step not in known]


def rows(scene: Scene, steps: Sequence[int]) -> Tensor:
    """Attention [step, layer, head, key] from the class token; without one, the mean over all tokens."""
    found = []
    for step in steps:
        model = scene.at_step(step).loaded.model
        with torch.no_grad():
            _, acts = record(model, scene.picture.x[None], "blocks.*.attn.pattern", stop=True)
        pattern = acts.stack("attn.pattern")[:, 0]
        found.append(pattern[:, :, 0] if model.config.class_token else pattern.mean(-2))
    return torch.stack(found)


def logged(scene: Scene) -> dict[str, dict[str, list[Any]]]:
    """What the run logged, by name: the steps at which it was logged, and the numbers."""
    curves: dict[str, dict[str, list[Any]]] = {}
    for line in scene.subject.metrics():
        for name, value in line.items():
            if name != "step" and type(value) in (int, float) and math.isfinite(value):
                curve = curves.setdefault(name, {"steps": [], "values": []})
                curve["steps"].append(int(line["step"]))
                curve["values"].append(float(value))
    return curves


def _thinned(curve: Mapping[str, list[Any]]) -> dict[str, Any]:
    """At most MOST_POINTS of a curve, evenly spaced on the logarithmic axis of steps; and how many there are."""
    count = len(curve["steps"])
    places = torch.logspace(0, math.log10(max(count, 1)), MOST_POINTS).round().long().unique() - 1
    kept = range(count) if count <= MOST_POINTS else places.tolist()
    return {"count": count, **{key: [column[i] for i in kept] for key, column in curve.items()}}


def scored_steps(scene: Scene) -> Scored:
    """The scores at every step of `finite_steps`, over the same test images."""
    subject = scene.subject
    if subject.rev is None:
        return _score(scene)
    return _SCORED.get((subject.name, subject.rev), lambda: _score(scene))


def _score(scene: Scene) -> Scored:
    images = _images(scene)
    results = [scores_of(scene.at_step(step).loaded.model, images) for step in finite_steps(scene)]
    steps, several = finite_steps(scene), len(results) > 1 and len(images) > 1
    changes = trajectory(dict(zip(steps, results, strict=True)), "scores") if several else None
    return Scored(torch.stack([result.mean for result in results]), described(results[-1]), len(images), changes)


def _changes(scored: Scored) -> dict[str, Tensor]:
    """When each score of each head changed most and by how much [value and both ends, score, layer, head].

    A score whose jump may be 0, by its interval, stays or rises and falls: it has no single step of change, NaN.
    """
    found = scored.changes
    if found is None:
        return {}
    low, high = found.jump_interval
    at = torch.stack([found.change, *found.change_interval]).double()
    at[:, ~((low > 0) | (high < 0))] = torch.nan  # also where an interval is not known
    shape = (3, *scored.values.shape[1:])
    return {"change": at.view(shape), "jump": torch.stack([found.jump, low, high]).view(shape)}


def _images(scene: Scene) -> Tensor:
    """Test images; the examples of a model without any."""
    subject = scene.subject
    probe, model = subject.probe(), subject.final.model
    images = torch.stack([example.x for example in subject.examples()]) if probe is None else probe[0]
    work = sum(p.numel() for p in model.parameters()) * model.config.n_tokens * len(subject.steps)
    return images[: max(1, min(MOST_IMAGES, int(MOST_WORK / work)))]


def values(scene: Scene) -> dict[str, Any]:
    """Scores [step, score, layer, head], the step at which each appears, and what the run logged."""
    scored, steps = scored_steps(scene), list(finite_steps(scene))
    metrics = {name: {"axes": ["step"], **curve} for name, curve in logged(scene).items()}
    when = {"axes": ["score", "layer", "head"], "values": appears(scored.values, steps).tolist()}
    axes = ["step", "score", "layer", "head"]
    names = {"change": ("step", "first", "last"), "jump": ("jump", "least", "most")}
    parts = {part: x for name, found in _changes(scored).items() for part, x in zip(names[name], found, strict=True)}
    changes = {"axes": axes[1:], **{part: _without_nan(x.tolist()) for part, x in parts.items()}} if parts else None
    more = {
        "changes": changes,
        "steps": steps,
        "diverged": _diverged(scene),
        "scores": scored.about,
        "images": scored.images,
        "appears": when,
        "metrics": metrics,
    }
    return nested(scene, axes, scored.values, **more)


def _without_nan(x: Any) -> Any:
    """Nested lists with None for NaN, which JSON does not have."""
    return [_without_nan(some) for some in x] if isinstance(x, list) else None if math.isnan(x) else x


def code(scene: Scene) -> str:
    """The Python that computes the scores [step, score, layer, head]."""
    return _code(scene, finite_steps(scene))


def _code(scene: Scene, steps: Sequence[int]) -> str:
    subject, scored = scene.subject, scored_steps(scene)
    checkpoints = [f"    {subject.code(step).removeprefix('loaded = ')},  # step {step}" for step in steps]
    changed = []  # of all steps alone, as the figure has it
    if scored.changes is not None and [*steps] == [*finite_steps(scene)]:
        changed = [f"changes = trajectory(dict(zip({[*steps]}, results)), 'scores')"]
    return program(
        "\n".join(
            [
                "", scores_code([str(about["name"]) for about in scored.about]),
                "checkpoints = [", *checkpoints, "]",
                "loaded = checkpoints[-1]", f"images = {subject.code_of_examples(scored.images)}",
                "results = [prisma.head_scores(loaded.model, images, scores) for loaded in checkpoints]",
                "values = torch.stack([result.mean for result in results])", *changed, "",
            ]
        ),
        ["from prisma.study.trajectory import trajectory"] if changed else [],
    )  # fmt: skip
