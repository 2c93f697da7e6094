"""Circuit discovery: the fewest edges that still reproduce the metric, found by attribution, verified by exact runs.

A circuit is a set of edges. In its run, those edges carry this run's values and every other edge carries what it
carries on other images:

    faithfulness(C) = (m(C) - m(no edges)) / (m(all edges) - m(no edges))    1: it reproduces the whole metric
    completeness(C) = 1 - faithfulness(all edges but C)                      1: nothing outside contributes
    removal(e)      = faithfulness(C) - faithfulness(C without e)            0: the edge is not needed

where m is the mean of the metric over pairs. Edges are ranked by EAP-IG; the best are chosen greedily from the readout
down, so that each leads somewhere, and edges on no path from `embed` to `logits` are removed. The start is the fewest
edges whose faithfulness is within 1 - enough of 1: overshoot is no better than falling short. Then edges whose removal
changes nothing are pruned, the lowest ranked first, each by an exact run.

Sources: Hanna et al. 2403.17806 (EAP-IG, greedy choice, faithfulness); Wang et al. 2211.00593 (completeness and
minimality; here of the whole complement and of single edges); Conmy et al. 2304.14997 (ACDC: pruning edge by edge).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from prisma.analysis.border import guarded
from prisma.analysis.circuits.circuit_figures import PROPORTIONS, CircuitFigures
from prisma.analysis.circuits.circuit_search import (
    Verifier,
    first_edges,
    greedy_order,
    is_faithful,
    pruned,
    random_circuits,
)
from prisma.analysis.circuits.edge_attribution import edge_attribution
from prisma.analysis.circuits.graph import Edge, Graph, names, picture_labels
from prisma.errors import PrismaError
from prisma.metrics import Metric
from prisma.view.figures.circuit import draw_circuit
from prisma.vit import ViT

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True, eq=False)
class CircuitDiscovery(CircuitFigures):
    """A circuit, the scores by which it was chosen, and how good it is in exact runs.

    A number over pairs is as good as its pairs: `interval("faithfulness")` is its bootstrap interval, `per_pair` what
    each pair contributes, `random_faithfulness` what circuits of the same size reach that know nothing of the model.
    """

    AXES: ClassVar = {
        "edges": ("sender", "receiver"),
        "scores": ("sender", "receiver"),
        "removal": ("sender", "receiver"),
        **CircuitFigures.AXES,
        "sizes": ("size",),
        "faithfulness_curve": ("size",),
        "completeness_curve": ("size",),
    }

    edges: Tensor  # bool: which edges are in the circuit
    scores: Tensor  # attribution of every edge: estimated change of the metric when the edge is replaced
    removal: Tensor  # faithfulness lost without an edge of the circuit, by an exact run each; 0 for other edges
    sizes: Tensor | None = None  # numbers of best-ranked edges at which the two curves are measured
    faithfulness_curve: Tensor | None = None
    completeness_curve: Tensor | None = None

    @property
    def names(self) -> Mapping[str, Sequence[str]]:
        return picture_labels(self.metadata)

    def named(self) -> list[Edge]:
        """The circuit's edges by name, in the order of their senders."""
        senders, receivers = self.metadata["senders"], self.metadata["receivers"]
        return [(senders[s], receivers[v]) for s, v in self.edges.nonzero().tolist()]

    def nodes(self) -> list[str]:
        """The circuit's nodes in the order of the forward, heads as one: `["embed", "a0.h1", "logits"]`."""
        used = {end for s, v in self.named() for end in (s, _whole(v))}
        return [name for name in (*self.metadata["senders"], "logits") if name in used]

    def to_dict(self) -> dict[str, Any]:
        """As for every result, and also `nodes` and `edges` by name."""
        edges = [
            {
                "sender": sender,
                "receiver": receiver,
                "score": self.scores[s, v].item(),
                "removal": self.removal[s, v].item(),
            }
            for (sender, receiver), (s, v) in zip(self.named(), self.edges.nonzero().tolist(), strict=True)
        ]
        return {**super().to_dict(), "nodes": self.nodes(), "edges": edges}

    def plot(self, array: str | None = None) -> "Figure":
        """The circuit as a graph, layers from bottom to top; or a picture of one array."""
        if array is not None:
            return super().plot(array)
        kept = [self.scores[s, v].item() for s, v in self.edges.nonzero().tolist()]
        return draw_circuit(self.metadata["senders"], list(zip(self.named(), kept, strict=True)))


@guarded
def circuit_discovery(
    model: ViT,
    clean: Tensor,
    corrupt: Tensor,
    metric: Metric,
    *,
    n: int | None = None,
    threshold: float | None = None,
    enough: float = 0.95,
    tolerance: float = 0.01,
    sizes: Sequence[int] | None = None,
    steps: int = 5,
    ablation: str = "corrupt",
    draws: int = 10,
    seed: int = 0,
    batch: int | None = None,
) -> CircuitDiscovery:
    """Which few edges are enough for the metric? Finds a circuit by attribution and verifies it by exact runs.

    `faithfulness` near 1 means that the circuit alone reproduces the metric, `completeness` near 1 that nothing outside
    it contributes. Verify on other pairs with `check_circuit` before you believe it.

    Args:
        clean, corrupt: pairs of images [image, channel, (frame,) height, width], of the same shape.
        metric: logits [batch, class] -> one finite number per pair [batch], which has a gradient and depends on that
            pair's logits alone. n: start from the n best edges.
        threshold: start from the edges whose absolute score is at least this large, in units of the metric.
        enough: with neither, start from the fewest edges on the curve with |1 - faithfulness| <= 1 - enough; from all
            edges, whose faithfulness is 1, if there are none. Pruning stays in this range too.
        tolerance: prune edges as long as faithfulness stays within this of its value at the start; 0 prunes only edges
            without any effect, a negative number none at all.
        sizes: numbers of edges at which the curves are measured; by default 1, 2, 3, 4, 6, 8, 12, ... and all.
        steps: steps of EAP-IG; 1 for EAP. ablation: what the edges outside the circuit carry: `"corrupt"` for their
            values on `corrupt`, `"mean"` for their mean, or `"zero"`. The scores are always those for `"corrupt"`.
        draws, seed: number and seed of random circuits of the same size: the greedy choice on random scores.
        batch: images per pass at most, all circuits together; by default as many as fit in 256 MiB.

    Raises:
        PrismaError: shapes differ, an option is wrong, or the metric is not one finite number per pair, has no gradient
            or a gradient of zero, or does not differ between the runs with all edges and with none.
    """
    if n is not None and threshold is not None:
        raise PrismaError(f"expected n or threshold, not both; found n={n} and {threshold=}")
    _expect_options(enough, draws)
    graph = Graph(model.config)
    verifier = Verifier(model, clean, corrupt, metric, ablation, batch)
    scores = edge_attribution(model, clean, corrupt, metric, steps=steps, batch=batch).effect
    order = greedy_order(graph, scores)
    curves = _curves(verifier, graph, order, at := _sizes(sizes, len(order)))
    if threshold is not None:
        start = graph.on_paths(graph.edges & (scores.abs().cpu() >= threshold))
    else:
        good = [
            size for size, share in zip(at, curves["faithfulness_curve"], strict=True) if is_faithful(share, enough)
        ]
        size = n if n is not None else good[0] if good else len(order)
        start = first_edges(graph, order, *_sizes([size], len(order)))
    found = pruned(verifier, graph, start, scores, tolerance, enough)
    options = {"enough": enough, "draws": draws, "seed": seed, "steps": steps, "tolerance": tolerance}
    return _verified(verifier, graph, found, scores, {**options, "start": int(start.sum())}, **curves)


@guarded
def check_circuit(
    model: ViT,
    clean: Tensor,
    corrupt: Tensor,
    metric: Metric,
    edges: Iterable[Edge],
    *,
    enough: float = 0.95,
    steps: int = 5,
    ablation: str = "corrupt",
    draws: int = 10,
    seed: int = 0,
    batch: int | None = None,
) -> CircuitDiscovery:
    """How faithful and complete is a circuit of given edges, such as `[("embed", "a0.h1.v"), ("a0.h1", "logits")]`?

    Others: as in `circuit_discovery`. Raises PrismaError as there, and if an edge does not exist.
    """
    _expect_options(enough, draws)
    graph = Graph(model.config)
    mask = graph.mask(edges)
    verifier = Verifier(model, clean, corrupt, metric, ablation, batch)
    scores = edge_attribution(model, clean, corrupt, metric, steps=steps, batch=batch).effect
    options = {"enough": enough, "draws": draws, "seed": seed, "steps": steps}
    return _verified(verifier, graph, mask, scores, options)


def _expect_options(enough: float, draws: int) -> None:
    if not 0 <= enough <= 1 or draws < 0:
        raise PrismaError(f"expected enough from 0 to 1 and draws of at least 0; found {enough=} and {draws=}")


def _curves(
    verifier: Verifier, graph: Graph, order: Sequence[tuple[int, int]], sizes: Sequence[int]
) -> dict[str, Tensor]:
    """Faithfulness and completeness at these sizes, and the metric of each pair at MIB's."""
    circuits = torch.stack([first_edges(graph, order, size) for size in sizes])
    at_shares = torch.stack([first_edges(graph, order, int(p * len(order))) for p in PROPORTIONS])
    return {
        "sizes": torch.tensor(sizes),
        "faithfulness_curve": verifier.share(circuits),
        "completeness_curve": 1 - verifier.share(graph.edges & ~circuits),
        "curve_values": verifier.measure(at_shares),
    }


def _verified(
    verifier: Verifier, graph: Graph, edges: Tensor, scores: Tensor, options: dict[str, Any], **curves: Tensor
) -> CircuitDiscovery:
    values, complement = verifier.measure(torch.stack([edges, graph.edges & ~edges]))
    removal = torch.zeros_like(scores)
    if edges.any():
        without = edges.repeat(int(edges.sum()), 1, 1)
        without[torch.arange(len(without)), *edges.nonzero().unbind(1)] = False
        lost = verifier.share(edges[None]) - verifier.share(without)
        removal[edges.to(removal.device)] = lost.to(removal)
    at_random = random_circuits(graph, int(edges.sum()), options["draws"], options["seed"])
    measured = {"pairs": len(values), "edges": int(edges.sum()), "total_to_spread": verifier.signal}
    return CircuitDiscovery(
        metadata={
            "analysis": "circuit_discovery",
            "ablation": verifier.ablation,
            **options,
            **measured,
            "senders": names(graph.senders),
            "receivers": names(graph.receivers),
        },
        edges=edges,
        scores=scores,
        removal=removal,
        values=values,
        complement=complement,
        clean=verifier.clean,
        ablated=verifier.ablated,
        random_values=verifier.measure(at_random) if len(at_random) else None,
        **curves,
    )


def _whole(receiver: str) -> str:
    """`a1.h2.q` -> `a1.h2`."""
    return ".".join(receiver.split(".")[:2])


def _sizes(sizes: Sequence[int] | None, edges: int) -> list[int]:
    if sizes is None:
        doubling = [m * 2**i for i in range(edges.bit_length()) for m in (2, 3)]
        return [size for size in sorted({1, *doubling}) if size < edges] + [edges]
    if wrong := [size for size in sizes or [0] if size not in range(1, edges + 1)]:
        raise PrismaError(f"expected 1 to {edges} edges for a circuit of this model; found {wrong[0]}")
    return list(sizes)
