"""The name and axes of every intermediate of a model (its sites), and the tap that reads or edits them.

A model calls `x = tap("resid_mid", x)` once, where it computes the value. The caller of the model chooses the tap:
`no_tap` does nothing, a `Tap` applies edits and remembers what was asked for. Nothing is ever stored on a model.

Names are TransformerLens's without `hook_`; `canonical` accepts the prefix at the public border.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any, Protocol

import torch
from torch import Tensor

from prisma.errors import PrismaError, nearest

RESIDUAL = ("batch", "token", "d_model")
HEADS = ("batch", "token", "head", "d_head")
ATTENTION = ("batch", "head", "query", "key")
NEURONS = ("batch", "token", "d_mlp")
FEATURES = ("d_model", "d_head", "d_mlp", "d_pooled", "class")
"""Axes of numbers that together describe one thing: a direction has this axis alone."""


def _attention(queries: str, keys: str) -> dict[str, tuple[str, ...]]:
    """The sites of an attention, with the name of what its queries and its keys are."""
    of_queries, of_keys = ("batch", queries, "head", "d_head"), ("batch", keys, "head", "d_head")
    inputs = {"q": of_queries, "k": of_keys, "v": of_keys}
    return {**inputs, "scores": ATTENTION, "pattern": ATTENTION, "z": of_queries}


SITES: Mapping[str, tuple[str, ...]] = {
    "embed": RESIDUAL,  # patch embeddings and prefix tokens, before positions
    "pos_embed": RESIDUAL,  # positions; zero for prefix tokens, which carry their own
    "ln_pre": RESIDUAL,
    "blocks.{l}.resid_pre": RESIDUAL,
    "blocks.{l}.ln_time.normalized": ("batch", "patch", "d_model"),  # divided attention only, for patches alone
    **{f"blocks.{{l}}.time.{site}": axes for site, axes in _attention("patch", "patch").items()},
    "blocks.{l}.time.result": ("batch", "patch", "head", "d_model"),
    "blocks.{l}.time_out": RESIDUAL,  # for all tokens; zero for the class token
    "blocks.{l}.resid_time": RESIDUAL,  # after attention over time
    "blocks.{l}.ln1.normalized": RESIDUAL,  # the norm's output, weight and bias applied
    **{f"blocks.{{l}}.attn.{site}": axes for site, axes in _attention("token", "token").items()},
    "blocks.{l}.attn.ln.normalized": HEADS,  # z after a norm over all heads (norm_z)
    "blocks.{l}.attn.result": ("batch", "token", "head", "d_model"),  # z through each head's share of W_O, no bias
    "blocks.{l}.attn_out": RESIDUAL,
    "blocks.{l}.resid_mid": RESIDUAL,
    "blocks.{l}.ln2.normalized": RESIDUAL,
    "blocks.{l}.mlp.pre": NEURONS,
    "blocks.{l}.mlp.pre_linear": NEURONS,  # the linear branch of a gated MLP
    "blocks.{l}.mlp.post": NEURONS,
    "blocks.{l}.mlp.ln.normalized": NEURONS,  # post after a norm (norm_post)
    "blocks.{l}.mlp_out": RESIDUAL,
    "blocks.{l}.resid_post": RESIDUAL,
    "ln_final": RESIDUAL,
    **{f"pool.{site}": axes for site, axes in _attention("query", "key").items()},  # attention pooling: one query, and
    # keys that are the patches, or all tokens with `pool_prefix`
    **{f"pool.mlp.{site}": ("batch", "query", "d_mlp") for site in ("pre", "pre_linear", "post", "ln.normalized")},
    "pooled": ("batch", "d_pooled"),
    "logits": ("batch", "class"),
}
"""Site -> names of its axes. q and k are what the dot product sees: after QK-norm and rotation.

Index 0 of `token` is the class token, where the model has one; an axis of other things has another name.
"""


def canonical(site: str) -> str:
    """`blocks.0.attn.hook_q` -> `blocks.0.attn.q`: TransformerLens's spelling, accepted at the public border."""
    return re.sub(r"^(ln_pre|ln_final)\.normalized$", r"\1", re.sub(r"(^|\.)hook_", r"\1", site))


def axes_of(site: str) -> tuple[str, ...]:
    """Names of the axes of a full site name such as `blocks.3.attn.q`."""
    parts = site.split(".", 2)  # not by a regular expression, into which torch.compile would look
    return SITES[f"blocks.{{l}}.{parts[2]}" if parts[0] == "blocks" and parts[1].isdecimal() else site]


def matching(pattern: str, sites: Iterable[str]) -> list[str]:
    """The sites that a name or glob pattern selects, in the order given.

    Raises:
        PrismaError: nothing matches; the nearest names are offered.
    """
    known = list(sites)
    wanted = canonical(pattern)
    found = [site for site in known if fnmatchcase(site, wanted)]
    if not found:
        raise PrismaError(f"no site of this model matches {pattern!r}; the nearest are {nearest(wanted, known)}")
    return found


class Cache(Mapping[str, Tensor]):
    """Site -> live tensor, in the order in which the model computed them. `map` detaches or moves them."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = dict(tensors)

    def __getitem__(self, site: str) -> Tensor:
        try:
            return self._tensors[canonical(site)]
        except KeyError:
            raise KeyError(f"{site!r} was not read; the nearest that were: {nearest(site, self._tensors)}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def stack(self, site: str) -> Tensor:
        """The same site of every layer that was read, e.g. `stack("attn.z")` -> [layer, batch, token, head, d_head]."""
        return torch.stack([self[name] for name in matching(f"blocks.*.{canonical(site)}", self)])

    def map(self, f: Callable[[Tensor], Tensor]) -> "Cache":
        """A new cache with `f` applied to every tensor: `acts.map(lambda x: x.detach().cpu())`."""
        return Cache({site: f(x) for site, x in self.items()})

    def __repr__(self) -> str:
        return "Cache(" + ", ".join(f"{site}{list(x.shape)}" for site, x in self.items()) + ")"


class AnyTap(Protocol):
    """What a model calls: a tap."""

    def __call__(self, site: str, x: Tensor) -> Tensor: ...
    def wants(self, site: str) -> bool: ...
    def within(self, scope: str) -> "AnyTap": ...


class _NoTap:
    """Reads nothing, edits nothing."""

    def __call__(self, site: str, x: Tensor) -> Tensor:
        return x

    def wants(self, site: str) -> bool:
        return False

    def within(self, scope: str) -> "_NoTap":
        return self


no_tap = _NoTap()


class Tap:
    """What one call reads and edits.

    Args:
        read: full site names to remember.
        edit: full site name -> edits, applied in order. An edit is called with the value and its axis names.
            What is remembered is the value after the edits.
    """

    def __init__(
        self,
        read: Iterable[str] = (),
        edit: Mapping[str, tuple[Any, ...]] = MappingProxyType({}),
        *,
        scope: str = "",
        tensors: dict[str, Tensor] | None = None,
        reached: dict[str, None] | None = None,
    ) -> None:
        self.read = frozenset(read)
        self.edit = edit
        self.scope = scope
        self.tensors: dict[str, Tensor] = {} if tensors is None else tensors
        self.reached: dict[str, None] = {} if reached is None else reached  # the sites that were edited

    def __call__(self, site: str, x: Tensor) -> Tensor:
        name = self.scope + site
        if name in self.edit:
            self.reached[name] = None
            try:
                for edit in self.edit[name]:
                    x = edit(x, axes_of(name))
            except PrismaError as error:
                raise PrismaError(f"the edit of {name}: {error}") from None
        if name in self.read:
            self.tensors[name] = x
        return x

    def wants(self, site: str) -> bool:
        """Whether to compute a value that costs extra (scores, pattern, result)."""
        name = self.scope + site
        return name in self.read or name in self.edit

    def within(self, scope: str) -> "Tap":
        """The same tap one level deeper: `tap.within("attn")("q", x)` is `tap("attn.q", x)`."""
        return Tap(self.read, self.edit, scope=f"{self.scope}{scope}.", tensors=self.tensors, reached=self.reached)

    def expect_reached(self, edited: bool = True) -> None:
        """Raise PrismaError if a site was not reached: a part of the model that would compute it was replaced."""
        missed = [site for site in self.read if site not in self.tensors]
        missed += [site for site in self.edit if edited and site not in self.reached]
        if missed:
            raise PrismaError(
                f"expected the model to compute {', '.join(sorted(missed))}; found that it does not, because the part "
                "that would was replaced by another"
            )
