"""Circuits: the fewest edges that still do what the model does, found by attribution and verified by exact runs.

A circuit is a set of edges. Its run keeps those and lets every other edge carry what it carries on other images:

    faithfulness(C) = (m(C) - m(nothing)) / (m(all edges) - m(nothing))      1: it does all that the model does
    completeness(C) = 1 - faithfulness(all edges but C)                      1: nothing outside does any of it
    removal(e)      = faithfulness(C) - faithfulness(C without e)            0: the edge is not needed

where m is the mean of the metric over pairs. Edges are ranked by EAP-IG; the n best are chosen greedily from the
readout down, so that each leads somewhere, and edges on no path from `embed` to `logits` are cut. Then edges whose
removal changes nothing are pruned, the least ranked first, each by an exact run.

Sources: Hanna et al. 2403.17806 (EAP-IG, greedy choice, faithfulness); Wang et al. 2211.00593 (completeness and
minimality; here of the whole complement and of single edges); Conmy et al. 2304.14997 (ACDC: pruning edge by edge).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from prisma.analysis.circuits.circuit_search import Verifier, greedy_order, pruned
from prisma.analysis.circuits.edge_attribution import edge_attribution
from prisma.analysis.circuits.graph import Edge, Graph, ends, names
from prisma.analysis.result import Result, share_of
from prisma.errors import PrismaError
from prisma.metrics import Metric
from prisma.view.figures.circuit import draw_circuit
from prisma.vit import ViT

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True, eq=False)
class CircuitDiscovery(Result):
    """A circuit, the scores it was chosen by, and what exact runs say of it."""

    AXES: ClassVar = {
        "edges": ("sender", "receiver"),
        "scores": ("sender", "receiver"),
        "removal": ("sender", "receiver"),
        "values": ("image",),
        "complement": ("image",),
        "clean": ("image",),
        "ablated": ("image",),
        "sizes": ("size",),
        "faithfulness_curve": ("size",),
        "completeness_curve": ("size",),
    }

    edges: Tensor  # bool: which are in the circuit
    scores: Tensor  # of all edges, by attribution: estimated change of the metric when the edge is replaced
    removal: Tensor  # of the circuit's edges, by an exact run each; 0 elsewhere
    values: Tensor  # the metric of the circuit's run
    complement: Tensor  # of the run of all edges but the circuit's
    clean: Tensor  # of the run of all edges
    ablated: Tensor  # of the run of no edges
    sizes: Tensor | None = None  # so many edges of the ranking
    faithfulness_curve: Tensor | None = None
    completeness_curve: Tensor | None = None

    @property
    def names(self) -> Mapping[str, Sequence[str]]:
        return ends(self.metadata)

    @property
    def faithfulness(self) -> float:
        """Of the circuit. Raises PrismaError if the runs of all and of no edges do not differ."""
        return self._share(self.values)

    @property
    def completeness(self) -> float:
        """Of the circuit. Raises PrismaError if the runs of all and of no edges do not differ."""
        return 1 - self._share(self.complement)

    def _share(self, values: Tensor) -> float:
        base = self.ablated.mean()
        return share_of(values.mean() - base, self.clean.mean() - base).item()

    def named(self) -> list[Edge]:
        """The circuit's edges by name, in the order of their senders."""
        senders, receivers = self.metadata["senders"], self.metadata["receivers"]
        return [(senders[s], receivers[v]) for s, v in self.edges.nonzero().tolist()]

    def nodes(self) -> list[str]:
        """The circuit's nodes in the order of the forward, heads as one: `["embed", "a0.h1", "logits"]`."""
        used = {end for s, v in self.named() for end in (s, _whole(v))}
        return [name for name in (*self.metadata["senders"], "logits") if name in used]

    def to_dict(self) -> dict[str, Any]:
        """As of every result; and `nodes` and `edges` by name."""
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
    batch: int | None = None,
) -> CircuitDiscovery:
    """Find the circuit of a behaviour, and verify it.

    Args:
        clean, corrupt: pairs of images [image, channel, (frame,) height, width], of the same shape.
        metric: logits [batch, class] -> one finite number per pair [batch], with a gradient, each of its image alone.
        n: start from the n best edges.
        threshold: start from the edges whose score is at least that large, up or down, in units of the metric.
        enough: with neither, start from the fewest edges on the curve that are at least so faithful.
        tolerance: prune edges as long as faithfulness stays so close to that of the start; 0 prunes nothing but edges
            without any effect, a negative number nothing at all.
        sizes: numbers of edges of the curves; by default 1, 2, 3, 4, 6, 8, 12, ... and all.
        steps: of EAP-IG; 1 for EAP.
        ablation: what the edges that are left out carry: what they carry on `corrupt`, the `"mean"` of that over
            images, or `"zero"`. Scores are of the first.
        batch: at most so many images, of all circuits together, in one pass; by default as many as fit in 256 MiB.

    Raises:
        PrismaError: shapes differ, an option is none, the metric is not one finite number per pair or has no gradient,
            or the runs of all and of no edges do not differ in it.
    """
    if n is not None and threshold is not None:
        raise PrismaError(f"a circuit starts from the n best edges or from a threshold; found n={n} and {threshold=}")
    graph = Graph(model.config)
    verifier = Verifier(model, clean, corrupt, metric, ablation, batch)
    scores = edge_attribution(model, clean, corrupt, metric, steps=steps, batch=batch).effect
    order = greedy_order(graph, scores)
    at = _sizes(sizes, len(order))
    circuits = torch.stack([_first(graph, order, size) for size in at])
    faithful = verifier.share(circuits)
    complete = 1 - verifier.share(graph.edges & ~circuits)
    if threshold is not None:
        start = graph.on_paths(graph.edges & (scores.abs().cpu() >= threshold))
    else:
        fewest = next((size for size, share in zip(at, faithful, strict=True) if share >= enough), len(order))
        start = _first(graph, order, *_sizes([fewest if n is None else n], len(order)))
    found = pruned(verifier, graph, start, scores, tolerance)
    curves = {"sizes": torch.tensor(at), "faithfulness_curve": faithful, "completeness_curve": complete}
    said = {"steps": steps, "tolerance": tolerance, "start": int(start.sum())}
    return _verified(verifier, graph, found, scores, said, **curves)


def check_circuit(
    model: ViT,
    clean: Tensor,
    corrupt: Tensor,
    metric: Metric,
    edges: Iterable[Edge],
    *,
    steps: int = 5,
    ablation: str = "corrupt",
    batch: int | None = None,
) -> CircuitDiscovery:
    """A circuit of given edges, `[("embed", "a0.h1.v"), ("a0.h1", "logits")]`, verified as it is.

    Others: as in `circuit_discovery`. Raises PrismaError as there, and if an edge does not exist.
    """
    graph = Graph(model.config)
    mask = graph.mask(edges)
    verifier = Verifier(model, clean, corrupt, metric, ablation, batch)
    scores = edge_attribution(model, clean, corrupt, metric, steps=steps, batch=batch).effect
    return _verified(verifier, graph, mask, scores, {"steps": steps})


def _verified(
    verifier: Verifier, graph: Graph, edges: Tensor, scores: Tensor, said: dict[str, Any], **curves: Tensor
) -> CircuitDiscovery:
    values, complement = verifier.measure(torch.stack([edges, graph.edges & ~edges]))
    removal = torch.zeros_like(scores)
    if edges.any():
        without = edges.repeat(int(edges.sum()), 1, 1)
        without[torch.arange(len(without)), *edges.nonzero().unbind(1)] = False
        lost = verifier.share(edges[None]) - verifier.share(without)
        removal[edges.to(removal.device)] = lost.to(removal)
    said = {"ablation": verifier.ablation, **said, "pairs": len(values), "edges": int(edges.sum())}
    return CircuitDiscovery(
        metadata={
            "analysis": "circuit_discovery",
            **said,
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
        **curves,
    )


def _whole(receiver: str) -> str:
    """`a1.h2.q` -> `a1.h2`."""
    return ".".join(receiver.split(".")[:2])


def _first(graph: Graph, order: Sequence[tuple[int, int]], size: int) -> Tensor:
    """The first so many edges of a ranking, without dead ends."""
    mask = torch.zeros_like(graph.edges)
    for at in order[:size]:
        mask[at] = True
    return graph.on_paths(mask)


def _sizes(sizes: Sequence[int] | None, edges: int) -> list[int]:
    if sizes is None:
        doubling = [m * 2**i for i in range(edges.bit_length()) for m in (2, 3)]
        return [size for size in sorted({1, *doubling}) if size < edges] + [edges]
    if wrong := [size for size in sizes or [0] if size not in range(1, edges + 1)]:
        raise PrismaError(f"a circuit of this model has 1 to {edges} edges; found {wrong[0]}")
    return list(sizes)
