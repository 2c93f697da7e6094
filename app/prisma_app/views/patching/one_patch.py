"""What one patch changes: which classes gain, and where attention moves."""

from typing import Any

import torch
from torch import Tensor

from prisma.analysis.border import record
from prisma.analysis.patching.pairs import source_of
from prisma.edits import Set
from prisma.errors import PrismaError
from prisma.view.browser import View, fractions, numbers
from prisma_app.library import Scene
from prisma_app.views.patching.question import HEADS, Question, question_of

MOST_WEIGHTS = 2**25  # attention weights of one run that are held at the same time: 128 MB
CLASSES = 4  # of each run that are listed


def patched_run(scene: Scene) -> View:
    """The changed run before and after the patch of the state's cell, with the source run beside it.

    Arrays: `moved` [layer, head], how much of the attention of a head moved to other tokens, from 0 to 1, mean over
    queries; `rows` [layer, head, key], by how much the weights changed that the class token reads with (the mean over
    all queries, in a model without one). Neither is there for a model with very many tokens.

    Raises:
        PrismaError: there is no such cell; as `question_of`.
    """
    question, state = question_of(scene), scene.state
    config, axis = question.config, state.cell or "head"
    layer = scene.index("layer", state.layer, config.n_layers)
    counts = {"head": config.n_heads, "token": config.n_tokens}
    unit = scene.index(axis, getattr(state, axis), counts[axis])
    site = f"blocks.{layer}.{HEADS if axis == 'head' else question.site}"
    with torch.no_grad():
        logits, attention = _both_runs(question, site, axis, unit)
    runs = {run: question.measured(of_run) for run, of_run in logits.items()}
    named = {question.into: runs["before"], source_of(question.into): runs["source"]}
    shares = question.recovered(torch.tensor(runs["after"]), named)
    facts: dict[str, Any] = {
        "cell": {"axis": axis, "layer": layer, "unit": unit},
        "metric": question.name,
        "runs": runs,
        "recovered": None if shares is None else shares.item(),
        "classes": _classes(scene, question, logits),
        "query": "the class token" if config.class_token else "all tokens, on average",
        "state": scene.resolved(corrupt=scene.corrupt.img, layer=layer, **question.state()),
    }
    return View(facts, {} if attention is None else {"moved": fractions(attention[0]), "rows": numbers(attention[1])})


def _both_runs(
    question: Question, site: str, axis: str, unit: int
) -> tuple[dict[str, Tensor], tuple[Tensor, Tensor] | None]:
    """Logits [class] before and after the patch and of the source run, and how attention changed."""
    config = question.config
    source_logits, source = record(question.model, question.source, site)
    edit = {site: Set(source[site]).at(**{axis: unit})}
    held = config.n_layers * config.n_heads * config.n_tokens**2
    sites = [f"blocks.{layer}.attn.pattern" for layer in range(config.n_layers)] if held <= MOST_WEIGHTS else []
    before, own = record(question.model, question.changed, sites)
    after, patched = record(question.model, question.changed, sites, edit)
    logits = {"before": before[0], "after": after[0], "source": source_logits[0]}
    if not sites:
        return logits, None
    changes = [patched[name][0] - own[name][0] for name in sites]
    moved = torch.stack([change.abs().sum(-1).mean(-1) / 2 for change in changes])
    rows = torch.stack([change[:, 0] if config.class_token else change.mean(1) for change in changes])
    return logits, (moved.clamp(0, 1), rows)


def _classes(scene: Scene, question: Question, logits: dict[str, Tensor]) -> list[dict[str, Any]]:
    """The likeliest classes of each run and those that are measured, with the probability in every run."""
    probabilities = {run: of_run.softmax(-1) for run, of_run in logits.items()}
    chosen = [c for c in (question.target, question.against) if c is not None]
    for of_run in probabilities.values():
        chosen += of_run.argsort(descending=True)[:CLASSES].tolist()
    if not chosen:
        raise PrismaError("expected a model with classes; found none")
    return [
        {"class": c, "label": scene.subject.labels[c], **{run: float(p[c]) for run, p in probabilities.items()}}
        for c in dict.fromkeys(chosen)
    ]
