"""A coder as an edit: its reconstruction, or what changes when single latents are changed, in the middle of a model.

    Splice(coder)                     x + (y' - y): the error of the coder stays, so an untouched coder changes nothing
    Splice(coder, error=False)        y': what the rest of the model makes of the reconstruction alone
    Splice(coder).ablate(5)           latent 5 is zero          .clamp(5, 2.0)    latent 5 is 2
    Splice(coder).scale(5, 3.0)       three times as active     .steer(5, 2.0)    2 more, also where it was not active
    Splice(coder, source=z).patch(5)  latent 5 is as in z, the code of another run

Here y is the reconstruction and y' that of the changed code. A transcoder is spliced in at its target with the input
that it reads: `Splice(coder, reads=acts[coder.site])`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from prisma.edits import Edit
from prisma.errors import PrismaError
from prisma.plain import uncompiled
from prisma.sparse.belonging import expect_of_site, expect_trained_on
from prisma.sparse.coders import CROSSCODER, Coder


@dataclass(frozen=True, eq=False)
class Splice(Edit):
    """The edit that puts a coder into a run: `prisma.run(model, images, edit={coder.site: Splice(coder)})`.

    Attributes:
        coder: a coder of the site that is edited.
        error: keep what the coder does not reconstruct. Then an untouched coder is the identity, and what a change of
            a latent does is that latent's effect alone. Without, the coder's error is part of what is measured.
        changes: (kind of change, latents, number), in order; `ablate`, `clamp`, `scale` and `steer` add one.
        reads: of a transcoder, the activations that it reads, [batch, token, d].
        source: the code of another run, [batch, token, m], from which `patch` takes latents.
        source_error: what another run has there beside its latents, [batch, token, d], in the place of this run's.
        other_model: take a model with other weights than the coder was trained on.

    Raises:
        PrismaError: no coder, a crosscoder, latents that it does not have, or an error that is left out and replaced;
            in a run, a model with other weights, another site, or activations of another width.
    """

    coder: Coder
    error: bool = True
    changes: tuple[tuple[str, tuple[int, ...], float], ...] = ()
    reads: Tensor | None = None
    source: Tensor | None = None
    source_error: Tensor | None = None
    other_model: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.coder, Coder):
            raise PrismaError(f"expected a sparse coder to splice in; found a {type(self.coder).__name__}")
        if len(self.coder.config.sites) > 1:
            raise PrismaError(f"expected a coder of one site; {CROSSCODER}")
        if (self.reads is None) != (self.coder.config.target is None):
            raise PrismaError(
                "expected reads=..., the activations at its own site, for a transcoder and for no other coder"
            )
        if self.source_error is not None and not self.error:
            raise PrismaError("expected error=True with an error of another run; found error=False")

    def ablate(self, latents: int | Sequence[int]) -> "Splice":
        """These latents are zero."""
        return self.clamp(latents, 0.0)

    def clamp(self, latents: int | Sequence[int], value: float) -> "Splice":
        """These latents have this value on every token."""
        return self._with("set", latents, value)

    def scale(self, latents: int | Sequence[int], factor: float) -> "Splice":
        """These latents are `factor` times as active, where they are active."""
        return self._with("scale", latents, factor)

    def steer(self, latents: int | Sequence[int], by: float) -> "Splice":
        """These latents are `by` more active on every token, whether they were active or not."""
        return self._with("add", latents, by)

    def patch(self, latents: int | Sequence[int]) -> "Splice":
        """These latents are as in `source`, on every token.

        Raises:
            PrismaError: there is no source.
        """
        if self.source is None:
            raise PrismaError("expected source=..., the code of another run, to patch latents from; found none")
        return self._with("patch", latents, 0.0)

    def _with(self, change: str, latents: int | Sequence[int], value: float) -> "Splice":
        chosen = torch.as_tensor(latents).flatten()
        m = self.coder.config.width
        if not len(chosen) or chosen.is_floating_point() or int(chosen.min()) < 0 or int(chosen.max()) >= m:
            raise PrismaError(f"expected latents from 0 to {m - 1}; found {latents}")
        if not isinstance(value, int | float) or not abs(value) < float("inf"):
            raise PrismaError(f"expected a finite number; found {value!r}")
        return replace(self, changes=(*self.changes, (change, tuple(chosen.tolist()), float(value))))

    def expect_fits(self, model: Any, site: str) -> None:
        expect_trained_on(self.coder, model, self.other_model)
        expect_of_site(self.coder, uncompiled(model), site)

    def __call__(self, x: Tensor, axes: tuple[str, ...]) -> Tensor:
        if self.error and not self.changes and self.source_error is None:
            return x
        rows = expect_written(self.coder, x.flatten(2) if x.ndim > 2 else x)
        reads = rows if self.reads is None else self.reads.to(x.device).reshape(*rows.shape[:-1], -1)
        z = self.coder.encode(reads)
        changed = self.changed(z)
        if not self.error:
            return (self.coder.decode(changed) + self.coder.skipped(reads)).to(x.dtype).view_as(x)
        delta = (changed - z) @ self.coder.W_dec
        if self.source_error is not None:
            own = error_of(self.coder, z, rows)
            delta = delta + _fitting("source_error", self.source_error, own) - own
        return (rows + delta.to(x.dtype)).view_as(x)

    def changed(self, z: Tensor) -> Tensor:
        """A code [..., m] with the changes, in order."""
        for change, latents, value in self.changes:
            places = torch.tensor(latents, device=z.device)
            old = z[..., places]
            if change == "patch":
                assert self.source is not None
                new = _fitting("source", self.source, z)[..., places]
            elif change == "set":
                new = torch.full_like(old, value)
            else:
                new = old * value if change == "scale" else old + value
            z = z.index_copy(-1, places, new)
        return z

    def __repr__(self) -> str:
        made = "".join(f".{change}({list(latents)}, {value:g})" for change, latents, value in self.changes)
        return f"Splice({self.coder!r}, error={self.error}){made}"


def error_of(coder: Coder, z: Tensor, rows: Tensor) -> Tensor:
    """[..., d]: what activations [..., d] are beside what a code [..., m] writes: of a transcoder, its skip too."""
    return expect_written(coder, rows).to(coder.W_dec.dtype) - coder.decode(z)


def expect_written(coder: Coder, rows: Tensor) -> Tensor:
    """Activations [..., d] that a coder writes. Raises PrismaError: they have another width."""
    if rows.shape[-1] != (width := coder.W_dec.shape[1]):
        raise PrismaError(
            f"expected activations of width {width}, which this coder of {coder.site or 'an unnamed site'} writes; "
            f"found {rows.shape[-1]}: another site or model?"
        )
    return rows


def _fitting(name: str, value: Tensor, like: Tensor) -> Tensor:
    """What a splice takes from another run, of the shape that it has in this one."""
    if value.ndim == like.ndim + 1 and value.shape[1] == 1:  # a site without tokens
        value = value[:, 0]
    if value.shape != like.shape:
        raise PrismaError(f"expected {name} of the shape {list(like.shape)}; found {list(value.shape)}")
    return value.to(like)
