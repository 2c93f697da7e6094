"""Sparse feature circuits: the fewest latents that reproduce the metric, found by attribution, verified by exact runs.

A circuit is a set of nodes, latents and errors. In its run, the nodes outside carry what they carry on other images,
and those inside are computed anew from what they see. `faithfulness` and `completeness` are those of circuits of edges
(`prisma.analysis.circuits.circuit_figures`), with "no nodes" as the run in which all are replaced.

A circuit that is faithful only with its errors says that the coders do not have what the metric needs: compare with
`errors=False`, in which no error is in a circuit.

Source: Marks et al. 2403.19647.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from prisma.analysis.border import guarded
from prisma.analysis.circuits.circuit_figures import CircuitFigures
from prisma.analysis.circuits.circuit_search import ABLATIONS, is_faithful
from prisma.analysis.patching.pairs import expect_pairs
from prisma.analysis.statistics import share_of
from prisma.batching import inputs_per_pass, measure_rows
from prisma.edits import Edit
from prisma.errors import PrismaError
from prisma.metrics import Metric
from prisma.runs import Model, record, run
from prisma.sparse.activations import bare, rows_of
from prisma.sparse.latent_attribution import latent_attribution
from prisma.sparse.latent_nodes import ERROR, Code, Coders, Node, Nodes
from prisma.sparse.latent_patching import replacing


@dataclass(frozen=True, kw_only=True, eq=False)
class LatentCircuit(CircuitFigures):
    """A circuit of latents and errors, the scores by which it was chosen, and how good it is in exact runs."""

    AXES: ClassVar = {
        "scores": ("node",),
        "inside": ("node",),
        "nodes": ("node", "place"),
        **CircuitFigures.AXES,
        "sizes": ("size",),
        "faithfulness_curve": ("size",),
    }

    inside: Tensor  # bool [node]
    scores: Tensor  # [node]: the attribution of every node, mean over pairs
    nodes: Tensor  # [node, 2]: index in metadata["sites"], and the latent; -1 for the error
    sizes: Tensor  # numbers of best-ranked nodes at which the curve was measured
    faithfulness_curve: Tensor  # [size]

    def named(self) -> list[Node]:
        """The circuit's nodes, best first: the site, and the latent or None for the error."""
        sites, order = self.metadata["sites"], self.scores.abs().argsort(descending=True, stable=True)
        rows = self.nodes[order[self.inside[order]]].tolist()
        return [(sites[i], None if latent == ERROR else latent) for i, latent in rows]


@guarded
def latent_circuit(
    model: Model,
    coders: Coders,
    clean: Tensor,
    corrupt: Tensor,
    metric: Metric,
    *,
    n: int | None = None,
    enough: float = 0.95,
    errors: bool = True,
    ablation: str = "corrupt",
    steps: int = 5,
    tokens: Sequence[int] | None = None,
    draws: int = 10,
    seed: int = 0,
    batch: int | None = None,
    other_model: bool = False,
) -> LatentCircuit:
    """Which few latents are enough for the metric?

    `faithfulness` near 1 means that these nodes alone reproduce the metric, `completeness` near 1 that nothing outside
    contributes. Nodes are ranked by the size of their attribution.

    Args:
        coders: as in `latent_attribution`. A transcoder's latents are computed anew from what it reads in the circuit.
        n: the n best nodes; None: the fewest on the curve with |1 - faithfulness| <= 1 - enough, or all.
        errors: whether the errors may be in the circuit; else they are always those of the ablation.
        ablation: what the nodes outside carry: `"corrupt"` for their values on `corrupt`, `"mean"` for the mean of
            these over images, or `"zero"`.
        steps: of the attribution.
        draws, seed: number and seed of random circuits of the same size, of nodes that have a score.
        Others: as in `latent_attribution`.

    Raises:
        PrismaError: an option is wrong, the metric does not differ between the runs with all nodes and with none, or as
            in `latent_attribution`.
    """
    _expect_options(ablation, enough, draws)
    expect_pairs(clean, corrupt)
    nodes = Nodes.of(model, coders, tokens, other_model)
    scores = latent_attribution(
        model, coders, clean, corrupt, metric, tokens=tokens, steps=steps, batch=batch, other_model=other_model
    ).effect
    usable = scores.cpu() != 0
    if not errors:
        usable &= nodes.places[:, 1] != ERROR
    order = [i for i in scores.abs().argsort(descending=True, stable=True).tolist() if usable[i]]
    if n is not None and not 1 <= n <= len(order):
        raise PrismaError(f"expected n from 1 to {len(order)}, the nodes with a score; found {n}")
    runs = _Runs(model, nodes, clean, corrupt, metric, ablation, batch)
    settings = {"ablation": ablation, "errors": errors, "enough": enough, "steps": steps, "draws": draws, "seed": seed}
    return LatentCircuit(
        metadata={
            "analysis": "latent_circuit", **settings, "pairs": len(clean), "tokens": nodes.tokens, "sites": nodes.sites
        },
        scores=scores,
        nodes=nodes.places,
        **_searched(runs, order, n, enough, draws, seed),
    )  # fmt: skip


def _expect_options(ablation: str, enough: float, draws: int) -> None:
    if ablation not in ABLATIONS:
        raise PrismaError(f"expected ablation to be one of {', '.join(ABLATIONS)}; found {ablation!r}")
    if not 0 <= enough <= 1 or draws < 0:
        raise PrismaError(f"expected enough from 0 to 1 and draws of at least 0; found {enough=} and {draws=}")


def _searched(
    runs: "_Runs", order: Sequence[int], n: int | None, enough: float, draws: int, seed: int
) -> dict[str, Any]:
    """The circuit among the first nodes of a ranking, and the metric of its runs: fields of the result."""
    sizes, total = _sizes(len(order), n), len(runs.nodes.places)
    everything, circuits = torch.ones(total, dtype=torch.bool), [_mask(order[:size], total) for size in sizes]
    full, none, *found = runs.measure([everything, ~everything, *circuits])
    curve = torch.stack([share_of(x.mean() - none.mean(), full.mean() - none.mean()) for x in found])
    good = [i for i, share in enumerate(curve) if is_faithful(share, enough)]
    at = sizes.index(n) if n is not None else good[0] if good else len(sizes) - 1
    generator = torch.Generator().manual_seed(seed)
    drawn = [torch.randperm(len(order), generator=generator)[: sizes[at]].tolist() for _ in range(draws)]
    at_random = [_mask([order[i] for i in some], total) for some in drawn]
    complement, *randoms = runs.measure([~circuits[at], *at_random])
    return {
        "inside": circuits[at], "values": found[at], "complement": complement, "clean": full, "ablated": none,
        "random_values": torch.stack(randoms) if randoms else None, "sizes": torch.tensor(sizes),
        "faithfulness_curve": curve,
    }  # fmt: skip


@dataclass(frozen=True)
class _Runs:
    """Exact runs of circuits on `clean`."""

    model: Model
    nodes: Nodes
    clean: Tensor
    corrupt: Tensor
    metric: Metric
    ablation: str
    batch: int | None

    @torch.no_grad()
    def measure(self, circuits: Sequence[Tensor]) -> list[Tensor]:
        """The metric [image] of each circuit, a mask [node] of what is inside."""
        size = inputs_per_pass(self.model, self.batch, memory=self.nodes.memory(self.model))
        total, found = len(self.clean), [list[Tensor]() for _ in circuits]
        mean = self._mean(size) if self.ablation == "mean" else None
        for rows in (slice(i, i + size) for i in range(0, total, size)):
            some = self.clean[rows]
            other = mean or self.nodes.record(self.model, self.corrupt[rows])[2]
            if self.ablation == "zero":
                other = {site: Code(torch.zeros_like(x.z), torch.zeros_like(x.error)) for site, x in other.items()}
            for values, inside in zip(found, circuits, strict=True):
                logits = run(self.model, some, self._edits(~inside, other, some))
                values.append(measure_rows(self.metric, logits, rows, total))
        return [torch.cat(values) for values in found]

    def _edits(self, outside: Tensor, other: dict[str, Code], images: Tensor) -> dict[str, Edit]:
        """The edits of a circuit's run. What a transcoder reads is that of the run with the edits before it."""
        edits: dict[str, Edit] = {}
        for i, (site, coder) in enumerate(self.nodes.coders.items()):
            latents = self.nodes.places[outside & (self.nodes.places[:, 0] == i), 1].tolist()
            if latents:
                error, source = latents[-1] == ERROR, other[site]
                like = Code(*(x.expand(len(images), *x.shape[1:]) for x in (source.z, source.error)))
                reads = None
                if coder.config.target:
                    at = bare(coder.site)
                    reads = rows_of(record(self.model, images, at, edits, stop=True)[1][at], at)
                edits[site] = replacing(
                    coder, source, like, latents[:-1] if error else latents, error, self.nodes.tokens, reads
                )
        return edits

    def _mean(self, size: int) -> dict[str, Code]:
        """The mean over images of the codes and errors of `corrupt`, of one image."""
        sums: dict[str, list[Tensor]] = {}
        for some in self.corrupt.split(size):
            for site, code in self.nodes.record(self.model, some)[2].items():
                parts = [x.double().sum(0, keepdim=True) for x in (code.z, code.error)]
                sums[site] = [a + b for a, b in zip(sums[site], parts, strict=True)] if site in sums else parts
        dtype = {site: coder.W_dec.dtype for site, coder in self.nodes.coders.items()}
        return {site: Code(*((x / len(self.corrupt)).to(dtype[site]) for x in parts)) for site, parts in sums.items()}


def _mask(places: Sequence[int], n: int) -> Tensor:
    found = torch.zeros(n, dtype=torch.bool)
    found[list(places)] = True
    return found


def _sizes(most: int, n: int | None) -> list[int]:
    """Numbers of nodes at which the curve is measured: 1, 2, 3, 4, 6, 8, 12, ..., and all."""
    growing = {m * 2**i for i in range(most.bit_length()) for m in (2, 3)}
    return sorted({size for size in {1, *growing} if size < most} | {most} | ({n} if n is not None else set()))
