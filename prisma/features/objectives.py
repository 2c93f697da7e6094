"""What an image is optimised for. Each objective is a value that reads sites of a run, and combines with `+ - * /`.

`Channel("blocks.3.mlp.post", 17) - 0.5 * Neuron("logits", 3)`. Sites of a model of Prisma have its names; those of
another network are the dotted names of its parts. Every network has the site `pixels` too, so a regulariser is an
objective.

Sources: Olah et al. 2017, Feature Visualization; Mordvintsev et al. 2018; Gatys et al. 1508.06576 (style).

Shapes: B image, T position, F feature.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from prisma.analysis.readings import Objective, Read, Reading, expect_index, features_at
from prisma.errors import PrismaError, quoted
from prisma.features.subjects import OUTPUT
from prisma.fields import check_types
from prisma.metrics import Logit, Metric, measure
from prisma.sites import canonical

LEAST_COSINE = 0.1  # below it, the cosine of a power counts as this: otherwise there is no gradient to begin with


@dataclass(frozen=True, eq=False)
class AtSite(Objective):
    """An objective that reads one site."""

    site: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "site", canonical(self.site))

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.site,)


@dataclass(frozen=True)
class Channel(AtSite):
    """One feature, averaged over positions: an MLP neuron over patches, a channel of a CNN, a logit.

    Attributes:
        site: such as `blocks.3.mlp.post`, `logits`, or `features.4` of another network.
        index: the feature.
        where: "patches", "class", "registers", "all", or one position by its place.
        head: which head, where the site has heads.
    """

    index: int
    where: str | int = "patches"
    head: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_types(self)

    def value(self, acts: Mapping[str, Tensor]) -> Tensor:
        """[batch]: the mean over positions."""
        return one_feature(acts, self).mean(1)


def one_feature(acts: Mapping[str, Tensor], unit: "Channel") -> Tensor:
    """[batch, position]: the feature of a channel at each of its positions."""
    x_BTF = features_at(acts, unit.site, unit.where, unit.head)
    expect_index(unit.index, x_BTF.shape[-1], "feature", unit.site)
    return x_BTF[..., unit.index]


@dataclass(frozen=True, eq=False)
class Direction(AtSite):
    """How far the features go along a direction: a residual direction, a head's output, a channel mix.

    `dot * max(cosine, 0.1) ** power`, averaged over positions: with a power, what points elsewhere counts less.

    Attributes:
        direction: [feature], used at unit length.
        power: of the cosine; 0 is the plain dot product.
        where, head: as of `Channel`.
    """

    direction: Tensor
    power: float = 0.0
    where: str | int = "patches"
    head: int | None = None

    def value(self, acts: Mapping[str, Tensor]) -> Tensor:
        """[batch]: the mean over positions."""
        x_BTF = features_at(acts, self.site, self.where, self.head)
        direction = self.direction.to(x_BTF)
        if direction.shape != x_BTF.shape[-1:] or not direction.norm() > 0:
            raise PrismaError(
                f"expected a direction of {self.site}, {x_BTF.shape[-1]} numbers that are not all 0; found "
                f"{list(self.direction.shape)}"
            )
        return powered((x_BTF @ F.normalize(direction, dim=0)), x_BTF.norm(dim=-1), self.power).mean(1)


def powered(dot: Tensor, length: Tensor, power: float) -> Tensor:
    """A dot product with a unit vector, times its cosine to a power. `length` is that of the other vector."""
    if not power:
        return dot
    return dot * (dot / length.clamp(min=torch.finfo(dot.dtype).tiny)).clamp(min=LEAST_COSINE) ** power


@dataclass(frozen=True)
class OfLogits(Objective):
    """A metric of the logits, such as `Logit(3)`, `LogitDiff(3, 5)` or, of a CLIP, `Similarity(prompt)`.

    Attributes:
        metric: one that is the same for every image.
    """

    metric: Metric

    @property
    def reads(self) -> tuple[str, ...]:
        return (OUTPUT,)

    def value(self, acts: Mapping[str, Tensor]) -> Tensor:
        """[batch]."""
        return measure(self.metric, acts[OUTPUT])


@dataclass(frozen=True, eq=False)
class OfFunction(Objective):
    """Your own function of recorded sites: activations by site -> one number for each image [batch].

    Attributes:
        function: for example `lambda acts: acts["blocks.3.resid_post"][:, 0].norm(dim=-1)`.
        sites: those that it reads.
        name: what it is called in results; by default the name of the function.
    """

    function: Callable[[Mapping[str, Tensor]], Tensor]
    sites: tuple[str, ...]
    name: str = ""

    @property
    def reads(self) -> tuple[str, ...]:
        return (self.sites,) if isinstance(self.sites, str) else tuple(self.sites)

    def value(self, acts: Mapping[str, Tensor]) -> Tensor:
        """[batch]."""
        found = self.function(acts)
        images = len(next(iter(acts.values())))
        if not isinstance(found, Tensor) or found.shape != (images,):
            what = list(found.shape) if isinstance(found, Tensor) else quoted(found)
            raise PrismaError(f"expected a function that gives one number for each image [{images}]; found {what}")
        return found


@dataclass(frozen=True)
class Near(Objective):
    """Minus the squared distance of another objective from a value that it is to have.

    Attributes:
        of: the other objective.
        target: the value.
    """

    of: Reading
    target: float

    @property
    def reads(self) -> tuple[str, ...]:
        return self.of.reads

    @property
    def per_image(self) -> bool:
        return getattr(self.of, "per_image", True)

    def bound(self, read: Read) -> Objective:
        """With what the other needs."""
        return replace(self, of=self.of.bound(read)) if isinstance(self.of, Objective) else self

    def value(self, acts: Mapping[str, Tensor]) -> Tensor:
        """[batch]: 0 is the value itself."""
        return -(self.of.value(acts) - self.target).square()


def as_objective(x: Any) -> Reading:
    """An objective as it is; a class becomes its logit, and a metric what it measures.

    Raises:
        PrismaError: it is something else.
    """
    if isinstance(x, Reading) and not isinstance(x, type):
        return x
    if isinstance(x, int) and not isinstance(x, bool):
        return OfLogits(Logit(x))
    if callable(x) and not isinstance(x, type):
        return OfLogits(x)
    raise PrismaError(f"expected an objective, a metric or a class; found {quoted(x)}")
