"""The latents of coders as parts of a model: what their attribution, patching and circuits have in common.

A coder splits the activations of its site into latents and what it does not reconstruct:

    x = sum_j z_j W_dec[j] + b_dec + e        z the code, e the error

Each latent is a node and so is the error, so that nothing of x is outside of the nodes (Marks et al. 2403.19647). The
value of a node is that of all its tokens. With the code z' and the error e' of another run,

    x + sum over replaced latents of (z'_j - z_j) W_dec[j]  (+ e' - e)

is the run in which these nodes are those of the other one; with all of them replaced it is x'. A transcoder's nodes are
its latents at the site that it writes, and its skip is part of the error.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from prisma.analysis.border import record
from prisma.analysis.result import PairedEffect
from prisma.batching import block_memory
from prisma.config import TextConfig
from prisma.errors import PrismaError
from prisma.inventory import site_names
from prisma.runs import Model
from prisma.sites import Cache, axes_of, matching
from prisma.sparse.activations import bare, roles_of, rows_of
from prisma.sparse.belonging import expect_trained_on
from prisma.sparse.coders import CROSSCODER, Coder, at_site
from prisma.sparse.splicing import error_of

Coders = Coder | Sequence[Coder] | Mapping[str, Coder]
"""One coder, several, or coders by the site that they read, where their files name it otherwise."""
Node = tuple[str, int | None]
"""The site that a coder writes, and a latent of it; None for its error."""
ERROR = -1  # in arrays, in the place of a latent


@dataclass(frozen=True)
class Code:
    """A run at one site."""

    z: Tensor  # [image, token, m]
    error: Tensor  # [image, token, d]


@dataclass(frozen=True)
class Nodes:
    """Coders at sites of a model, in the order in which it computes these.

    Args:
        coders: by the site that each writes.
        tokens: the indices of the tokens at which they are spliced in; None: all.
    """

    coders: Mapping[str, Coder]
    tokens: tuple[int, ...] | None = None

    @classmethod
    def of(
        cls, model: Model, coders: Coders, tokens: Sequence[int] | None = None, other_model: bool = False
    ) -> "Nodes":
        """Those of coders that fit the model.

        Raises:
            PrismaError: no coders, a coder of another model, a crosscoder, two coders of one site, or a site or token
                that the model lacks.
        """
        if isinstance(coders, Mapping):
            given = [at_site(coder, site) for site, coder in coders.items()]
        else:
            given = [coders] if isinstance(coders, Coder) else list(coders)
        if not given or not all(isinstance(coder, Coder) for coder in given):
            raise PrismaError(f"expected sparse coders; found {[type(coder).__name__ for coder in given]}")
        known, found = site_names(model.config), dict[str, Coder]()
        for coder in given:
            expect_trained_on(coder, model, other_model)
            if len(coder.config.sites) > 1:
                raise PrismaError(f"expected coders of one site each; {CROSSCODER}")
            for site in (bare(coder.site), bare(coder.config.target or coder.site)):
                if matching(site, known) != [site]:
                    raise PrismaError(f"expected a coder of one site; found {site!r}")
            if site in found:
                raise PrismaError(f"expected one coder for each site; found two of {site}")
            found[site] = coder
        for site in found:
            n = len(roles_of(model, site))
            if tokens is not None and axes_of(site)[1] != "token":
                raise PrismaError(f"expected a site with tokens, of which some are chosen; found {site}")
            if tokens is not None and (not tokens or not all(0 <= i < n for i in tokens)):
                raise PrismaError(f"expected tokens of {site}, from 0 to {n - 1}; found {list(tokens)}")
        ordered = {site: found[site] for site in sorted(found, key=known.index)}
        return cls(ordered, None if tokens is None else tuple(dict.fromkeys(tokens)))

    @property
    def sites(self) -> tuple[str, ...]:
        return tuple(self.coders)

    @property
    def reads(self) -> tuple[str, ...]:
        """All sites that are read: those that are written, and those that transcoders read."""
        return tuple(dict.fromkeys(s for site, c in self.coders.items() for s in (bare(c.site), site)))

    @cached_property
    def places(self) -> Tensor:
        """[node, 2]: the index of each node's site, and its latent; a site's error, -1, is after its latents."""
        rows = [(i, j) for i, coder in enumerate(self.coders.values()) for j in (*range(coder.config.width), ERROR)]
        return torch.tensor(rows)

    def record(self, model: Model, images: Tensor) -> tuple[Tensor, Cache, dict[str, Code]]:
        """(outputs, activations by site, codes by site) of a run, without gradients."""
        with torch.no_grad():
            outputs, acts = record(model, images, self.reads)
            return outputs, acts, {site: self.code(site, acts) for site in self.sites}

    def code(self, site: str, acts: Mapping[str, Tensor]) -> Code:
        """The code and the error at one site, of activations."""
        coder = self.coders[site]
        z = coder.encode(rows_of(acts[bare(coder.site)], coder.site))
        return Code(z, error_of(coder, z, rows_of(acts[site], site)))

    def chosen(self, x: Tensor) -> Tensor:
        """The tokens [image, token, ...] at which coders are spliced in."""
        return x if self.tokens is None else x[:, list(self.tokens)]

    def memory(self, model: Model) -> int:
        """Bytes that one pair of images takes in a pass with gradients: all activations, and three codes a site."""
        config = model.config
        tokens = config.context if isinstance(config, TextConfig) else config.n_tokens
        codes = sum(3 * (c.config.width + c.W_dec.shape[1]) for c in self.coders.values())
        size = next(model.parameters()).element_size()
        return (config.n_layers + 1) * block_memory(model) + tokens * codes * size


@dataclass(frozen=True, kw_only=True, eq=False)
class LatentEffects(PairedEffect):
    """How much each latent and each error changes the metric, `metric(patched) - metric(target)`, for pairs of images.

    A large value means that replacing this node changes the metric by that much, in the direction of its sign.
    """

    AXES: ClassVar = {
        "effect": ("node",),
        "stderr": ("node",),
        "values": ("image", "node"),
        "nodes": ("node", "place"),
        "clean": ("image",),
        "corrupt": ("image",),
    }

    values: Tensor  # [image, node]
    nodes: Tensor  # [node, 2]: index in metadata["sites"], and the latent; -1 for the error

    @property
    def per_image(self) -> Tensor:
        return self.values

    @property
    def names(self) -> Mapping[str, Sequence[str]]:
        return {"node": [f"{site}/{'error' if latent is None else latent}" for site, latent in self.named()]}

    def named(self) -> list[Node]:
        """All nodes: the site, and the latent or None for the error."""
        sites = self.metadata["sites"]
        return [(sites[i], None if latent == ERROR else latent) for i, latent in self.nodes.tolist()]

    def top(self, n: int = 10) -> list[tuple[Node, float]]:
        """The n nodes with the largest effects by size, with the effects, means over pairs."""
        named, effect = self.named(), self.effect
        order = effect.abs().argsort(descending=True, stable=True)[:n].tolist()
        return [(named[i], effect[i].item()) for i in order]

    def of(self, site: str, latent: int | None) -> Tensor:
        """[image]: the effect of one node; a latent, or None for the error.

        Raises:
            PrismaError: it is not among the nodes.
        """
        named = self.named()
        if (site, latent) not in named:
            raise PrismaError(f"expected a node of this result; found {(site, latent)!r}")
        return self.values[:, named.index((site, latent))]


def places_of(nodes: Nodes, wanted: Sequence[Node]) -> Tensor:
    """[node, 2]: the places of named nodes. Raises PrismaError: there are none, or one does not exist."""
    rows = []
    for site, latent in wanted:
        coder = nodes.coders.get(site)
        if coder is None or (latent is not None and not 0 <= latent < coder.config.width):
            raise PrismaError(f"expected latents, or None, of {', '.join(nodes.sites)}; found {(site, latent)!r}")
        rows.append((nodes.sites.index(site), ERROR if latent is None else latent))
    if not rows:
        raise PrismaError("expected at least one node; found none")
    return torch.tensor(rows)
