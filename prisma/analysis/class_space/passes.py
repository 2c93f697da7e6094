"""Recorded runs of a data set, one pass after another: what is kept at the same time does not grow with the data.

Shapes: B image, T token, M d_model.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from prisma.analysis.border import expect_finite_run, record
from prisma.analysis.lens.logit_lens import read_alone
from prisma.batching import block_memory, inputs_per_pass
from prisma.config import ViTConfig
from prisma.errors import PrismaError
from prisma.runs import Edits, check_pixels
from prisma.vit import ViT


def recorded(
    model: ViT,
    images: Tensor,
    sites: Sequence[str],
    batch: int | None,
    *,
    edit: Edits | None = None,
    numbers: int | None = None,
) -> Iterator[tuple[slice, Tensor, Mapping[str, Tensor]]]:
    """(rows, logits, site -> its value) of one pass after another.

    Args:
        numbers: how many numbers of one image are recorded; by default one residual stream for each site.
    """
    check_pixels(model, images)
    if not len(images):
        raise PrismaError("expected at least one image; found none")
    c = model.config
    kept = c.n_tokens * c.d_model * len(sites) if numbers is None else numbers
    one_layer = 2 * c.n_tokens * c.n_classes  # logits of one site, and their comparison
    element = max(next(model.parameters()).element_size(), 4)
    size = inputs_per_pass(model, batch, memory=block_memory(model) + element * (kept + one_layer))
    for start in range(0, len(images), size):
        rows = slice(start, start + size)
        logits, acts = record(model, images[rows], sites, edit)
        yield rows, logits, acts


@dataclass
class Pass:
    """One recorded run, and the projections that several readers of it need."""

    model: ViT
    rows: slice  # of all images
    images: Tensor
    logits: Tensor
    acts: Mapping[str, Tensor]
    _first: dict[str, Tensor] = field(default_factory=dict)

    def projected(self, site: str) -> Tensor:
        """The logits [image, token, class] that the readout has for each token of a site alone."""
        found = expect_finite_run(read_alone(self.model, self.acts[site]))
        self._first[site] = found.argmax(-1)
        return found

    def first(self, site: str) -> Tensor:
        """The class with the largest of these logits [image, token], computed once for all readers."""
        if site not in self._first:
            self.projected(site)
        return self._first[site]


class Reader(Protocol):
    """What an analysis takes from each pass."""

    @property
    def sites(self) -> Mapping[str, int]:
        """The sites that it reads -> how many numbers each has for one image."""

    def add(self, one: Pass) -> None:
        """Take what is needed of one pass."""


def read_all(model: ViT, images: Tensor, readers: Sequence[Reader], batch: int | None) -> None:
    """One run over all images, of which every reader takes what it needs."""
    sites = {site: numbers for reader in readers for site, numbers in reader.sites.items()}
    for rows, logits, acts in recorded(model, images, list(sites), batch, numbers=sum(sites.values())):
        one = Pass(model, rows, images[rows], logits, acts)
        for reader in readers:
            reader.add(one)


def stream_numbers(model: ViT, sites: Sequence[str]) -> dict[str, int]:
    """Sites along the residual stream -> how many numbers each has for one image."""
    return dict.fromkeys(sites, model.config.n_tokens * model.config.d_model)


def chosen_layers(config: ViTConfig, layers: Iterable[int] | None) -> list[int]:
    """The numbers of these layers, each once; by default all.

    Raises:
        PrismaError: no layer, or one that the model does not have.
    """
    chosen = list(dict.fromkeys(range(config.n_layers) if layers is None else layers))
    if not config.n_layers:
        raise PrismaError("expected a model with layers; found n_layers=0")
    if not chosen or not all(0 <= layer < config.n_layers for layer in chosen):
        raise PrismaError(f"expected layers from 0 to {config.n_layers - 1}; found {chosen}")
    return chosen


def stage_sites(model: ViT) -> list[str]:
    """The sites of the residual stream at every stage: before the first block, and after each of them."""
    layers = model.config.n_layers
    return ["blocks.0.resid_pre", *(f"blocks.{layer}.resid_post" for layer in range(layers))] if layers else []


def stages(model: ViT, images: Tensor, acts: Mapping[str, Tensor], *, last: bool = False) -> list[Tensor]:
    """The residual stream [image, token, d_model] at every stage of a run in which `stage_sites` were recorded.

    Args:
        last: of the last stage alone.
    """
    sites = stage_sites(model)[-1:] if last else stage_sites(model)
    return [acts[site] for site in sites] or [model.embed(images)]
