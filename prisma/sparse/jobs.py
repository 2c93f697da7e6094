"""One coder of a training with its activations: what it is to become, its steps, its files and its numbers."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prisma.bounds import expect_within
from prisma.errors import PrismaError, quoted
from prisma.fields import check_types
from prisma.files import write_atomic
from prisma.sites import canonical
from prisma.sparse.activations import Source, Stream, bare
from prisma.sparse.coders import COUNTED, KINDS, Coder, CoderConfig
from prisma.sparse.files import write_coder
from prisma.sparse.learner import Learner, Plan, default_lr
from prisma.sparse.metrics import Sums
from prisma.sparse.scaling import Scaling

METRICS, CHECKPOINTS = "metrics.jsonl", "checkpoints"
CALIBRATED = 16_384  # tokens for which the threshold of batchtopk is chosen then
MEASURED = 65_536  # tokens on which a coder is measured at the end of its training


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A coder that is to be trained.

    Attributes:
        site: where its input is, such as `blocks.9.resid_post`. Several are a crosscoder; with several models, a site
            is read in each of them, or in one: `blocks.3.resid_post@step-000128`.
        kind: one of `prisma.sparse.coders.KINDS`.
        width: the number of latents.
        k: active latents of a token. Kinds with a sparsity term are steered towards it.
        target: the site that a transcoder predicts. skip: with a linear map of the input beside the code.
        prefixes: of matryoshka, the numbers of latents that reconstruct alone; by default an eighth, a half, all.
        lr: the learning rate; by default one that falls with the root of the width.
        sparsity: a fixed coefficient of the sparsity term, instead of steering towards k.
        seed: of the first weights.
        frozen: "decoder" or "encoder", which then stays as it was drawn: baselines for every coder.
        begin: "data": the directions begin at random tokens, in place of random directions; not of a transcoder.
    """

    site: str | tuple[str, ...]
    width: int
    kind: str = "topk"
    k: int | None = None
    target: str | None = None
    skip: bool = False
    prefixes: tuple[int, ...] = ()
    lr: float | None = None
    sparsity: float | None = None
    seed: int = 0
    frozen: str | None = None
    begin: str | None = None

    def __post_init__(self) -> None:
        check_types(self)
        expect_within("seed", self.seed)
        if self.sparsity is not None and not 0 <= self.sparsity < float("inf"):
            raise PrismaError(f"expected sparsity to be a number of 0 or more; found {self.sparsity}")

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites of its input."""
        return (self.site,) if isinstance(self.site, str) else tuple(self.site)


def plan_of(wanted: Wanted, source: Source, dead_after: int) -> Plan:
    """What one coder becomes, with the sites as the source calls them."""
    sites = tuple(found for site in wanted.sites for found in _named(site, source))
    (target,) = _named(wanted.target, source)[:1] if wanted.target else (None,)
    widths = tuple(source.widths[site] for site in sites)
    if wanted.kind in set(KINDS) - set(COUNTED) and wanted.k is None and wanted.sparsity is None:
        raise PrismaError(f"expected k or sparsity for a {wanted.kind} coder; found neither")
    if wanted.frozen not in (None, "decoder", "encoder"):
        raise PrismaError(f"expected frozen to be decoder, encoder or None; found {quoted(wanted.frozen)}")
    if wanted.begin not in (None, "data") or (wanted.begin and target):
        raise PrismaError(f"expected begin to be data or None, and None of a transcoder; found {quoted(wanted.begin)}")
    prefixes = wanted.prefixes
    if wanted.kind == "matryoshka" and not prefixes:
        prefixes = tuple(dict.fromkeys(n for n in (wanted.width // 8, wanted.width // 2, wanted.width) if n))
    config = CoderConfig(
        wanted.kind, sum(widths), wanted.width, wanted.k, sites, widths, target,
        source.widths[target] if target else None, wanted.skip, target is None, prefixes,
    )  # fmt: skip
    lr = wanted.lr if wanted.lr is not None else default_lr(wanted.width)
    if not 0 < lr < 1000:
        raise PrismaError(f"expected a learning rate above 0 and below 1,000; found lr={lr}")
    return Plan(config, wanted.seed, lr, wanted.sparsity, dead_after, wanted.frozen, wanted.begin)


def _named(pattern: str, source: Source) -> list[str]:
    """The sites of a source that a name or glob means, with the name of a model or in all models."""
    name = canonical(pattern)
    return [site for site in source.widths if fnmatchcase(site, name) or fnmatchcase(bare(site), name)]


class Job:
    """A learner with its activations: which are its input and its output, and how they are scaled."""

    def __init__(self, learner: Learner, scalings: Mapping[str, Scaling]) -> None:
        self.learner, self.config = learner, learner.plan.config
        self.x = Scaling.side_by_side([scalings[site] for site in self.config.sites])
        self.y = scalings[self.config.target] if self.config.target else self.x
        self.lines: list[str] = []
        self.last: dict[str, Tensor] = {}
        self.scaled = torch.zeros(0)  # the input of the last step

    def begin(self, stream: Stream) -> None:
        """What comes before the first step."""
        if self.learner.plan.begin == "data":
            self.learner.begin_at(self.x(self.values(stream.sample(MEASURED))[0]))

    def values(self, acts: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """(input, output) of the coder, of activations by site."""
        x = torch.cat([acts[site] for site in self.config.sites], -1)
        return x, acts[self.config.target] if self.config.target else x

    def step(self, acts: Mapping[str, Tensor]) -> None:
        x, y = self.values(acts)
        self.scaled = scaled = self.x(x)
        found = self.learner.step(scaled, self.y(y) if self.config.target else scaled)
        self.last = {"error": found.error, "l0": found.l0}

    def coder(self, facts: Mapping[str, Any]) -> Coder:
        coder = self.learner.finished(self.x, self.y)
        plan = self.learner.plan
        own = {"lr": plan.lr, "seed": plan.seed, "gamma": self.x.gamma, "frozen": plan.frozen}
        own |= {"begin": plan.begin} if plan.begin else {}
        dead = self.learner.dead.double().mean().item()
        coder.metadata["training"] = {**facts, **own, "step": self.learner.taken, "dead": dead}
        return coder.requires_grad_(False)

    def calibrated(self, facts: Mapping[str, Any], scaled: Tensor) -> Coder:
        """The coder of raw activations, whose threshold gives these centred and scaled tokens k latents on average."""
        self.learner.calibrate(scaled)
        return self.coder(facts)

    def keep(self, folder: Path, facts: Mapping[str, Any]) -> None:
        """Write a checkpoint, and the numbers so far."""
        numbers = {"step": self.learner.taken} | {name: float(value) for name, value in self.last.items()}
        dead = self.learner.dead.double().mean().item()
        self.lines.append(json.dumps({**numbers, "dead": dead, "sparsity": self.learner.sparsity.item()}))
        write_atomic(folder / METRICS, "".join(f"{line}\n" for line in self.lines).encode())
        write_coder(folder / CHECKPOINTS / f"step-{self.learner.taken:06d}", self.calibrated(facts, self.scaled))

    def end(
        self, seen: Mapping[str, Tensor], held: Mapping[str, Tensor], facts: Mapping[str, Any], folder: Path | None
    ) -> Coder:
        """The trained coder, with the numbers that it reached; written, if there is a folder."""
        x, y = self.values(seen)
        coder = self.calibrated(facts, self.x(x[:CALIBRATED]))
        record = coder.metadata["training"]
        record |= _measured(coder, x, y, "")
        if held and _differ((others := self.values({site: x.flatten(0, 1) for site, x in held.items()}))[1]):
            record |= _measured(coder, *others, "_held_out")
        if folder is not None:
            write_coder(folder, coder)
        return coder


def _differ(tokens: Tensor) -> bool:
    """Whether tokens [N, d] have a spread, with which an error can be compared; a single one has none."""
    return bool((tokens != tokens[:1]).any())


@torch.no_grad()
def _measured(coder: Coder, x: Tensor, y: Tensor, ending: str) -> dict[str, float]:
    """fvu and l0 of tokens [N, d], under names with this ending."""
    sums = Sums(y.shape[-1], coder.config.width, device=y.device)
    for some, wanted in zip(x.split(4096), y.split(4096), strict=True):
        z = coder.encode(some)
        sums.add(wanted[None], (coder.decode(z) + coder.skipped(some))[None], z[None])
    row = sums.row()
    return {f"{name}{ending}": row[name] for name in ("fvu", "l0")}
