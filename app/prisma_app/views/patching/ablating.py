"""What is left when some heads hold their mean: the classes of this image, and the accuracy over the task.

Each chosen head holds, at every token, the mean of what it computes for the reference images in the unchanged model:
the mean ablation of `prisma.ablation`, of any set of heads.
"""

import re
from typing import Any

import torch
from torch import Tensor

from prisma.batching import inputs_per_pass
from prisma.config import ViTConfig
from prisma.edits import Set
from prisma.errors import PrismaError, quoted
from prisma.runs import Model, record, run
from prisma.view.browser import View
from prisma_app.library import Scene
from prisma_app.views.patching.question import HEADS, question_of

CLASSES = 5  # that are listed

Heads = dict[int, list[int]]
"""Layer -> heads."""


def ablated_run(scene: Scene) -> View:
    """The state's image and, for a model with test images, their accuracy, without and with the ablation.

    Raises:
        PrismaError: the heads are not `LAYER.HEAD,LAYER.HEAD`, or the model does not have them; as `question_of`.
    """
    question, model = question_of(scene), scene.loaded.model
    heads = heads_of(scene.state.ablate, scene.config)
    probe = scene.subject.probe()
    reference = torch.stack([e.x for e in scene.subject.examples()]) if probe is None else probe[0]
    with torch.no_grad():
        means = mean_values(model, reference, heads)
        before, after = model(question.clean)[0], ablated(model, question.clean, means, heads)[0]
        accuracy = None if probe is None else _accuracies(model, *probe, means, heads)
    facts = {
        "heads": [[layer, head] for layer, some in heads.items() for head in some],
        "reference": f"{len(reference)} {'example' if probe is None else 'test'} images",
        "accuracy": accuracy,
        "metric": question.name,
        "runs": {"before": question.measured(before), "after": question.measured(after)},
        "classes": _classes(scene, before, after),
        "state": scene.resolved(ablate=scene.state.ablate),
    }
    return View(facts)


def heads_of(text: str, config: ViTConfig) -> Heads:
    """`0.3,1.2` -> {0: [3], 1: [2]}. Raises PrismaError for other text, or for heads that the model does not have."""
    if not re.fullmatch(r"[0-9]{1,4}\.[0-9]{1,4}(,[0-9]{1,4}\.[0-9]{1,4})*", text):
        raise PrismaError(f"expected heads to ablate as LAYER.HEAD,LAYER.HEAD; found {quoted(text, 40)}")
    found: Heads = {}
    for layer, head in sorted({tuple(map(int, part.split("."))) for part in text.split(",")}):
        if layer >= config.n_layers or head >= config.n_heads:
            raise PrismaError(
                f"expected layers from 0 to {config.n_layers - 1} and heads from 0 to {config.n_heads - 1}; "
                f"found layer {layer}, head {head}"
            )
        found.setdefault(layer, []).append(head)
    return found


def mean_values(model: Model, reference: Tensor, heads: Heads) -> dict[int, Tensor]:
    """Layer -> the mean [1, token, head, d_head] of what its heads compute, over reference images [image, ...]."""
    sums: dict[int, Tensor] = {}
    for some in reference.split(inputs_per_pass(model)):
        _, acts = record(model, some, [f"blocks.{layer}.{HEADS}" for layer in heads], stop=True)
        for layer in heads:
            part = acts[f"blocks.{layer}.{HEADS}"].sum(0, keepdim=True)
            sums[layer] = sums[layer] + part if layer in sums else part
    return {layer: total / len(reference) for layer, total in sums.items()}


def ablated(model: Model, images: Tensor, means: dict[int, Tensor], heads: Heads) -> Tensor:
    """Logits [image, class] of a run in which the chosen heads hold their mean."""
    logits = []
    for some in images.split(inputs_per_pass(model)):
        values = {layer: mean.expand(len(some), -1, -1, -1) for layer, mean in means.items()}
        edits = {f"blocks.{layer}.{HEADS}": Set(values[layer]).at(head=chosen) for layer, chosen in heads.items()}
        logits.append(run(model, some, edits))
    return torch.cat(logits)


def _accuracies(model: Model, images: Tensor, labels: Tensor, means: dict[int, Tensor], heads: Heads) -> dict[str, Any]:
    """How many of the test images the model answers correctly, as a share, before and after."""

    def share(chosen: Heads) -> float:
        return float((ablated(model, images, means, chosen).argmax(-1) == labels).double().mean())

    return {"before": share({}), "after": share(heads), "n": len(labels)}


def _classes(scene: Scene, before: Tensor, after: Tensor) -> list[dict[str, Any]]:
    """The likeliest classes of either run, with logits and probabilities."""
    order = [*before.argsort(descending=True)[:CLASSES].tolist(), *after.argsort(descending=True)[:CLASSES].tolist()]
    shares = before.softmax(-1), after.softmax(-1)
    return [
        {
            "class": c,
            "label": scene.subject.labels[c],
            "logits": [float(before[c]), float(after[c])],
            "before": float(shares[0][c]),
            "after": float(shares[1][c]),
        }
        for c in dict.fromkeys(order)
    ]
