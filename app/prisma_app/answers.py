"""What a model is, and what it answers for an image: the head of the page."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from prisma import __version__
from prisma.inventory import site_names
from prisma.metrics import NAMED
from prisma.view.browser import Array, View, fractions, pictures
from prisma_app.library import Scene
from prisma_app.pictures import Picture, transform_of
from prisma_app.subject import Subject, prefix_names

TOP = 5
THUMBNAIL = 96  # most pixels of the longer side
TOKEN_SITES = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")


def model_view(scene: Scene, examples: Sequence[Picture] = (), steps: Sequence[int] = ()) -> View:
    """A model: its shape, its checkpoints, its classes, and its examples.

    Args:
        examples, steps: those that are shown; by default all.
    """
    subject = scene.subject
    config, examples = subject.final.config, examples or subject.examples()
    known = site_names(config)
    facts = {
        "prisma": __version__,
        "name": subject.name,
        "rev": subject.rev,
        "steps": list(steps) or subject.steps,
        "layers": config.n_layers,
        "heads": config.n_heads,
        "grid": config.grid[1:],
        "prefix": prefix_names(subject.final),
        "labels": subject.labels,
        "channels": config.channels,
        "parameters": sum(p.numel() for p in subject.final.model.parameters()),
        "examples": [{"img": e.img, "caption": e.caption, "label": e.label} for e in examples],
        "sites": [site for site in TOKEN_SITES if f"blocks.0.{site}" in known],
        "metrics": list(NAMED),
        "prompts": subject.prompts,
        "beside": subject.beside,
        **subject.about(),
    }
    return View(facts, {"thumbnails": thumbnails(subject, examples)})


def thumbnails(subject: Subject, examples: Sequence[Picture]) -> Array:
    """Examples as small images to show, [image, height, width, channel]."""
    images = transform_of(subject.final).pixels(torch.stack([example.x for example in examples]))
    shrunk = min(1.0, THUMBNAIL / max(images.shape[2:]))
    if shrunk < 1:
        images = F.interpolate(images, [round(side * shrunk) for side in images.shape[2:]], mode="area")
    return pictures(images)


def answer_view(scene: Scene) -> View:
    """What the model answers for the state's image: its likeliest classes, and the image to show.

    A model that has diverged answers nothing, and the view says so: other checkpoints can still be looked at.
    """
    picture, labels = scene.picture, scene.subject.labels
    probability = answer(scene).softmax(-1)
    finite = bool(probability.isfinite().all())
    order = probability.argsort(descending=True)[:TOP].tolist() if finite else []
    facts = {
        "caption": picture.caption,
        "label": None if picture.label is None or picture.label >= len(labels) else labels[picture.label],
        "top": [{"class": i, "label": labels[i], "probability": float(probability[i])} for i in order],
        "diverged": not finite,
        "state": scene.resolved(),
    }
    image = {"image": scene.subject.shown(picture.x[None])}
    return View(facts, {**image, "probability": fractions(probability)} if finite else image)


def answer(scene: Scene) -> torch.Tensor:
    """The logits [class] for the state's image."""
    with torch.no_grad():
        logits: torch.Tensor = scene.loaded.model(scene.picture.x[None])[0]
    return logits


def answer_of(scene: Scene) -> dict[str, Any]:
    """The same for programs: the logit of every class."""
    logits = answer(scene)
    return {
        **scene.resolved(),
        "caption": scene.picture.caption,
        "labels": scene.subject.labels,
        "logits": logits.tolist(),
    }
