"""The two maps of patching: every head of every layer, and every token before or after every layer."""

from typing import Any

import torch
from torch import Tensor

from prisma.analysis.circuits.graph import Graph
from prisma.analysis.patching.activation_patching import activation_patching
from prisma.config import ViTConfig
from prisma.errors import PrismaError
from prisma.view.browser import Array, View, numbers
from prisma.vit import ViT
from prisma_app.lanes import HEAVY
from prisma_app.library import Scene
from prisma_app.views.patching.estimates import estimates
from prisma_app.views.patching.question import HEADS, Question, metric_code, question_of
from prisma_app.views.patching.runs import TOP, exact_heads, time_until
from prisma_app.views.patching.ways import ways_of
from prisma_app.views.shared import code_head, nested, program

CIRCUIT = 4e10  # multiply-adds of a run for every edge, up to which a circuit is looked for: half a minute on two cores
QUICK = 2e10  # multiply-adds up to which both maps are computed at once, exactly: about a second on two cores


def both_maps(scene: Scene) -> View:
    """The metric of every patch, estimated; and exactly, where that is quick.

    Arrays: `clean`, `corrupt` (images), `heads.estimate` [layer, head], `tokens.estimate` [layer, token], and `heads`,
    `tokens` with the exact metrics. `facts["gap"]` is None where the two runs do not differ in the metric, and
    `facts["estimate"]` says why there is none.

    Raises:
        PrismaError: as `question_of`, or the model has diverged.
    """
    question = question_of(scene)
    logits = question.logits()
    runs = {run: question.measured(of_run) for run, of_run in logits.items()}
    config, quick = question.config, are_quick(question.config)
    arrays, trouble = _estimated(question, runs[question.into])
    if quick:
        arrays["heads"] = numbers(_exact(question, HEADS, "head"))
        arrays["tokens"] = numbers(_exact(question, question.site, "token"))
    answers = {run: _answer(scene, of_run) for run, of_run in logits.items()}
    facts = {
        "metric": question.name,
        "runs": runs,
        "gap": question.gap(runs),
        "answers": answers,
        "captions": {"clean": scene.picture.caption, "corrupt": scene.corrupt.caption},
        "exact": quick,
        "circuit": is_quick(question.model),
        "estimate": trouble,
        "ways": [[key, way.name] for key, way in ways_of(config).items()],
        "top": TOP,
        "counts": {"heads": config.n_layers * config.n_heads, "tokens": config.n_layers * config.n_tokens},
        "state": scene.resolved(corrupt=scene.corrupt.img, metric=scene.state.metric, **question.state()),
        "code": _code(scene, question),
    }
    images = {"clean": question.clean, "corrupt": question.corrupt}
    return View(facts, {**{name: scene.subject.shown(x) for name, x in images.items()}, **arrays})


def values(scene: Scene) -> dict[str, Any]:
    """The exact metric [layer, head] after each head was patched, and what share of the gap between the runs that is.

    `clean` and `corrupt` are the metric of the two runs, `pair` names the images. `recovered` is None where the two
    runs do not differ in the metric.
    """
    question = question_of(scene)
    found = exact_heads(question, time_until(HEAVY.seconds))
    runs = {run: question.measured(logits) for run, logits in question.logits().items()}
    shares = question.recovered(found, runs)
    return nested(
        scene,
        ["layer", "head"],
        found,
        recovered=None if shares is None else shares.double().tolist(),
        pair={"clean": scene.picture.img, "corrupt": scene.corrupt.img},
        metric=scene.state.metric,
        **runs,
        **question.state(),
    )


def code(scene: Scene) -> str:
    """The Python that computes the metric [layer, head] after each head was patched."""
    return _code(scene, question_of(scene))


def _code(scene: Scene, question: Question) -> str:
    call = f'prisma.sweep(loaded.model, x, corrupt, "{HEADS}", metric, into={question.into!r})'
    lines, imports = pair_code(scene, question)
    return program(f"{lines}values = {call}\n", imports)


def pair_code(scene: Scene, question: Question) -> tuple[str, list[str]]:
    """The Python that makes `loaded`, the pair `x` and `corrupt`, and `metric`; and the imports that it needs."""
    imports, corrupt = _corrupt_code(scene)
    return f"{code_head(scene)}{corrupt}metric = {metric_code(question)}\n", imports


def _corrupt_code(scene: Scene) -> tuple[list[str], str]:
    """The imports that the corrupt image needs, and the Python that makes it from `x`."""
    kind, _, listed = scene.corrupt.img.partition(":")
    names = {"blur": "blur", "noise": "gaussian_noise", "mean": "mean_image"}
    if kind not in names:
        return [], f"corrupt = {scene.subject.code_of(scene.corrupt)}\n"
    where, lines = "None", ""
    if listed:
        where, lines = (
            "where",
            (
                "chosen = torch.zeros(1, loaded.config.n_patches, dtype=torch.bool)\n"
                f"chosen[0, [{', '.join(listed.split(','))}]] = True\n"
                "where = patch_pixels(chosen, loaded.config)\n"
            ),
        )
    more = ", reference=x.mean((-2, -1), keepdim=True).expand_as(x)" if kind == "mean" else ""
    imports = f"from prisma.analysis.patching.corruptions import {names[kind]}{', patch_pixels' if listed else ''}"
    return [imports], f"{lines}corrupt = {names[kind]}(x, {where}{more})\n"


def _estimated(question: Question, base: float) -> tuple[dict[str, Array], str | None]:
    """The estimated metrics, or why there are none."""
    try:
        heads, tokens = estimates(question)
    except PrismaError as error:
        return {}, str(error)
    return {"heads.estimate": numbers(base + heads), "tokens.estimate": numbers(base + tokens)}, None


def _exact(question: Question, site: str, axis: str) -> Tensor:
    return activation_patching(
        question.model, question.clean, question.corrupt, site, question.metric, into=question.into, axis=axis
    ).effect


def _answer(scene: Scene, logits: Tensor) -> dict[str, Any]:
    """The likeliest class of a run."""
    with torch.no_grad():
        probability = logits.softmax(-1)
    best = int(probability.argmax())
    return {"label": scene.subject.labels[best], "probability": float(probability[best])}


def are_quick(config: ViTConfig) -> bool:
    """Whether both maps are computed at once, exactly."""
    return _cost(config) <= QUICK


def is_quick(model: ViT) -> bool:
    """Whether a circuit is found while a visitor waits."""
    return int(Graph(model.config).edges.sum()) * count_weights(model) * model.config.n_tokens <= CIRCUIT


def count_weights(model: ViT) -> int:
    """How many parameters a model has."""
    return sum(p.numel() for p in model.parameters())


def _cost(config: ViTConfig) -> float:
    """About how many multiply-adds both maps take."""
    runs = config.n_layers * (config.n_heads + config.n_tokens)
    weights = config.n_layers * config.d_model * (4 * config.d_model + 2 * config.d_mlp)
    return float(runs * weights * config.n_tokens)
