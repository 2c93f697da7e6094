"""What a map explains: one number per image, of the logits or of an activation.

A class, a difference of logits or a prompt is a metric (`prisma.metrics`): `Logit(3)`, `LogitDiff(3, 5)`, and for a
CLIP `Similarity(text("a photo of a cat")[0])`. A number inside the model is a `Neuron`. Whatever else reads activations
is a `Reading` too, such as a latent of a sparse coder.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from prisma.analysis.border import expect_finite_run
from prisma.analysis.readings import Objective, Reading, named_axes
from prisma.batching import measure_rows
from prisma.errors import PrismaError, quoted
from prisma.fields import check_types
from prisma.inventory import site_names
from prisma.metrics import KL, Logit, LogitDiff, Metric, Probability, Rank, Similarity, measure
from prisma.runs import finish
from prisma.sites import Tap, axes_of, canonical, matching
from prisma.vit import ViT


@dataclass(frozen=True)
class Neuron(Objective):
    """One number of an activation: `Neuron("blocks.3.mlp.post", 17)`, the neuron 17 of layer 3 at the class token.

    Attributes:
        site: the full name of a site whose last axis are features: a neuron, a direction of the residual stream.
        index: the feature.
        token: at which token; None for the mean over tokens.
        head: which head, where the site has heads.
    """

    site: str
    index: int
    token: int | None = 0
    head: int | None = None

    def __post_init__(self) -> None:
        check_types(self)
        object.__setattr__(self, "site", canonical(self.site))

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.site,)

    @property
    def tokens(self) -> tuple[int, ...]:
        return () if self.token is None or "token" not in axes_of(self.site) else (self.token,)

    def value(self, acts: Mapping[str, Tensor]) -> Tensor:
        """[batch]. Raises PrismaError: no such index, or a site that has no features."""
        x, axes = named_axes(acts, self.site)
        chosen = {"head": self.head, "token": self.token, axes[-1]: self.index}
        if axes[-1] in ("key", "token") or ("head" in axes) != (self.head is not None):
            raise PrismaError(f"expected a site of features, and a head where it has heads; found {self} of {axes}")
        for axis in axes[:0:-1]:  # from the last, so that the places of the others stay
            dim, index = axes.index(axis), chosen.get(axis)
            if index is not None and not -x.shape[dim] <= index < x.shape[dim]:
                raise PrismaError(f"expected a {axis} of {self.site} below {x.shape[dim]}; found {index}")
            x = x.mean(dim) if index is None else x.select(dim, index)
        return x


def neuron_of(text: str) -> Neuron:
    """The neuron of a text such as "blocks.3.mlp.post:17", or "blocks.3.attn.z:5,head=2,token=mean".

    Raises:
        PrismaError: the text has another form.
    """
    place, *rest = text.split(",")
    site, _, index = place.partition(":")
    given = dict(part.partition("=")[::2] for part in rest)
    numbers = [index, *(value for name, value in given.items() if (name, value) != ("token", "mean"))]
    if not set(given) <= {"head", "token"} or not all(re.fullmatch(r"-?\d+", number) for number in numbers):
        form = "SITE:INDEX, and head=NUMBER and token=NUMBER or token=mean after commas"
        raise PrismaError(f"expected a neuron as {form}; found {quoted(text)}")
    chosen = {name: None if value == "mean" else int(value) for name, value in given.items()}
    return Neuron(site, int(index), **chosen)


Target = Metric | Reading | int
"""A metric of the logits, a number inside the model, or a class."""


def as_target(model: ViT | None, target: object, predicted: Tensor | None) -> Metric | Reading:
    """A class or classes become their logit; None the logit of each image's predicted class [image].

    Raises:
        PrismaError: the model has no classes and no target is given; a site that it does not have;
            a latent of a coder that was trained on other weights.
    """
    if isinstance(target, Reading):
        if model is not None:
            for site in target.reads:
                matching(site, site_names(model.config))
            if isinstance(target, Objective):
                target.expect_fits(model)
        return target
    if callable(target):
        return target
    if target is None:
        if predicted is None or not predicted.shape[-1] or model is None or not model.config.n_classes:
            raise PrismaError(
                "a map for the predicted class needs a model with classes; found n_classes=0: give a target, such as "
                "Similarity(direction) or Neuron(site, index)"
            )
        return Logit(predicted.argmax(-1))
    return Logit(target)  # type: ignore[arg-type]  # which says what a class is


def name_of(target: Metric | Reading) -> str:
    """What a target is called in metadata."""
    if isinstance(target, Neuron):
        return repr(target)
    return str(getattr(target, "__name__", type(target).__name__))


def values_of_stream(model: ViT, target: Metric | Reading, x_BTM: Tensor, images: Tensor, rows: Tensor) -> Tensor:
    """The target [row] of runs that continue from the embedding, which may have fewer tokens than the model.

    Args:
        x_BTM: [row, token, d_model], the stream before the first block.
        images: all images of the analysis.
        rows: [row], which image each run is about; an image may have many.
    """
    if isinstance(target, Reading):
        tap = Tap(frozenset(target.reads), {})
        expect_finite_run(finish(model, x_BTM, images[:1], start=0, tap=tap))
        return target.value(tap.tensors)
    return values_of_logits(target, finish(model, x_BTM, images[:1], start=0), rows, len(images))


def values_of_pixels(model: nn.Module, target: Metric | Reading, pixels: Tensor, rows: Tensor, total: int) -> Tensor:
    """The target [row] of whole runs from pixels [row, channel, ...]."""
    if isinstance(target, Reading):
        tap = Tap(frozenset(target.reads), {})
        expect_finite_run(model(pixels, tap=tap))
        return target.value(tap.tensors)
    return values_of_logits(target, model(pixels), rows, total)


def values_of_logits(metric: Metric, logits_BC: Tensor, rows: Tensor, total: int) -> Tensor:
    """A metric [row] of logits of which many may be of one image.

    A metric may hold something for each of all images, so it is shown each row in the place of its own image.
    """
    if len(rows) == total and torch.equal(rows.cpu(), torch.arange(total)):
        return measure_rows(metric, logits_BC, slice(None), total)
    image = int(rows[0])
    if bool((rows == image).all()) and (alone := of_one(metric, image)) is not None:
        return measure(alone, logits_BC)
    others = logits_BC[:1].expand(total, -1)
    found = []
    for some in _rounds(rows):
        order = some[rows[some].argsort()]
        chosen = slice(None) if len(order) == total else rows[order]
        found.append((order, measure_rows(metric, logits_BC[order], chosen, total, others)))
    places, values = (torch.cat(part) for part in zip(*found, strict=True))
    return values[places.argsort()]


def of_one(metric: Metric, image: int) -> Metric | None:
    """The metric of one image, for any number of its runs; None where its dependence on images is not known."""
    if type(metric) not in (KL, Logit, LogitDiff, Probability, Rank, Similarity):
        return None
    values = {name: getattr(metric, name) for name in metric.__dataclass_fields__}  # type: ignore[attr-defined]
    own = {
        name: x[image] if isinstance(x, tuple) else x[min(image, len(x) - 1)][None] if getattr(x, "ndim", 0) == 2 else x
        for name, x in values.items()
    }
    if isinstance(metric, Similarity):
        own["direction"] = own["direction"].flatten()
    kind: Any = type(metric)
    return None if own.get("correct", 0) == own.get("wrong", 1) else cast(Metric, kind(**own))


def _rounds(rows: Tensor) -> list[Tensor]:
    """The places of rows, in groups in which no image is twice."""
    groups: list[list[int]] = []
    seen: dict[int, int] = {}
    for place, image in enumerate(rows.tolist()):
        turn = seen.get(image, 0)
        seen[image] = turn + 1
        if turn == len(groups):
            groups.append([])
        groups[turn].append(place)
    return [torch.tensor(group, device=rows.device) for group in groups]
