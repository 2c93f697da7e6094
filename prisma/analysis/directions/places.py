"""A place in a model: one site, some of its tokens and, where it has heads, one head; and runs that are changed there.

Shapes: B image, T position, F feature.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from prisma.analysis.attention.token_grid import TokenGrid
from prisma.analysis.border import expect_finite_run, record
from prisma.analysis.readings import PLACES, Activations, features_at
from prisma.batching import inputs_per_pass
from prisma.config import ViTConfig
from prisma.edits import Edit, Set
from prisma.errors import PrismaError, quoted
from prisma.inventory import site_names
from prisma.numbers import exact
from prisma.runs import check_pixels, finish, in_steps
from prisma.selection import Index
from prisma.sites import Tap, axes_of, matching
from prisma.vit import ViT


@dataclass(frozen=True)
class Place:
    """Where vectors are read and written: `Place("blocks.3.resid_post", "class")`."""

    site: str
    where: str | int = "class"  # the class token, registers, patches, all, or a position by its place
    head: int | None = None

    @classmethod
    def of(cls, model: ViT, site: str, where: str | int, head: int | None) -> "Place":
        """The place of these names. Raises PrismaError unless the name means one site of the model."""
        if not isinstance(site, str):
            raise PrismaError(f"expected the name of one site; found {quoted(site)}")
        found = matching(site, site_names(model.config))
        if len(found) != 1:
            raise PrismaError(f"expected the name of one site; found {site!r}, which means {len(found)}")
        return cls(found[0], where, head)

    def read(self, config: ViTConfig, acts: Mapping[str, Tensor]) -> Tensor:
        """[image, position, feature], in float32 at least.

        Raises:
            PrismaError: the site has no features, no such head, or no such positions.
        """
        named = Activations(acts, {self.site: axes_of(self.site)}, TokenGrid.of(config))
        return exact(features_at(named, self.site, self.where, self.head))

    def edit(self, config: ViTConfig, values: Tensor) -> Edit:
        """The edit that writes [image, position, feature] there."""
        axes, at = axes_of(self.site), dict[str, Index]()
        if axes[1] not in PLACES:
            values = values[:, 0]  # a site without positions, whose vector stands for the image
        elif isinstance(self.where, int):
            at[axes[1]] = [self.where]
        elif axes[1] == "token" and self.where != "all":
            at["token"] = TokenGrid.of(config).role(self.where).nonzero()[:, 0].tolist()
        if self.head is not None:
            at["head"] = self.head
        return Set(values).at(**at)

    @property
    def metadata(self) -> dict[str, str | int | None]:
        """What a result says of it."""
        return {"site": self.site, "where": self.where, "head": self.head}


class PlacedRuns:
    """Runs on some images that differ from their own runs at one place. What comes before its block is computed once.

    It keeps the stream before that block for all images: token times d_model numbers for each.
    """

    def __init__(self, model: ViT, images: Tensor, place: Place, batch: int | None = None) -> None:
        check_pixels(model, images)
        if not len(images):
            raise PrismaError("expected at least one image; found none")
        self.model, self.images, self.place = model, images, place
        self.size = inputs_per_pass(model, batch)
        self.start = _start(model, place.site) if in_steps(model, "resid_pre") else 0
        stream, last = f"blocks.{self.start}.resid_pre", model.config.n_layers - 1
        kept = [stream if self.start <= last else f"blocks.{last}.resid_post"] if self.start else []
        values, streams, own = list[Tensor](), list[Tensor](), list[Tensor]()
        with torch.no_grad():
            for some in images.split(self.size):
                logits, acts = record(model, some, [place.site, *kept])
                values.append(place.read(model.config, acts).clone())
                streams += [acts[site] for site in kept]
                own.append(logits)
        self.values, self.own = torch.cat(values), torch.cat(own)
        self._streams = torch.cat(streams) if kept else None

    def logits(self, values: Tensor, rows: Tensor | slice = slice(None)) -> Tensor:
        """Logits [row, class] of the runs on these images in which the place has other values [row, position, feature].

        Gradients go to the values, where they are recorded.
        """
        edit, site = self.place.edit(self.model.config, values.to(self.own.dtype)), self.place.site
        tap, images = Tap(edit={site: (edit,)}), self.images[rows]
        if self._streams is None:
            logits: Tensor = self.model(images, tap=tap)
        elif site.endswith((".resid_pre", ".resid_post")):  # the stream that the run starts from
            stream = edit(self._streams[rows], axes_of(site))
            return expect_finite_run(finish(self.model, stream, images, start=self.start))
        else:
            logits = finish(self.model, self._streams[rows], images, start=self.start, tap=tap)
        tap.expect_reached()
        return expect_finite_run(logits)

    def all_logits(self, values: Tensor) -> Tensor:
        """The same of all images, one pass after another."""
        rows = torch.arange(len(self.images), device=self.images.device).split(self.size)
        return torch.cat([self.logits(values[some], some) for some in rows])


def _start(model: ViT, site: str) -> int:
    """The block from which a run must start to change a site: 0 for sites before, n_layers for those after."""
    if site.startswith("blocks."):
        return int(site.split(".")[1]) + site.endswith(".resid_post")
    return 0 if site in ("embed", "pos_embed", "ln_pre") else model.config.n_layers
