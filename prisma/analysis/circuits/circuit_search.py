"""Searching for a circuit: which edges to add first, which to remove again, and how faithful a set of edges is.

A circuit is accepted if |1 - faithfulness| <= 1 - enough: one that overshoots reproduces the metric no better than one
that falls short as far.

Shapes: C circuit, S sender, V receiver, B image.
"""

import heapq
from collections.abc import Sequence

import torch
from torch import Tensor

from prisma.analysis.circuits.branches import Messages, concatenated, messages
from prisma.analysis.circuits.circuit_run import run_edges
from prisma.analysis.circuits.graph import Graph
from prisma.analysis.patching.pairs import expect_pairs
from prisma.analysis.statistics import share_of
from prisma.batching import inputs_per_pass, measure_runs
from prisma.errors import PrismaError, warn
from prisma.metrics import Metric
from prisma.vit import ViT

ABLATIONS = ("corrupt", "mean", "zero")
CLEAR = 1.0
"""A total effect of at least this many standard deviations over pairs is clear; a smaller one calls for a warning."""


class Verifier:
    """Exact runs of circuits on `clean`, in which every edge outside the circuit carries what `ablation` says.

    `signal` is the total effect, all edges minus none, in standard deviations over pairs; None for a single pair. Where
    it is below `CLEAR`, shares of the total effect are ratios of small means of both signs, and a warning says so.

    Raises:
        PrismaError: shapes differ, the ablation is unknown, the metric is not one finite number per pair, or it does
            not differ between the runs with all edges and with none.
    """

    def __init__(
        self, model: ViT, clean: Tensor, corrupt: Tensor, metric: Metric, ablation: str, batch: int | None
    ) -> None:
        expect_pairs(clean, corrupt)
        if ablation not in ABLATIONS:
            raise PrismaError(f"expected ablation to be one of {', '.join(ABLATIONS)}; found {ablation!r}")
        self.model, self.images, self.metric, self.ablation, self.batch = model, clean, metric, ablation, batch
        self.other = self._ablated(corrupt)
        edges = Graph(model.config).edges
        self.clean, self.ablated = self.measure(torch.stack([edges, edges & False]))
        share_of(self.clean.mean(), self.clean.mean() - self.ablated.mean())  # raises where the two runs do not differ
        difference = self.clean - self.ablated
        size = difference.mean().abs()
        self.signal = (size / difference.std().clamp(min=1e-9 * size)).item() if len(difference) > 1 else None
        if self.signal is not None and self.signal < CLEAR:
            warn(
                f"expected pairs that agree on the total effect; found a mean of {difference.mean():.2g} with a spread "
                f"of {difference.std():.2g} over pairs: faithfulness is a ratio of such means and says little here; "
                "use a metric that differs between clean and corrupt in the same direction in every pair"
            )

    @torch.no_grad()
    def _ablated(self, corrupt: Tensor) -> Messages:
        parts = [messages(self.model, some)[1] for some in corrupt.split(inputs_per_pass(self.model, self.batch))]
        other = concatenated(parts)
        if self.ablation == "mean":
            return other.map(lambda x: x.mean(0, keepdim=True).expand_as(x))
        return other.map(torch.zeros_like) if self.ablation == "zero" else other

    def measure(self, edges_CSV: Tensor) -> Tensor:
        """The metric of each circuit for each pair [circuit, image]."""
        logits = run_edges(self.model, self.images, edges_CSV, self.other, batch=self.batch)
        return measure_runs(self.metric, logits)

    def share(self, edges_CSV: Tensor) -> Tensor:
        """Faithfulness of each circuit [circuit]: 0 as without edges, 1 as with all of them."""
        base = self.ablated.mean()
        return (self.measure(edges_CSV).mean(1) - base) / (self.clean.mean() - base)


def greedy_order(graph: Graph, scores_SV: Tensor) -> list[tuple[int, int]]:
    """All edges (sender, receiver) that lead to the readout, best first; each leads to a node that is already included.

    Starting at the readout, the next edge is always the one with the largest absolute score into any node that is
    already included (Hanna et al.).
    """
    sizes, exists = scores_SV.abs().tolist(), graph.edges.tolist()
    receivers: dict[int, list[int]] = {}
    for receiver in range(len(graph.receivers) - 1):
        owner = graph.writer(receiver)
        assert owner is not None
        receivers.setdefault(owner, []).append(receiver)
    order, inside = [], {0}
    waiting: list[tuple[float, int, int]] = []

    def open_(receiver: int) -> None:
        for sender, has in enumerate(exists):
            if has[receiver]:
                heapq.heappush(waiting, (-sizes[sender][receiver], sender, receiver))

    open_(len(graph.receivers) - 1)
    while waiting:
        _, sender, receiver = heapq.heappop(waiting)
        order.append((sender, receiver))
        if sender not in inside:
            inside.add(sender)
            for own in receivers[sender]:
                open_(own)
    return order


def first_edges(graph: Graph, order: Sequence[tuple[int, int]], size: int) -> Tensor:
    """The first `size` edges of a ranking, without dead ends."""
    mask = torch.zeros_like(graph.edges)
    for at in order[:size]:
        mask[at] = True
    return graph.on_paths(mask)


def random_circuits(graph: Graph, size: int, draws: int, seed: int) -> Tensor:
    """Circuits [draw, sender, receiver] that know nothing of the model: the greedy choice on random scores.

    Each takes edges of a random ranking from the readout down until `size` edges lie on paths from `embed` to `logits`.
    The last of them may complete a path of several, so that a random circuit is never smaller than `size`.
    """
    generator, found = torch.Generator().manual_seed(seed), [torch.zeros(0, *graph.edges.shape, dtype=torch.bool)]
    for _ in range(draws):
        order = greedy_order(graph, torch.rand(graph.edges.shape, generator=generator, dtype=torch.float64))
        low, high = 0, len(order)  # of the prefixes, whose edges on paths become only more
        while low < high:
            middle = (low + high) // 2
            enough = int(first_edges(graph, order, middle).sum()) >= size
            low, high = (low, middle) if enough else (middle + 1, high)
        found.append(first_edges(graph, order, low)[None])
    return torch.cat(found)


def is_faithful(share: Tensor, enough: float) -> Tensor:
    """Where |1 - faithfulness| <= 1 - enough, to within rounding."""
    return (1 - share).abs() <= 1 - enough + rounding(share)


def rounding(share: Tensor) -> float:
    """The effect on faithfulness of an edge that has none."""
    return 1e-9 if share.dtype == torch.float64 else 1e-5


def pruned(
    verifier: Verifier, graph: Graph, start: Tensor, scores_SV: Tensor, tolerance: float, enough: float
) -> Tensor:
    """The circuit without the edges that it does not need, tried from the smallest score up, one exact run each.

    An edge is removed, and dead ends with it, if faithfulness stays within `tolerance` of its value at the start, and
    within 1 - enough of 1, or as near to 1 as at the start if the start itself is farther away.
    """
    if tolerance < 0 or not start.any():
        return start
    goal, circuit = verifier.share(start[None]), start.clone()
    enough = min(enough, 1 - (1 - goal).abs().item())
    for at in sorted(start.nonzero().tolist(), key=lambda at: abs(scores_SV[at[0], at[1]].item())):
        if not circuit[at[0], at[1]]:
            continue
        smaller = circuit.clone()
        smaller[at[0], at[1]] = False
        smaller = graph.on_paths(smaller)
        share = verifier.share(smaller[None])
        if (share - goal).abs().item() <= max(tolerance, rounding(share)) and is_faithful(share, enough):
            circuit = smaller
    return circuit
