"""Units of a layer set to zero, alone or with others: which sets, and what they do to the accuracy on each class.

Of a vision transformer, units are neurons (`mlp.post`) or heads (`attn.z`), which the engine of ablation removes. Of
another network, they are what a layer gives, before its activation function: zero weights and biases, as one says.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from prisma.analysis.modularity.layer_weights import LAYERS, weight_of
from prisma.analysis.modularity.modularity import Modularity
from prisma.analysis.patching.sweeping import patched_runs
from prisma.analysis.patching.units import Units
from prisma.batching import inputs_per_pass
from prisma.edits import Zero
from prisma.errors import NotFiniteError, PrismaError
from prisma.metrics import above_and_tied, measure, takes_runs, top_share
from prisma.runs import run, sites_of_every_block
from prisma.vit import ViT

AXIS = {"mlp.post": "d_mlp", "attn.z": "head"}
"""The site of a vision transformer whose units are removed -> their axis."""
BATCH = 256  # inputs of another network at once

Removed = Sequence[tuple[str, Sequence[int]]]
"""Layers, and which of their units are zero."""


@dataclass(frozen=True)
class Sets:
    """Communities within layers, each followed by random sets of as many units of its layer.

    Random sets are of units that are in a community: those without edges, as pruning leaves them, do nothing.
    """

    names: Sequence[str]  # of the layers that have units to remove, in their order
    site: str  # of a vision transformer; "" of another network
    units: list[list[int]]  # all sets
    layers: list[int]  # the layer of each community, by its place in `names`
    communities: list[int]
    sizes: list[int]

    @property
    def per_community(self) -> int:
        """The community and its random sets."""
        return len(self.units) // len(self.layers)

    @classmethod
    def of(cls, model: nn.Module, found: Modularity, draws: int, smallest: int, seed: int) -> "Sets":
        """The communities of a graph of this model.

        Raises:
            PrismaError: they are of another model or of other units, or none can be removed.
        """
        layers: Sequence[str] = found.metadata["layers"]
        names, site, widths = _of_vit(model, layers) if isinstance(model, ViT) else _of_network(model, layers)
        sizes = {name: int((found.layer == i).sum()) for i, name in enumerate(layers) if name in widths}
        if wrong := [name for name, size in sizes.items() if size != widths[name]]:
            raise PrismaError(
                f"expected communities of this model; found a layer {wrong[0]} of {sizes[wrong[0]]} units"
            )
        sets, random = cls(names, site, [], [], [], []), np.random.default_rng(seed)
        for name in sizes:
            own = found.labels[found.layer == list(layers).index(name)]
            members = (own >= 0).nonzero()[:, 0].numpy()
            for community in sorted(set(own[members].tolist())):
                units = (own == community).nonzero()[:, 0].tolist()
                if smallest <= len(units) < len(members):
                    drawn = [random.choice(members, len(units), replace=False).tolist() for _ in range(draws)]
                    sets.units.extend([units, *drawn])
                    sets.layers.append(list(names).index(name))
                    sets.communities.append(community)
                    sets.sizes.append(len(units))
        if not sets.units:
            width = max(sizes.values(), default=0)
            raise PrismaError(
                f"expected a community with at least {smallest} units of a layer, and not all {width}; found none"
            )
        return sets


def _of_vit(model: ViT, layers: Sequence[str]) -> tuple[Sequence[str], str, Mapping[str, int]]:
    """(layers whose units can be removed, their site, how many units they have)."""
    site = next((site for site in AXIS if any(name.endswith(f".{site}") for name in layers)), None)
    if site is None:
        raise PrismaError(f"expected communities of units of {' or '.join(AXIS)}; found those of {layers[0]} and more")
    names = sites_of_every_block(model, site)
    width = model.config.n_heads if site == "attn.z" else model.config.d_mlp
    return names, site, {name: width if name in names else -1 for name in layers if name.endswith(f".{site}")}


def _of_network(model: nn.Module, layers: Sequence[str]) -> tuple[Sequence[str], str, Mapping[str, int]]:
    """As `_of_vit`, but for the last layer, whose units are the answer."""
    parts = dict(model.named_modules())
    widths = {name: len(weight_of(part)) for name in layers if isinstance(part := parts.get(name), LAYERS)}
    names = list(widths)[:-1]
    if not names:
        raise PrismaError(
            f"expected communities of a network's layers before the last; found those of {layers[0]} and more: use "
            "modularity(weight_graph(network))"
        )
    return names, "", {name: widths[name] for name in names}


class Lesions:
    """Accuracies on each class of a model with some of its units zero."""

    def __init__(self, model: nn.Module, images: Tensor, labels: Tensor, sets: Sets, batch: int | None) -> None:
        self.model, self.images, self.labels, self.sets, self.batch = model, images, labels.cpu(), sets, batch
        self.clean, self.classes = self._logits_and_classes()

    def _logits_and_classes(self) -> tuple[Tensor, int]:
        logits = self._logits([])
        if logits.ndim != 2 or not 0 <= int(self.labels.min()) <= int(self.labels.max()) < logits.shape[1]:
            raise PrismaError(
                f"expected an answer [image, class], and labels of its classes; found {list(logits.shape)} and labels "
                f"{int(self.labels.min())} to {int(self.labels.max())}"
            )
        return by_class(_right(logits, self.labels), self.labels, logits.shape[1]), logits.shape[1]

    def alone(self) -> Tensor:
        """[set, 1 + draw, class]: the change of the accuracy by each community, and then by its random sets."""
        per = self.sets.per_community
        if isinstance(self.model, ViT):
            layer = torch.tensor(self.sets.layers).repeat_interleave(per)  # [set and draw]
            values = self._swept(self.model, layer)
        else:
            layers = [self.sets.names[layer] for layer in self.sets.layers for _ in range(per)]
            values = torch.stack(
                [self.right([(name, units)]) for name, units in zip(layers, self.sets.units, strict=True)], 1
            )
        changes = by_class(values, self.labels, self.classes) - self.clean[:, None]
        return changes.mT.unflatten(0, (-1, per))

    def _swept(self, model: ViT, layer: Tensor) -> Tensor:
        """[image, set and draw], by the engine of ablation, which shares what the runs have in common."""
        nothing = next(model.parameters()).new_zeros(1)
        cells = torch.arange(model.config.n_layers)[:, None] == layer
        units = Units(model, self.sets.site, AXIS[self.sets.site], self.sets.units)
        found = patched_runs(model, self.images, units, lambda rows: _Nothing(nothing), self.batch, cells)
        return found.measure(_Right(self.labels.to(nothing.device)))[:, layer, torch.arange(len(layer))].cpu()

    def change(self, removed: Removed) -> Tensor:
        """[class]: the change of the accuracy without these units."""
        return by_class(self.right(removed), self.labels, self.classes) - self.clean

    def right(self, removed: Removed) -> Tensor:
        """[image]: whether the answer is right without these units; a share where classes tie."""
        return _right(self._logits(removed), self.labels)

    def _logits(self, removed: Removed) -> Tensor:
        call = _vit_without if isinstance(self.model, ViT) else _network_without
        size = inputs_per_pass(self.model, self.batch) if isinstance(self.model, ViT) else self.batch or BATCH
        axis = AXIS.get(self.sets.site, "")
        found = torch.cat([call(self.model, some, removed, axis) for some in self.images.split(size)]).cpu()
        if not bool(found.isfinite().all()):
            raise NotFiniteError(f"expected finite answers; found others without units of {[n for n, _ in removed]}")
        return found


class _Nothing:
    """A source that is zero."""

    def __init__(self, value: Tensor) -> None:
        self._value = value

    def value(self, layer: int) -> Tensor:
        return self._value


def _vit_without(model: nn.Module, images: Tensor, removed: Removed, axis: str) -> Tensor:
    return run(model, images, {name: Zero().at(**{axis: list(units)}) for name, units in removed})  # type: ignore[arg-type]


def _network_without(model: nn.Module, images: Tensor, removed: Removed, axis: str) -> Tensor:
    def without(units: Sequence[int], at: int) -> Callable[..., Tensor]:
        return lambda _, __, output: output.index_fill(at, torch.as_tensor(list(units), device=output.device), 0.0)

    parts = [(model.get_submodule(name), units) for name, units in removed]
    hooks = [
        part.register_forward_hook(without(units, -1 if isinstance(part, nn.Linear) else 1)) for part, units in parts
    ]
    try:
        found = model(images)
    finally:
        for hook in hooks:
            hook.remove()
    if not isinstance(found, Tensor):
        raise PrismaError(f"expected a network that gives a tensor; found a {type(found).__name__}")
    return found


@dataclass(frozen=True, eq=False)
class _Right:
    """The metric that is 1 for each image whose label comes first; a share where classes tie."""

    labels: Tensor

    @takes_runs
    def __call__(self, logits: Tensor) -> Tensor:
        return top_share(*above_and_tied(logits, self.labels))


def _right(logits: Tensor, labels: Tensor) -> Tensor:
    return measure(_Right(labels), logits)


def by_class(values: Tensor, labels: Tensor, classes: int) -> Tensor:
    """The mean over the images of each class [class, ...] of values [image, ...]; NaN for a class without images."""
    member = torch.nn.functional.one_hot(labels.cpu(), classes).double().T
    counts = member.sum(1).view(-1, *[1] * (values.ndim - 1))
    return torch.tensordot(member, values.double().cpu(), 1) / torch.where(counts > 0, counts, torch.nan)
