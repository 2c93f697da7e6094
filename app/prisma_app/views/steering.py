"""Steering: how the answer changes when a direction that stands for a class is added to an activation, dose by dose.

The direction is made from the test images of the class and half of the others, the curve is of the other half, and
beside it stands the image that is looked at. Dose 1 adds the whole difference between the means.

Shapes: D dose, C class, R random direction.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from prisma.analysis.class_space.class_embeddings import class_embeddings, has_class_embeddings
from prisma.analysis.directions.places import Place, PlacedRuns
from prisma.analysis.directions.steering import Steering, mean_difference, mean_vectors, steered, steering
from prisma.config import ViTConfig
from prisma.errors import PrismaError, quoted
from prisma.inventory import site_names
from prisma.metrics import Probability
from prisma.view.browser import View, fractions, numbers
from prisma.vit import ViT
from prisma_app.answers import TOKEN_SITES
from prisma_app.library import Scene
from prisma_app.pictures import Picture
from prisma_app.views.shared import code_head, nested, program

READ, MEASURED, CONTROLS, DOSES = (
    256,
    64,
    5,
    17,
)  # images that are read, at most; of the curve; random directions; doses
SAME = 1e-5  # vectors that differ by less, as a share of their largest number, differ by rounding alone
REACH, REACHES = 4, (1, 2, 4, 8, 16)  # the largest dose, and those that are offered
MOST_WORK = 4e12  # multiply-adds of the weights in all runs: half a minute on two cores; else fewer images
KINDS: Mapping[str, str] = {"means": "difference of the classes' means", "readout": "the readout's direction"}
"""The values of `direction` in an address, and what each is."""


@dataclass(frozen=True)
class Asked:
    """What a state asks, checked; the images are chosen with the model at the end of training."""

    model: ViT
    kind: str
    site: str
    where: str
    reach: int
    target: int
    against: int | None
    known: list[Picture]

    @cached_property
    def images(self) -> tuple[Tensor, Tensor, Tensor]:
        """Indices: those of the class, those that it is compared with for the direction, and those of the curve.

        Raises:
            PrismaError: there is no image of the class, or fewer than two of the others.
        """
        labels = torch.tensor([picture.label for picture in self.known])
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
        of_others = labels[order] != self.target if self.against is None else labels[order] == self.against
        own, others = (labels == self.target).nonzero()[:, 0], order[of_others]
        if not len(own) or len(others) < 2:
            raise PrismaError(
                f"expected an image of class {self.target} and two of others among {len(labels)} test images; "
                f"found {len(own)} and {len(others)}: choose another class"
            )
        compared, measured = others.tensor_split(2)
        return own, compared, measured[: _most(self.model)]

    @property
    def doses(self) -> Tensor:
        return torch.linspace(-self.reach, self.reach, DOSES)

    def inputs(self, rows: Tensor) -> Tensor:
        """Model inputs of some of the images."""
        return torch.stack([self.known[i].x for i in rows.tolist()])

    @cached_property
    def direction(self) -> Tensor:
        """What dose 1 adds [feature]. Raises PrismaError if the place is the same for all images, but for rounding."""
        own, compared, _ = self.images
        is_class = torch.arange(len(own) + len(compared)) < len(own)
        images = self.inputs(torch.cat([own, compared]))
        vectors = mean_vectors(self.model, images, Place.of(self.model, self.site, self.where, None))
        if (vectors - vectors[0]).abs().max() <= SAME * vectors.abs().max():
            raise PrismaError(
                f"expected a place that differs between images; found {self.site} at {self.where}, which does not: "
                "choose another site or other tokens"
            )
        means = mean_difference(self.model, images, is_class, self.site, where=self.where)
        if self.kind == "means":
            return means
        toward = class_embeddings(self.model)
        toward = toward[self.target] - (toward.mean(0) if self.against is None else toward[self.against])
        return F.normalize(toward, dim=0) * means.norm()

    def curve(self) -> Steering:
        """The probability of the class in the images of the curve."""
        images, metric = self.inputs(self.images[2]), Probability(self.target)
        asked = (self.model, images, metric, self.direction, self.site)
        return steering(*asked, doses=self.doses, where=self.where, controls=CONTROLS)

    def own(self, image: Tensor) -> Tensor:
        """The probabilities [dose, class] of one image."""
        runs = PlacedRuns(self.model, image[None], Place.of(self.model, self.site, self.where, None))
        return torch.cat(list(steered(runs, self.direction, self.doses))).softmax(-1)


def view(scene: Scene, part: int | None = None) -> View:
    """Without a part the image's answer at each dose, with part 0 the curve of images of other classes.

    Arrays: `own` [dose, class]; or `effect` [dose], `interval` [end, dose], `random` [control, dose].

    Raises:
        PrismaError: there is no such part, class, site or token; too few test images are of a class; the direction is
            zero there; or the model has diverged.
    """
    if part not in (None, 0):
        raise PrismaError(f"expected part 0 (the curve) of steering; found {part}")
    known = _labelled(scene)
    if not known:
        return View({"says": _why_not(scene), "state": scene.resolved()})
    asked = _asked(scene, known)
    facts = {
        "says": None,
        "doses": asked.doses.tolist(),
        "length": float(asked.direction.norm()),
        "counts": [len(some) for some in asked.images],
        "state": scene.resolved(**_state(asked)),
    }
    if part == 0:
        return View(facts, {name: numbers(values) for name, values in _curve(asked).items()})
    more = {
        "kinds": [site for site in TOKEN_SITES if f"blocks.0.{site}" in site_names(scene.config)],
        "tokens": _tokens(scene.config),
        "directions": [[kind, words] for kind, words in KINDS.items() if _has(asked.model, kind)],
        "reaches": list(REACHES),
        "code": code(scene),
    }
    return View({**facts, **more}, {"own": fractions(asked.own(scene.picture.x))})


def values(scene: Scene) -> dict[str, Any]:
    """The mean probability of the class [dose] over images of other classes, with its interval and random directions.

    `own` has the probability of every class [dose, class] in the scene's image.
    """
    known = _labelled(scene)
    if not known:
        raise PrismaError(_why_not(scene))
    asked = _asked(scene, known)
    found = _curve(asked)
    axes = {"interval": ["end", "dose"], "random": ["control", "dose"], "own": ["dose", "class"]}
    arrays = {**found, "own": asked.own(scene.picture.x)}
    more = {name: {"axes": of, "values": arrays[name].double().tolist()} for name, of in axes.items()}
    count = len(asked.images[2])
    return nested(scene, ["dose"], found["effect"], doses=asked.doses.tolist(), images=count, **more, **_state(asked))


def code(scene: Scene) -> str:
    """The Python that makes the direction and computes the curve."""
    asked = _asked(scene, _labelled(scene))
    own, compared, measured = (some.tolist() for some in asked.images)
    imports = [f"from {class_embeddings.__module__} import class_embeddings"] if asked.kind == "readout" else []
    lines, direction, at = "", "means", f"{asked.site!r}, where={asked.where!r}"
    if asked.kind == "readout":
        other = "toward.mean(0)" if asked.against is None else f"toward[{asked.against}]"
        direction, lines = (
            "direction",
            (
                f"toward = class_embeddings(loaded.model)\ntoward = toward[{asked.target}] - {other}\n"
                "direction = toward / toward.norm() * means.norm()  # as long as the difference of the means\n"
            ),
        )
    doses = f"torch.linspace({-asked.reach}, {asked.reach}, {DOSES})"
    return program(
        f"{code_head(scene)}images = {scene.subject.code_of_examples(len(asked.known))}\n"
        f"own = {own}  # of the class\ncompared = {compared}\nmeasured = {measured}  # of other classes\n"
        "is_class = torch.arange(len(own) + len(compared)) < len(own)\n"
        f"means = prisma.mean_difference(loaded.model, images[own + compared], is_class, {at})\n{lines}"
        f"metric = prisma.Probability({asked.target})\n"
        f"found = prisma.steering(\n    loaded.model, images[measured], metric, {direction}, {at},\n"
        f"    doses={doses}, controls={CONTROLS},\n)\n"
        "values, interval, random = found.effect, found.interval(), found.random.mean(0)\n",
        imports,
    )


def _asked(scene: Scene, known: list[Picture]) -> Asked:
    state, config = scene.state, scene.config
    site = state.steer or f"blocks.{max(0, config.n_layers - 2)}.resid_post"
    where: str | None = state.where
    offered, tokens = _sites(config), _tokens(config)
    if site not in offered:
        raise PrismaError(f"expected a site such as {offered[0]}; found {quoted(site, 40)}")
    if where is None:
        where = "all" if config.pool == "class_mean" else tokens[0]
    if where not in tokens:
        raise PrismaError(f"expected tokens among {', '.join(tokens)}; found {where}, which this model does not have")
    reach = REACH if state.reach is None else state.reach
    if reach not in REACHES:
        raise PrismaError(f"expected a largest dose among {', '.join(map(str, REACHES))}; found {reach}")
    target, against = _classes(scene, {picture.label for picture in known})
    return Asked(scene.loaded.model, state.direction, site, where, reach, target, against, known)


def _classes(scene: Scene, known: set[int | None]) -> tuple[int, int | None]:
    """The class that is steered to, and the one away from which.

    By default the likeliest class after the answer that has test images, and None: all others.
    """
    state, count = scene.state, len(scene.subject.labels)
    for given in (state.target, state.against):
        scene.index("class", given, count)
    target = state.target
    if target is None:
        with torch.no_grad():
            order = scene.subject.final.model(scene.picture.x[None])[0].argsort(descending=True).tolist()
        target = next((c for c in order[1:] if c in known - {state.against}), order[1])
    if target == state.against:
        raise PrismaError(f"expected two classes that differ; found {target} as target and as against")
    return target, state.against


def _labelled(scene: Scene) -> list[Picture]:
    """Test images with classes; none of a model that tells none, or has one."""
    known = scene.subject.test_images(READ) if len(scene.subject.labels) > 1 else []
    return known if all(picture.label is not None for picture in known) else []


def _why_not(scene: Scene) -> str:
    return (
        f"Steering needs a model of two classes or more that has test images with labels, from which a direction is "
        f"made; {scene.subject.name} has none here."
    )


def _most(model: ViT) -> int:
    """How many images the curve is of: as many as a visitor waits for."""
    work = sum(p.numel() for p in model.parameters()) * model.config.n_tokens * DOSES * (1 + CONTROLS)
    return max(2, min(MEASURED, int(MOST_WORK / work)))


def _curve(asked: Asked) -> dict[str, Tensor]:
    found = asked.curve()
    return {"effect": found.effect, "interval": found.interval(), "random": found.random.mean(0)}


def _state(asked: Asked) -> dict[str, Any]:
    return {
        "steer": asked.site, "where": asked.where, "direction": asked.kind, "reach": asked.reach,
        "target": asked.target, "against": asked.against,
    }  # fmt: skip


def _sites(config: ViTConfig) -> list[str]:
    """The sites at which a direction can be added, those of the last layer first."""
    known = [site for site in TOKEN_SITES if f"blocks.0.{site}" in site_names(config)]
    return [f"blocks.{layer}.{site}" for layer in reversed(range(config.n_layers)) for site in known]


def _tokens(config: ViTConfig) -> list[str]:
    return [*["class"] * config.class_token, "patches", "all"]


def _has(model: ViT, kind: str) -> bool:
    return kind == "means" or has_class_embeddings(model)
