"""Linear probes: in which layers is the class linearly present, and is it where the readout reads?

For each layer and kind of token (class token, registers, patches) one ridge regression, from the token's vector x to +1
for the image's class and -1 for all others, with a mean that is not penalised:

    W, b = argmin  sum over tokens |W x + b - y|^2 + alpha |W|^2

Its answer is the class with the largest number. All patches are samples of one probe. The regression is solved from
sums over tokens (in float64), so that training takes one pass over the images and memory that does not grow with them.

A probe finds what is linearly present, whether or not the model uses it; the projection beside it finds what its own
readout would find. Where a probe answers and the projection does not, the class is there in other directions.

Sources: Alain & Bengio 1610.01644 (probes); Vilas et al. 2310.18969 (beside the projection; one probe for each place).

Shapes: B image, L layer, T token, M d_model, C class, K kind.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from prisma.analysis.border import guarded
from prisma.analysis.class_space.causes import effects_by_layer
from prisma.analysis.class_space.class_projection import Projection
from prisma.analysis.class_space.passes import recorded
from prisma.analysis.class_space.ranks import expect_labels, first_share, rank_and_ties
from prisma.analysis.class_space.ridge import RidgeSums
from prisma.analysis.class_space.token_kinds import kinds_metadata, token_kinds
from prisma.analysis.result import Effect, Result
from prisma.analysis.statistics import bootstrap_interval
from prisma.errors import PrismaError
from prisma.runs import sites_of_every_block
from prisma.sites import RESIDUAL, axes_of
from prisma.view.figures.charts import draw_stages
from prisma.vit import ViT

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True, eq=False)
class LinearProbes(Result):
    """How often a probe of each layer answers the class, and how often the model's own readout does there.

    Both are shares of an image's tokens of a kind: 1 / C by chance. `metadata["kinds"]` has the names of the kinds.
    """

    AXES: ClassVar[Mapping[str, tuple[str, ...]]] = dict.fromkeys(("probe", "projection"), ("image", "layer", "kind"))

    probe: Tensor
    projection: Tensor

    @property
    def names(self) -> Mapping[str, Sequence[str]]:
        return {"kind": self.metadata["kinds"]}

    def interval(self, of: str = "probe", level: float = 0.95) -> Tensor:
        """Bootstrap interval over images [2, layer, kind] of "probe", "projection" or their "difference".

        Raises:
            PrismaError: there is no such number.
        """
        known = {"probe": self.probe, "projection": self.projection, "difference": self.probe - self.projection}
        if of not in known:
            raise PrismaError(f"expected one of {', '.join(known)}; found {of!r}")
        return bootstrap_interval(lambda rows: known[of][rows].mean(0), len(self.probe), level=level)

    def plot(self, array: str | None = None, *, cause: Effect | None = None) -> "Figure":
        """A line for each kind of token, of the probes and of the projection: means over images by layer.

        Args:
            cause: as in `ClassIdentifiability.plot`.
        """
        if array is not None and array not in self.axes:
            return super().plot(array)  # whose error lists the arrays
        chosen = [array] if array else list(self.axes)
        lines = {
            f"{name}: {kind}": self.arrays[name][..., i]
            for name in chosen
            for i, kind in enumerate(self.metadata["kinds"])
        }
        title = f"linear probes: which class comes first, {self.metadata['site']}"
        chance, beside = 1 / self.metadata["classes"], effects_by_layer(cause)
        return draw_stages(lines, level=chance, title=title, axis="layer", beside=beside)


@dataclass(frozen=True, eq=False)
class Probes:
    """A probe for each layer and kind of token."""

    weight: Tensor  # [layer, kind, class, d_model], float64
    bias: Tensor  # [layer, kind, class]
    kinds: Mapping[str, Tensor]  # kind -> the places of its tokens
    site: str
    alpha: float

    def read(
        self, model: ViT, images: Tensor, labels: Tensor, *, norm: str = "final", batch: int | None = None
    ) -> LinearProbes:
        """What the probes answer on other images. Arguments, errors and result are those of `linear_probes`."""
        labels = expect_labels(model, images, labels)
        sites, projection, found = sites_of_every_block(model, self.site), Projection(model, norm), []
        last = f"blocks.{model.config.n_layers - 1}.resid_post"
        for rows, _, acts in recorded(model, images, [*{*sites, last}], batch):
            own = [projection(acts[s], acts[last] if norm == "frozen" else None) for s in sites]
            answers = torch.stack([self._answers(i, acts[s].double(), labels[rows]) for i, s in enumerate(sites)], 1)
            first = torch.stack([_first(x_BTC, labels[rows]) for x_BTC in own], dim=1)
            by_kind = [first[..., places.to(first.device)].mean(-1) for places in self.kinds.values()]
            found.append((answers, torch.stack(by_kind, dim=-1)))
        probe, read = (torch.cat(x).float() for x in zip(*found, strict=True))
        settings = {"site": self.site, "alpha": self.alpha, "norm": norm, "kinds": list(self.kinds)}
        metadata = {"analysis": "linear_probes", **settings, "classes": model.config.n_classes}
        return LinearProbes(metadata=metadata, probe=probe, projection=read)

    def _answers(self, layer: int, x_BTM: Tensor, labels_B: Tensor) -> Tensor:
        """[image, kind]: the share of tokens at which the probe answers the class."""
        shares = []
        for kind, places in enumerate(self.kinds.values()):
            weight, bias = self.weight[layer, kind].to(x_BTM), self.bias[layer, kind].to(x_BTM)
            shares.append(_first(x_BTM[:, places.to(x_BTM.device)] @ weight.mT + bias, labels_B).mean(-1))
        return torch.stack(shares, dim=-1)


def _first(logits_BTC: Tensor, labels_B: Tensor) -> Tensor:
    return first_share(*rank_and_ties(logits_BTC, labels_B))


@guarded
@torch.no_grad()
def linear_probes(
    model: ViT,
    images: Tensor,
    labels: Tensor,
    test_images: Tensor,
    test_labels: Tensor,
    *,
    site: str = "resid_post",
    alpha: float = 1.0,
    norm: str = "final",
    batch: int | None = None,
) -> LinearProbes:
    """Is the class linearly present in a layer, and would the model's own readout find it there?

    `probe` and `projection` are shares of tokens that answer the class, on the test images: both near 1 / C where
    nothing is there; a probe far above the projection finds the class in directions that the readout does not read.

    Args:
        images, labels: to train the probes on, at least one image for each class of the model.
        test_images, test_labels: others, to read them on.
        site: a site of every block along the residual stream: resid_post, resid_mid, attn_out, mlp_out, ...
        alpha: how much large weights are penalised.
        norm: how the projection treats the norm, as in `class_space.project`.
        batch: images in one pass; by default as many as have about 256 MiB of activations.

    Returns:
        `probe` and `projection` [image, layer, kind], from 0 to 1.

    Raises:
        PrismaError: fewer training images than classes, or one class alone among them; `alpha` is negative; or as
            `class_projection` and `class_identifiability`.

    Sources: Alain & Bengio 1610.01644; Vilas et al. 2310.18969.
    """
    test_labels = expect_labels(model, test_images, test_labels)
    probes = train_probes(model, images, labels, site=site, alpha=alpha, batch=batch)
    return probes.read(model, test_images, test_labels, norm=norm, batch=batch)


@torch.no_grad()
def train_probes(
    model: ViT,
    images: Tensor,
    labels: Tensor,
    *,
    site: str = "resid_post",
    alpha: float = 1.0,
    batch: int | None = None,
) -> Probes:
    """The probes of `linear_probes`, with its arguments and errors."""
    labels = expect_labels(model, images, labels)
    c, sites = model.config, sites_of_every_block(model, site)
    if axes_of(sites[0]) != RESIDUAL:
        raise PrismaError(f"expected a site along the residual stream, such as resid_post; found {site!r}")
    if len(images) < c.n_classes:
        raise PrismaError(f"expected at least as many training images as classes, {c.n_classes}; found {len(images)}")
    if len(labels.unique()) < 2:
        raise PrismaError("expected training images of two classes or more; found one class")
    if alpha < 0:
        raise PrismaError(f"expected alpha of 0 or more; found {alpha}")
    metadata = kinds_metadata(c)
    masks = token_kinds(c.n_tokens, metadata["prefix"], bool(metadata["class_token"]), None)
    kinds = {kind: mask[0].nonzero()[:, 0] for kind, mask in masks.items()}
    sums = [[RidgeSums(c.d_model, c.n_classes) for _ in kinds] for _ in sites]
    for rows, _, acts in recorded(model, images, sites, batch):
        for of_layer, at in zip(sums, sites, strict=True):
            for total, places in zip(of_layer, kinds.values(), strict=True):
                total.add(acts[at][:, places.to(acts[at].device)], labels[rows])
    solved = [[total.solve(alpha) for total in of_layer] for of_layer in sums]
    weight, bias = (torch.stack([torch.stack([x[i] for x in of_layer]) for of_layer in solved]) for i in (0, 1))
    return Probes(weight, bias, kinds, site, alpha)
