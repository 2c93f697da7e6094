"""Sparse coders: an activation written as few directions out of many.

    p = (x - b_dec) W_enc + b_enc        pre-activations: how much of each direction the input seems to have
    z = act(p)                           the code: a few latents are active, all others are zero
    y = z W_dec + b_dec                  the reconstruction; the rows of W_dec are the directions

The kinds differ in `act` alone:

| kind | act(p) | source |
|---|---|---|
| standard | relu(p), trained with an L1 penalty | Bricken et al. 2023; Cunningham et al. 2309.08600 |
| topk | the k largest of each token, then relu | Gao et al. 2406.04093 |
| abstopk | the k largest of each token by absolute value, with their signs | sae-lens |
| groupmax | the largest of each of k groups of latents, then relu | sparsify |
| batchtopk | relu(p) above one threshold; in training, k per token on average | Bussmann et al. 2412.06410 |
| matryoshka | batchtopk, trained so that the first latents alone reconstruct too | Bussmann et al. 2503.17547 |
| jumprelu | relu(p) above a threshold of each latent, which is trained | Rajamanoharan et al. 2407.14435 |
| gated | a gate says which latents are active, a magnitude how much | Rajamanoharan et al. 2404.16014 |

A coder whose output is another site is a transcoder (Dunefsky et al. 2406.11944): y is compared with that site, its
input is not centred, and with `skip` a linear map of the input is added to y (Paulo et al. 2501.18823). One of several
sites is a crosscoder (Lindsey et al. 2024): its input and its output are the sites' activations side by side.

Shapes: N any leading axes, D width of the input, O width of the output (D but for transcoders), M latents.
"""

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from prisma.bounds import LONGEST_LABEL, expect_memory
from prisma.errors import PrismaError, is_text, quoted
from prisma.fields import check_types, expect_choices
from prisma.sites import canonical
from prisma.sparse.kernels import Entries, keep_largest, largest_of_groups, top_threshold

KINDS = ("standard", "topk", "abstopk", "groupmax", "batchtopk", "matryoshka", "jumprelu", "gated")
BATCHED = ("batchtopk", "matryoshka")
"""Kinds that share k active latents per token among the tokens of a batch in training."""
COUNTED = ("topk", "abstopk", "groupmax", *BATCHED)
"""Kinds that need k."""
LARGEST = 100_000_000  # latents
CROSSCODER = (
    "found a crosscoder, whose code is computed from several sites at once: what it writes at the first would change "
    "what it reads at the others, so a latent is no part of one run"
)
"""Why a crosscoder is refused where a latent is changed in a run, or is a node of one."""


@dataclass(frozen=True)
class CoderConfig:
    """What a coder is, without its weights."""

    kind: str
    d: int  # width of the input
    width: int  # number of latents
    k: int | None = None  # active latents of a token
    sites: tuple[str, ...] = ("",)  # whose activations it reads, side by side: several are a crosscoder
    widths: tuple[int, ...] = ()  # how wide each of several sites is
    target: str | None = None  # the site that a transcoder writes
    d_out: int | None = None  # width of a transcoder's output
    skip: bool = False  # whether a linear map of the input is added to a transcoder's output
    centred: bool = True  # whether b_dec is subtracted from the input; never in a transcoder
    prefixes: tuple[int, ...] = ()  # matryoshka: numbers of latents that reconstruct alone, the last is all

    def __post_init__(self) -> None:
        check_types(self)
        expect_choices(self, {"kind": KINDS})
        for name in ("d", "width", "d_out", "k"):
            if (size := getattr(self, name)) is not None and not 1 <= size <= LARGEST:
                raise PrismaError(f"expected {name} to be from 1 to {LARGEST:,}; found {size}")
        if self.kind in COUNTED and self.k is None:
            raise PrismaError(
                f"expected k, the number of active latents per token, for a {self.kind} coder; found none"
            )
        if self.k is not None and self.k > self.width:
            raise PrismaError(f"expected k to be at most the number of latents, {self.width:,}; found {self.k:,}")
        if self.kind == "groupmax" and self.width % (self.k or 1):
            raise PrismaError(f"expected groups of one size, {self.width:,} latents in k of them; found k={self.k}")
        if self.target is None and (self.skip or self.d_out not in (None, self.d)):
            raise PrismaError("expected a target site for a coder with a skip or an output of its own; found none")
        if self.target is not None and self.centred:
            raise PrismaError("expected a transcoder, whose b_dec is of another site, not to be centred by it")
        self._expect_sites()
        growing = all(a < b for a, b in zip((0, *self.prefixes), self.prefixes, strict=False))
        if self.prefixes and (self.kind != "matryoshka" or not growing or self.prefixes[-1] != self.width):
            raise PrismaError(
                f"expected prefixes that grow to the width {self.width:,}, of a matryoshka coder alone; found "
                f"{self.prefixes} of a {self.kind} coder"
            )

    def _expect_sites(self) -> None:
        names = (*self.sites, *(() if self.target is None else (self.target,)))
        if wrong := [name for name in names if len(name) > LONGEST_LABEL or not is_text(name)]:
            raise PrismaError(f"expected names of sites; found {quoted(wrong[0])}")
        if len(set(self.sites)) < len(self.sites) or not self.sites or self.target == "":
            raise PrismaError(f"expected one site or several different ones; found {quoted(names)}")
        one = (self.d,) if len(self.sites) == 1 and not self.widths else self.widths
        if len(one) != len(self.sites) or sum(one) != self.d or min(one) < 1:
            raise PrismaError(
                f"expected the widths of {len(self.sites)} sites, which add to {self.d}; found {quoted(self.widths)}"
            )


class Coder(nn.Module):
    """A sparse coder: `coder.decode(coder.encode(x))` is close to x, and few numbers of `coder.encode(x)` are not zero.

    Attributes:
        config: what it is; `kind`, `site` and `k` are there too.
        metadata: what is known of its training: the model, the tokens, the numbers it claims. JSON values.
        W_enc: [d, m], what each latent looks for.
        W_dec: [m, d], the direction that each latent writes, of length 1 in coders that Prisma trained.
        b_enc, b_dec: [m] and [d]. A gated coder has b_gate, b_mag and r_mag [m] instead of b_enc.
        threshold: [m], of kinds that have one. W_skip: [d_out, d], of a transcoder with `skip`.
    """

    b_enc: Tensor
    b_gate: Tensor
    b_mag: Tensor
    r_mag: Tensor
    threshold: Tensor
    W_skip: Tensor

    def __init__(self, config: CoderConfig, metadata: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.config, self.metadata = config, dict(metadata or {})
        d, m, out = config.d, config.width, config.d_out or config.d
        self.W_enc, self.W_dec = nn.Parameter(torch.zeros(d, m)), nn.Parameter(torch.zeros(m, out))
        self.b_dec = nn.Parameter(torch.zeros(out))
        for name in ("b_gate", "b_mag", "r_mag") if config.kind == "gated" else ("b_enc",):
            self.register_parameter(name, nn.Parameter(torch.zeros(m)))
        if config.kind == "jumprelu":
            self.threshold = nn.Parameter(torch.zeros(m))
        elif config.kind in BATCHED:
            self.register_buffer("threshold", torch.zeros(m))
        if config.skip:
            self.W_skip = nn.Parameter(torch.zeros(out, d))

    @property
    def kind(self) -> str:
        """One of `KINDS`."""
        return self.config.kind

    @property
    def site(self) -> str:
        """The site that it reads; of a crosscoder, its sites joined by " + "."""
        return " + ".join(self.config.sites)

    @property
    def told(self) -> Mapping[str, Any]:
        """What its metadata says of its training; empty if nothing."""
        known = self.metadata.get("training")
        return known if isinstance(known, Mapping) else {}

    @property
    def bias(self) -> Tensor:
        """[m]: what is added to the pre-activations."""
        return self.b_gate if self.kind == "gated" else self.b_enc

    def centred(self, x: Tensor) -> Tensor:
        """The input [N, d] as the encoder sees it, in the precision of the weights."""
        x = x.to(self.W_enc.dtype)
        return x - self.b_dec if self.config.centred else x

    def pre(self, x: Tensor) -> Tensor:
        """Pre-activations [N, m] of inputs [N, d]."""
        return self.centred(x) @ self.W_enc + self.bias

    def encode(self, x: Tensor, *, as_trained: bool = False) -> Tensor:
        """The code [N, m] of inputs [N, d]: how active each latent is; nearly all are zero.

        Args:
            as_trained: batchtopk and matryoshka give the tokens of this call k latents each on average, as in training,
                instead of comparing with their threshold. The code of a token then depends on the others.

        Raises:
            PrismaError: inputs of another width.
        """
        if not isinstance(x, Tensor):
            raise PrismaError(f"expected activations as a tensor; found a {type(x).__name__}")
        if x.shape[-1] != self.config.d:
            raise PrismaError(
                f"expected activations of width {self.config.d} for this coder of {self.site or 'an unnamed site'}; "
                f"found {x.shape[-1]}: another site or model?"
            )
        p = self.pre(x)
        k = self.config.k or 0
        match self.kind:
            case "standard":
                return p.relu()
            case "topk":
                return keep_largest(p, k, p).relu()
            case "abstopk":
                return keep_largest(p, k, p.abs())
            case "groupmax":
                return largest_of_groups(p, k).relu()
            case "gated":
                on = p > 0
                return on * (self.centred(x) @ (self.W_enc * self.r_mag.exp()) + self.b_mag).relu()
        threshold = top_threshold(p, k) if as_trained and self.kind in BATCHED else self.threshold
        return p.relu() * (p > threshold)

    def decode(self, z: Tensor) -> Tensor:
        """The reconstruction [N, d] of codes [N, m], without the skip of a transcoder.

        On a CPU, where no gradient is wanted, only the latents that are active are multiplied.
        """
        if z.shape[-1] != self.config.width:
            raise PrismaError(f"expected a code of {self.config.width:,} latents; found one of {z.shape[-1]:,}")
        z = z.to(self.W_dec.dtype)
        if z.device.type == "cpu" and z.ndim > 1 and not torch.is_grad_enabled():
            return Entries.of(z.flatten(0, -2)).times(self.W_dec).unflatten(0, z.shape[:-1]) + self.b_dec
        return z @ self.W_dec + self.b_dec

    def skipped(self, x: Tensor) -> Tensor | float:
        """What a transcoder with `skip` adds to its output; else 0."""
        return x.to(self.W_enc.dtype) @ self.W_skip.T if self.config.skip else 0.0

    def forward(self, x: Tensor) -> Tensor:
        """The reconstruction [N, d] of inputs [N, d]; of a transcoder, the output [N, d_out]."""
        return self.decode(self.encode(x)) + self.skipped(x)

    def by_site(self, tensor: Tensor) -> tuple[Tensor, ...]:
        """The part of each site of a crosscoder, of a tensor whose last axis is its input: W_dec, b_dec, inputs."""
        return tensor.split(self.config.widths, -1) if len(self.config.sites) > 1 else (tensor,)

    def __repr__(self) -> str:
        k = f", k={self.config.k}" if self.config.k else ""
        onto = f" -> {self.config.target}" if self.config.target else ""
        return (
            f"Coder({self.kind}, {self.config.d} -> {self.config.width:,} latents{k}, {self.site or 'no site'}{onto})"
        )


def at_site(coder: Coder, site: str) -> Coder:
    """The same coder, over the same tensors, of a site by the name that it has here; other libraries have others."""
    new = copy(coder)
    new.config = replace(coder.config, sites=(canonical(site),))
    return new


def expect_coder(coder: object) -> Coder:
    """The coder. Raises PrismaError: it is none."""
    if not isinstance(coder, Coder):
        raise PrismaError(f"expected a sparse coder; found a {type(coder).__name__}")
    return coder


def expect_whole(coder: Coder) -> Coder:
    """The coder, if all its weights are finite. Raises PrismaError: which are not."""
    wrong = [name for name, x in coder.state_dict().items() if not x.isfinite().all()]
    if wrong:
        raise PrismaError(f"expected finite weights of a coder; found NaN or infinities in {', '.join(wrong)}")
    return coder


@torch.no_grad()
def drawn(config: CoderConfig, seed: int = 0) -> Coder:
    """A coder before training: random directions of length 1, and an encoder that looks for each of them.

    Encoder and decoder are tensors of their own, so that training one does not change the other. A transcoder's encoder
    looks for other directions, and so weakly that its output is small at first.
    """
    expect_memory(16 * config.width * (config.d + (config.d_out or config.d)), "the weights of this coder in training")
    coder = Coder(config)
    generator = torch.Generator().manual_seed(seed)
    out, m = config.d_out or config.d, config.width
    coder.W_dec.copy_(unit(torch.randn(m, out, generator=generator)))
    if config.target is None:
        coder.W_enc.copy_(coder.W_dec.T)
    else:
        coder.W_enc.copy_(0.1 * unit(torch.randn(m, config.d, generator=generator)).T)
    return coder


def unit(rows: Tensor) -> Tensor:
    """The rows of a matrix at length 1; a row of zeros stays."""
    return rows / _lengths(rows)


@torch.no_grad()
def unit_(rows: Tensor) -> Tensor:
    """The same in place, without a gradient."""
    return rows.div_(_lengths(rows))


def _lengths(rows: Tensor) -> Tensor:
    return rows.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(rows.dtype).tiny)
