"""Interchange interventions in a subspace: does a subspace of an activation carry one variable, and nothing else?

The base's vectors b at a place (a site and some of its tokens) get the source's components within a subspace R:

    h = b + (s - b) R R^T,        R [feature, direction] orthonormal

and the run goes on. If R carries the variable alone, the answer becomes that of the *counterfactual* image: the base
with this one variable from the source. Distributed alignment search learns R = Q of the QR decomposition of a free
matrix, with the model frozen, by Adam on the cross entropy with the counterfactual labels. The *interchange
intervention accuracy* is the share of other pairs whose answer is the counterfactual one.

A search over subspaces finds much. Beside it stand, on the same pairs: no exchange, the whole place, random subspaces,
the principal components, a search with shuffled labels, and a search in the same model with random weights. Where a
linear map alone reads the place, also the two parts of the learned subspace: within what that map reads (row space),
and within what it ignores (null space). A subspace that works as a whole and not by its row space moves a direction
that the computation does not use, by means of one that has no effect: the illusion of Makelov et al.

Sources: Geiger et al. 2303.02536 (distributed alignment search); Geiger et al. 2106.02997 (interchange interventions);
Makelov et al. 2311.17030 (the illusion).

Shapes: B pair, T position, F feature, K direction.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from prisma.analysis.border import guarded
from prisma.analysis.class_space.class_values import random_control
from prisma.analysis.class_space.ranks import expect_labels
from prisma.analysis.directions.exchanges import Pairs
from prisma.analysis.directions.places import Place
from prisma.analysis.directions.subspaces import (
    overlap,
    principal_subspace,
    random_subspace,
    span_of,
    what_is_read,
)
from prisma.analysis.result import Result
from prisma.analysis.statistics import bootstrap_interval
from prisma.errors import PrismaError
from prisma.numbers import exact
from prisma.view.figures.charts import draw_bars
from prisma.vit import ViT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEARNED, SHUFFLED, RANDOM_MODEL = "learned", "shuffled labels", "random model"
SEARCHES = (LEARNED, SHUFFLED, RANDOM_MODEL)
LEAST = 1e-3
"""The length of the part of a unit vector that counts as one."""
DRAWS = 5
"""Random subspaces, over which their accuracy is averaged."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Interchange(Result):
    """How often an exchange within each subspace gives the counterfactual answer: 1 always, and 1 / n of n that tie.

    Compare the learned subspace with every control. `metadata["methods"]` names the subspaces, `metadata["searches"]`
    those that were learned.
    """

    AXES: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "accuracy": ("image", "method"),
        "training_accuracy": ("search",),
        "loss": ("step",),
        "subspace": ("feature", "direction"),
        "read": ("direction",),
    }

    accuracy: Tensor  # of the test pairs
    training_accuracy: Tensor  # of each search, on the pairs and labels that it was trained with
    loss: Tensor  # of the learned subspace, by step
    subspace: Tensor  # the learned one, orthonormal columns
    read: Tensor | None = None  # squared cosines of its principal angles with what the next linear map reads

    @property
    def names(self) -> Mapping[str, Sequence[str]]:
        return {"method": self.metadata["methods"], "search": self.metadata["searches"]}

    def of(self, method: str) -> Tensor:
        """The accuracy [image] of one method. Raises PrismaError: there is none of this name."""
        if method not in self.metadata["methods"]:
            raise PrismaError(f"expected one of {', '.join(self.metadata['methods'])}; found {method!r}")
        return self.accuracy[:, self.metadata["methods"].index(method)]

    def interval(self, level: float = 0.95) -> Tensor:
        """Bootstrap interval over test pairs [2, method]."""
        return bootstrap_interval(lambda rows: self.accuracy[rows].mean(0), len(self.accuracy), level=level)

    def report(self, classes: Sequence[str] = ()) -> str:
        """A line for each method, with its interval."""
        low, high = self.interval()
        rows = zip(self.metadata["methods"], self.accuracy.double().mean(0), low, high, strict=True)
        return "\n".join(f"{name}: {mean:.2f} ({a:.2f} to {b:.2f})" for name, mean, a, b in rows)

    def plot(self, array: str | None = None) -> "Figure":
        """A bar for each method, with its standard error; or a picture of another array."""
        if array not in (None, "accuracy"):
            return super().plot(array)
        x = self.accuracy.double()
        spread = x.std(0) / len(x) ** 0.5 if len(x) > 1 else None
        title = f"interchange at {self.metadata['site']}, dimension {self.metadata['dim']}"
        label = "share of pairs with the counterfactual answer, and its standard error"
        return draw_bars(x.mean(0), self.metadata["methods"], spread=spread, title=title, label=label)


@dataclass(frozen=True)
class Search:
    """How a subspace is searched for.

    Raises:
        PrismaError: no steps, no pairs in a step, or a rate of 0 or less.
    """

    dim: int = 1  # directions of the subspace
    steps: int = 200  # of Adam
    lr: float = 0.1  # its first learning rate, which falls to 0 as a cosine
    pairs: int = 64  # in each step
    seed: int = 0  # of what is drawn

    def __post_init__(self) -> None:
        if self.steps < 1 or self.pairs < 1 or self.lr <= 0:
            raise PrismaError(f"expected steps, pairs and lr above 0; found {self.steps}, {self.pairs} and {self.lr}")


@dataclass(frozen=True, eq=False)
class Subspaces:
    """The subspaces of a place, learned and others, by the name of the method; read on other pairs by `read`."""

    bases: Mapping[str, list[Tensor]]  # float64; several where an accuracy is averaged over them
    control: ViT  # the model with random weights, in which its own subspace is read
    place: Place
    training_accuracy: Tensor
    loss: Tensor
    overlap: Tensor | None
    search: Search

    @torch.no_grad()
    def read(
        self, model: ViT, images: Tensor, source_images: Tensor, labels: Tensor, *, batch: int | None = None
    ) -> Interchange:
        """How often they give the counterfactual answer. Arguments, errors and result are those of `interchange`."""
        labels = _expect_triples(model, images, source_images, labels)
        shares = {}
        pairs = {m: Pairs(m, images, source_images, self.place, batch) for m in (model, self.control)}
        for name, bases in self.bases.items():
            own = pairs[self.control if name == RANDOM_MODEL else model]
            shares[name] = torch.stack([own.answers(basis, labels) for basis in bases]).mean(0)
        settings = {"methods": list(shares), "searches": list(SEARCHES), **self.place.metadata, **asdict(self.search)}
        kind = exact(model.embed.prefix).dtype
        return Interchange(
            metadata={"analysis": "interchange", **settings},
            accuracy=torch.stack(list(shares.values()), dim=1),
            training_accuracy=self.training_accuracy,
            loss=self.loss,
            subspace=self.bases[LEARNED][0].to(kind),
            read=None if self.overlap is None else self.overlap.to(kind),
        )


@guarded
@torch.inference_mode(False)  # the caller may be in it
def interchange(
    model: ViT,
    images: Tensor,
    source_images: Tensor,
    labels: Tensor,
    test_images: Tensor,
    test_source_images: Tensor,
    test_labels: Tensor,
    site: str,
    *,
    dim: int = Search.dim,
    where: str | int = "class",
    head: int | None = None,
    steps: int = Search.steps,
    lr: float = Search.lr,
    pairs: int = Search.pairs,
    seed: int = Search.seed,
    batch: int | None = None,
) -> Interchange:
    """Does a subspace of an activation carry one variable, and nothing else?

    A subspace is learned on some pairs such that, when the base gets the source's components within it, the answer is
    that of the base with this one variable from the source. `accuracy` is the share of other pairs for which it is: 1
    where the subspace carries the variable, and believable only as far as it is above every control.

    Args:
        images, source_images, labels: bases, sources and counterfactual labels to learn with, such as those of
            `prisma.data.counterfactuals`. test_images, test_source_images, test_labels: others, to measure with.
        site: the full name of a site with features, such as "blocks.3.resid_post".
        dim: the number of directions of the subspace.
        where: the tokens, all of which are exchanged within the same subspace: "class", "registers", "patches", "all",
            or a token by its place. head: which head, where the site has heads.
        steps, lr, pairs: of the search: steps of Adam, its first learning rate (which falls to 0 as a cosine), and the
            pairs in each step. seed: of what is drawn.
        batch: images in one pass; by default as many as fit in 256 MiB.

    Returns:
        `accuracy` [image, method], one row for each test pair; `training_accuracy` [search]; `loss` [step]; `subspace`
        [feature, direction]; `read` [direction] where a linear map alone reads the place, squared cosines.

    Raises:
        PrismaError: no such site, head or tokens; more directions than features, or none; shapes that do not fit; no
            steps, or no pairs in a step; a rate of 0 or less; training pairs of one label.

    Sources: Geiger et al. 2303.02536; Makelov et al. 2311.17030.
    """
    _expect_triples(model, test_images, test_source_images, test_labels)
    place, search = Place.of(model, site, where, head), Search(dim, steps, lr, pairs, seed)
    learned = learn_subspaces(model, images, source_images, labels, place, search, batch=batch)
    return learned.read(model, test_images, test_source_images, test_labels, batch=batch)


@torch.inference_mode(False)
def learn_subspaces(
    model: ViT,
    images: Tensor,
    source_images: Tensor,
    labels: Tensor,
    place: Place,
    search: Search,
    *,
    batch: int | None = None,
) -> Subspaces:
    """The subspaces of a place, for `Subspaces.read`: the half of `interchange` that learns, with its errors."""
    labels = _expect_triples(model, images, source_images, labels)
    dim, random = search.dim, torch.Generator().manual_seed(search.seed)
    own = Pairs(model, images, source_images, place, batch)
    features, control = own.source.shape[-1], random_control(model, search.seed)
    if not 1 <= dim <= features:
        raise PrismaError(f"expected dim from 1 to {features}, the features of {place.site}; found {dim}")
    if len(labels.unique()) < 2:
        raise PrismaError(
            "expected training pairs of two counterfactual labels or more; found one: any search finds it"
        )
    shuffled = labels[torch.randperm(len(labels), generator=random).to(labels.device)]
    tasks = {
        LEARNED: (own, labels),
        SHUFFLED: (own, shuffled),
        RANDOM_MODEL: (Pairs(control, images, source_images, place, batch), labels),
    }
    bases, accuracy, losses = dict[str, list[Tensor]](), list[Tensor](), list[Tensor]()
    for name, (runs, asked) in tasks.items():
        basis, loss = runs.search(asked, dim, search.steps, search.lr, search.pairs, search.seed)
        bases[name] = [basis]
        losses.append(loss)
        with torch.no_grad():
            accuracy.append(runs.answers(basis, asked).mean())
    read, none = what_is_read(model, place), torch.zeros(features, 0, dtype=torch.float64)
    parts = {} if read is None else _parts(bases[LEARNED][0], read.cpu())
    vectors = torch.cat([own.runs.values, own.source]).flatten(0, 1)
    found = {
        LEARNED: bases[LEARNED],
        **{name: [basis] for name, basis in parts.items()},
        "no exchange": [none],
        "whole place": [torch.eye(features, dtype=torch.float64)],
        "random subspaces": [random_subspace(features, dim, random) for _ in range(DRAWS)],
        "principal components": [principal_subspace(vectors, dim).cpu()],
        **{name: bases[name] for name in (SHUFFLED, RANDOM_MODEL)},
    }
    shared = None if read is None else overlap(bases[LEARNED][0], read.cpu())
    return Subspaces(found, control, place, torch.stack(accuracy), losses[0], shared, search)


def _parts(basis: Tensor, read: Tensor) -> dict[str, Tensor]:
    """The parts of a subspace within the directions that the next map reads, and at a right angle to them."""
    within = read @ (read.mT @ basis)
    return {"its row space": span_of(within, LEAST), "its null space": span_of(basis - within, LEAST)}


def _expect_triples(model: ViT, images: Tensor, source_images: Tensor, labels: Tensor) -> Tensor:
    """The labels [pair]. Raises PrismaError: not a source of the same shape and a class of the model for each image."""
    if images.shape != source_images.shape or not len(images):
        raise PrismaError(
            f"expected a source of the same shape for each image, and at least one; found {list(images.shape)} and "
            f"{list(source_images.shape)}"
        )
    return expect_labels(model, images, labels)
