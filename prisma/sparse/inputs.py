"""What a coder reads of a model, and what it is compared with: its sites among those of a source, and its tokens."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from prisma.data.pictures import Pictures
from prisma.errors import PrismaError
from prisma.fields import conform
from prisma.runs import Model
from prisma.sparse.activations import Run, bare, source_of
from prisma.sparse.coders import Coder, expect_coder


def source_for(
    coder: Coder,
    model: Model | Mapping[str, Model],
    images: Tensor | Pictures,
    tokens: str | Sequence[str] | None = None,
    batch: int | None = None,
) -> Run:
    """The activations that a coder reads and writes.

    Args:
        tokens: which tokens; None: those with which the coder was trained, else all.

    Raises:
        PrismaError: no coder, or one that does not state its site; else as `source_of`.
    """
    config = expect_coder(coder).config
    if "" in config.sites:
        raise PrismaError("expected a coder that states its site; found one that does not: say where it reads")
    sites = [*config.sites, *([config.target] if config.target else [])]
    return source_of(model, images, sites, tokens_of(coder, tokens), batch)


def tokens_of(coder: Coder, tokens: str | Sequence[str] | None = None) -> str | tuple[str, ...]:
    """The tokens that are asked for, or those with which a coder was trained. Raises PrismaError: no names of some."""
    chosen = coder.told.get("tokens", "all") if tokens is None else tokens
    found: str | tuple[str, ...] = conform("tokens", chosen, str | tuple[str, ...])
    return found


def read_by(coder: Coder, acts: Mapping[str, Tensor]) -> Tensor:
    """[..., d], the input of a coder, of activations by site.

    Raises:
        PrismaError: they have none or several of one of its sites, such as those of two models.
    """
    return torch.cat([_of_site(site, acts) for site in coder.config.sites], -1)


def written_by(coder: Coder, acts: Mapping[str, Tensor]) -> Tensor:
    """[..., d_out], what a coder is to reconstruct: its input, or of a transcoder its target. Errors as `read_by`."""
    return _of_site(coder.config.target, acts) if coder.config.target else read_by(coder, acts)


def _of_site(site: str, acts: Mapping[str, Tensor]) -> Tensor:
    found = [site] if site in acts else [name for name in acts if bare(name) == site]
    if len(found) != 1:
        there = ", ".join(found or acts)
        raise PrismaError(f"expected activations of the site {site} of this coder, of one model; found {there}")
    return acts[found[0]]
