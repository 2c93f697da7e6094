"""Activations for coders: read from a model that stops at the last site asked for, their tokens in a random order.

What is read is a pure function of the seed and the step, so a stopped training continues with the same tokens. Images
are drawn in order of permutations; the tokens of many images together (a fill) are shuffled and served in batches.
Tokens of one image are much alike, so a fill has as many images as the memory for it allows, or all.

Images that are held out are whole images: other tokens of an image that was trained on would be no test.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from prisma.analysis.attention.token_grid import TokenGrid
from prisma.batching import inputs_per_pass
from prisma.bounds import expect_within
from prisma.config import TextConfig
from prisma.data.pictures import Pictures
from prisma.errors import NotFiniteError, PrismaError, quoted
from prisma.fields import conform
from prisma.inventory import site_names
from prisma.numbers import first_not_finite
from prisma.plain import uncompiled
from prisma.runs import Model, expect_inputs, expect_model, record
from prisma.sites import axes_of, matching
from prisma.train.order import batch_indices

ROLES = ("class", "registers", "patches")
FILL_BYTES = 512 * 2**20
"""The memory for the tokens of one fill."""
_SPLIT, _TOKENS = 11, 12  # separate streams of random numbers from one seed
AT = "@"
"""Between a site and the name of a model, where several models are read: `blocks.3.resid_post@step-000128`."""


class Source(Protocol):
    """Where activations come from: a model that runs on images, or files."""

    @property
    def widths(self) -> Mapping[str, int]:
        """Site -> how many numbers a token has there."""
        ...

    @property
    def roles(self) -> tuple[str, ...]:
        """What each of the tokens of an image is, in their order: class, registers or patches."""
        ...

    def __len__(self) -> int:
        """The number of images."""
        ...

    def read(self, images: Sequence[int]) -> dict[str, Tensor]:
        """Site -> [image, token, width]. Raises NotFiniteError: which site of which image holds NaN or an infinity."""
        ...


@dataclass(frozen=True)
class Run:
    """Activations of one or several models, which run on images when they are asked for.

    Args:
        models: name -> model; a single one has the name "".
        images: [n, channel, height, width], normalised; or pictures.
        sites: full names; with several models followed by `@` and the name of the model.
        tokens: which tokens: "all", or some of class, registers and patches.
        batch: how many images run together; it changes no number but by rounding.
    """

    models: Mapping[str, Model]
    images: Tensor | Pictures
    sites: tuple[str, ...]
    tokens: str | tuple[str, ...] = "all"
    batch: int | None = None

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def _mask(self) -> Tensor:
        """[token], bool: which tokens are read."""
        site, model = _of(self.sites[0], self.models)
        roles = roles_of(model, site)
        wanted = ROLES if self.tokens == "all" else (self.tokens,) if isinstance(self.tokens, str) else self.tokens
        if unknown := [name for name in wanted if name not in ROLES]:
            raise PrismaError(f"expected tokens among all, {', '.join(ROLES)}; found {quoted(unknown[0])}")
        chosen = torch.tensor([role in wanted or self.tokens == "all" for role in roles])
        if not chosen.any():
            there = ", ".join(dict.fromkeys(roles))
            raise PrismaError(f"expected tokens that {site} has, {there}; found tokens={self.tokens!r}")
        return chosen

    @cached_property
    def roles(self) -> tuple[str, ...]:
        site, model = _of(self.sites[0], self.models)
        return tuple(role for role, on in zip(roles_of(model, site), self._mask.tolist(), strict=True) if on)

    @cached_property
    def widths(self) -> Mapping[str, int]:
        return {site: x.shape[-1] for site, x in self.read([0]).items()}

    @torch.no_grad()
    def read(self, images: Sequence[int]) -> dict[str, Tensor]:
        parts = []
        size = min(inputs_per_pass(model, self.batch) for model in self.models.values())
        for some in (images[i : i + size] for i in range(0, len(images), size)):
            parts.append(self._pass(some))
        return {site: torch.cat([part[site] for part in parts]) for site in self.sites}

    def _pass(self, some: Sequence[int]) -> dict[str, Tensor]:
        found = {}
        chosen = torch.as_tensor(np.asarray(some))
        inputs = self.images[chosen] if isinstance(self.images, Tensor) else self.images.read(chosen.tolist())
        for model in self.models.values():
            device = next(model.parameters()).device
            wanted = [site for site in self.sites if _of(site, self.models)[1] is model]
            _, acts = record(uncompiled(model), inputs.to(device), [bare(site) for site in wanted], stop=True)
            for site in wanted:
                x = rows_of(acts[bare(site)], bare(site))[:, self._mask.to(device)]
                if (wrong := first_not_finite(x)) is not None:
                    raise NotFiniteError(
                        f"expected finite activations at {site}; found {wrong[1]} in image {some[wrong[0]]}"
                    )
                found[site] = x
        return found


def source_of(
    model: Model | Mapping[str, Model],
    images: Tensor | Pictures,
    sites: Sequence[str],
    tokens: str | Sequence[str] = "all",
    batch: int | None = None,
) -> Run:
    """A `Run`, of arguments that are checked.

    Raises:
        PrismaError: no model, images that are none, or a site that the model lacks or that has no axis of features.
    """
    models = model if isinstance(model, Mapping) else {"": model}
    if not models or any(AT in name for name in models):
        raise PrismaError(f"expected models by names without {AT}; found {quoted(list(models))}")
    for one in models.values():
        expect_model(one)
        if isinstance(images, Tensor):
            expect_inputs(one, images)
    if not sites:
        raise PrismaError("expected the name of a site; found none")
    if not isinstance(images, Tensor | Pictures):
        raise PrismaError(f"expected images as a tensor, or pictures; found a {type(images).__name__}")
    if not len(images):
        raise PrismaError("expected at least one image; found none")
    full = dict.fromkeys(f"{name}{AT}{of}" if of else name for site in sites for name, of in _resolved(site, models))
    counts = {roles_of(_of(site, models)[1], bare(site)) for site in full}
    if len(counts) > 1:
        raise PrismaError(f"expected sites with the same tokens; found other ones among {', '.join(full)}")
    return Run(models, images, tuple(full), tokens if isinstance(tokens, str) else tuple(tokens), batch)


def _resolved(site: str, models: Mapping[str, Model]) -> list[tuple[str, str]]:
    """(full name of the site, name of the model), for one of the models or for all of them."""
    if not isinstance(site, str):
        raise PrismaError(f"expected the name of a site; found {quoted(site)}")
    bare_name, _, of = site.partition(AT)
    if of and of not in models:
        raise PrismaError(f"expected a site of the models {', '.join(models)}; found {quoted(site)}")
    return [
        (name, key) for key in ([of] if of else models) for name in matching(bare_name, site_names(models[key].config))
    ]


def bare(site: str) -> str:
    """The site without the name of its model."""
    return site.partition(AT)[0]


def _of(site: str, models: Mapping[str, Model]) -> tuple[str, Model]:
    name, _, of = site.partition(AT)
    return name, models[of]


def roles_of(model: Model, site: str) -> tuple[str, ...]:
    """What each token of a site is: class, registers or patches; a site without tokens has one, "pooled".

    Raises:
        PrismaError: the numbers of this site are weights between tokens, not features of a token.
    """
    axes = axes_of(bare(site))
    if "key" in axes:
        raise PrismaError(f"expected a site with features of tokens; found {site}, whose axes are {', '.join(axes)}")
    if axes[1] not in ("token", "patch"):
        return ("pooled",)
    if isinstance(model.config, TextConfig):
        return ("patches",) * model.config.context
    grid = TokenGrid.of(model.config, "time" if axes[1] == "patch" else "attn")
    masks = {role: grid.role(role) for role in ROLES}
    return tuple(next(role for role, mask in masks.items() if mask[i]) for i in range(grid.n_tokens))


def token_places(model: Model, site: str, tokens: str | Sequence[str]) -> list[int]:
    """The indices of the tokens of a site that have one of some roles, or of "all"."""
    wanted = (tokens,) if isinstance(tokens, str) else tokens
    return [i for i, role in enumerate(roles_of(model, site)) if role in wanted or "all" in wanted]


def rows_of(x: Tensor, site: str) -> Tensor:
    """The value of a site as [image, token, width]: heads side by side, one token where a site has none."""
    return x.unsqueeze(1) if axes_of(site)[1] not in ("token", "patch", "query") and x.ndim == 2 else x.flatten(2)


def split_images(n: int, held_out: float, seed: int = 0) -> tuple[list[int], list[int]]:
    """(images to train on, images that are held out), a random part of whole images.

    Raises:
        PrismaError: the part is no share, or one of the two would have no image.
    """
    expect_within("order_seed", seed := conform("the seed of the order", seed, int), "the seed of the order")
    if not 0 <= (held_out := conform("held_out", held_out, float)) < 1:
        raise PrismaError(f"expected held_out to be a share from 0 to below 1; found {held_out}")
    order = np.random.RandomState((seed, _SPLIT)).permutation(n).tolist()
    kept = round(n * held_out)
    if held_out and not 0 < kept < n:
        raise PrismaError(
            f"expected enough images to hold out {held_out:.0%} of them and train on the others; found {n}: give more "
            "images, or held_out=0"
        )
    return sorted(order[kept:]), sorted(order[:kept])


class Stream:
    """Batches of tokens, in a random order that depends on the seed and the step alone.

    Args:
        source: where activations come from.
        images: those that are used, by index.
        batch: tokens of a batch.
        memory: bytes that the tokens of one fill may take.
    """

    def __init__(
        self, source: Source, images: Sequence[int], batch: int, seed: int, *, memory: int = FILL_BYTES
    ) -> None:
        if batch < 1:
            raise PrismaError(f"expected batch, the number of tokens of a step, to be at least 1; found {batch}")
        self.source, self.images, self.seed = source, list(images), seed
        per_image = len(source.roles) * sum(source.widths.values()) * 4
        self.per_fill = min(len(self.images), max(memory // per_image, 1))
        self.tokens = self.per_fill * len(source.roles)
        self.batch = min(batch, self.tokens)
        self._fill: tuple[int, dict[str, Tensor]] | None = None
        self._ordered: tuple[int, Tensor] | None = None

    def fill(self, number: int) -> dict[str, Tensor]:
        """Site -> [token, width] of all tokens of a fill, in the order in which they were read, in float32 at least."""
        number = 0 if self.per_fill == len(self.images) else number
        if self._fill is None or self._fill[0] != number:
            self._fill = None  # before the next one is in memory
            places = batch_indices(len(self.images), self.per_fill, self.seed, number).tolist()
            found = self.source.read(sorted(self.images[place] for place in places))
            self._fill = number, {site: _exact(x.flatten(0, 1)) for site, x in found.items()}
        return self._fill[1]

    def sample(self, n: int) -> dict[str, Tensor]:
        """Site -> [n, width]: random tokens of the first fill, or all of them."""
        rows = torch.from_numpy(_permutation(self.tokens, self.seed, 0)[:n])
        return {site: x[rows.to(x.device)] for site, x in self.fill(0).items()}

    def at(self, step: int) -> dict[str, Tensor]:
        """Site -> [batch, width]: the tokens of a step."""
        number, place = divmod(step, self.tokens // self.batch)
        fill = self.fill(number)
        rows = self._order(number, next(iter(fill.values())).device)[place * self.batch : (place + 1) * self.batch]
        return {site: x[rows] for site, x in fill.items()}

    def _order(self, number: int, device: torch.device) -> Tensor:
        """[token]: the order of a fill, where its tokens are, so that no step waits for a copy of its part."""
        if self._ordered is None or self._ordered[0] != number:
            self._ordered = number, torch.from_numpy(_permutation(self.tokens, self.seed, number)).to(device)
        return self._ordered[1]


@lru_cache(maxsize=1)
def _permutation(n: int, seed: int, number: int) -> np.ndarray:
    """The order of the tokens of a fill."""
    return np.random.RandomState((seed, _TOKENS, number)).permutation(n).astype(np.int64)


def _exact(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
