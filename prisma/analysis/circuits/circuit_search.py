"""Searching for a circuit: which edges to add first, which to remove again, and how faithful a set of edges is.

Shapes: C circuit, S sender, V receiver, B image.
"""

import heapq

import torch
from torch import Tensor

from prisma.analysis.circuits.branches import Messages, concatenated, messages
from prisma.analysis.circuits.circuit_run import run_edges
from prisma.analysis.circuits.graph import Graph
from prisma.analysis.patching.pairs import expect_pairs
from prisma.analysis.result import share_of
from prisma.batching import inputs_per_pass
from prisma.errors import PrismaError
from prisma.metrics import Metric, measure
from prisma.vit import ViT

ABLATIONS = ("corrupt", "mean", "zero")


class Verifier:
    """Exact runs of circuits on `clean`, in which every edge outside the circuit carries what `ablation` says.

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
        return torch.stack([measure(self.metric, of_circuit) for of_circuit in logits])

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


def pruned(verifier: Verifier, graph: Graph, start: Tensor, scores_SV: Tensor, tolerance: float) -> Tensor:
    """The circuit without the edges that it does not need, tried from the smallest score up, one exact run each.

    An edge is removed if faithfulness stays within `tolerance` of its value at the start, and dead ends with it.
    """
    if tolerance < 0 or not start.any():
        return start
    goal, circuit = verifier.share(start[None]), start.clone()
    noise = 1e-9 if goal.dtype == torch.float64 else 1e-5  # the effect of an edge that has none, by rounding
    for at in sorted(start.nonzero().tolist(), key=lambda at: abs(scores_SV[at[0], at[1]].item())):
        if not circuit[at[0], at[1]]:
            continue
        smaller = circuit.clone()
        smaller[at[0], at[1]] = False
        smaller = graph.on_paths(smaller)
        if (verifier.share(smaller[None]) - goal).abs().item() <= max(tolerance, noise):
            circuit = smaller
    return circuit
