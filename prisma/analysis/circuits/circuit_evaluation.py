"""Circuit evaluation as in MIB: how good is a ranking of edges, at every size of the circuit that it gives?

    f(p) = (m(C_p) - m(no edges)) / (m(all edges) - m(no edges))      C_p: the best share p of all edges, no dead ends
    CPR  = integral of f(p) dp           edges ranked by their value: those that give the metric come first, whose
                                         score has the sign of the whole effect (the sum over the embedding's edges)
    CMD  = integral of |1 - f(p)| dp     edges ranked by the size of their value

by the trapezoid rule between p = 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5 and 1, where C_p is made of the
int(p N) best of all N edges, every edge counts as one, and m is the mean of the metric over pairs. CMD 0 is the model's
own answer at every size; a high CPR finds what gives the answer, and may exceed 1.

Beside them always: random circuits of the same sizes, made of edges in a random order until as many lie on paths from
`embed` to `logits`; and the spread over pairs. With `tokens`, an edge is one at one token: circuits that tell positions
apart (Haklay et al.).

Sources: Mueller et al. 2504.13151 (MIB: CPR, CMD, the shares); Haklay et al. 2502.04577 (edges by position).

Shapes: S sender, V receiver, T token, B pair, P share of all edges, D draw.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from prisma.analysis.border import guarded
from prisma.analysis.circuits.attribution_passes import AttributionPasses
from prisma.analysis.circuits.circuit_figures import PROPORTIONS, cmd_of, cpr_of
from prisma.analysis.circuits.circuit_search import Verifier
from prisma.analysis.circuits.graph import Graph
from prisma.analysis.result import Result
from prisma.analysis.statistics import bootstrap_interval
from prisma.errors import PrismaError
from prisma.metrics import Metric
from prisma.runs import readout_tokens
from prisma.view.figures.faithfulness import draw_faithfulness
from prisma.vit import ViT

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FIGURES = ("cmd", "cpr")


@dataclass(frozen=True, kw_only=True, eq=False)
class CircuitEvaluation(Result):
    """The metric of every circuit in every pair, and the two figures of MIB with their intervals and what chance gives.

    `cmd` near 0 is good, `cpr` large; a ranking is worth something if both are beyond those of random circuits.
    """

    AXES: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "faithfulness": ("share",),
        "value_faithfulness": ("share",),
        "random_faithfulness": ("draw", "share"),
        "per_pair": ("image", "share"),
        "size_values": ("image", "share"),
        "value_values": ("image", "share"),
        "random_values": ("image", "draw", "share"),
        "edges": ("share",),
        "clean": ("image",),
        "ablated": ("image",),
    }

    size_values: Tensor  # the metric in the runs of circuits ranked by size
    value_values: Tensor  # of those ranked by value
    random_values: Tensor  # of random circuits with as many edges as those ranked by size
    edges: Tensor  # how many edges of the circuits by size lie on paths
    clean: Tensor  # of the run with all edges
    ablated: Tensor  # of the run with none

    @property
    def names(self) -> Mapping[str, Sequence[str]]:
        return {"share": [f"{p:g}" for p in PROPORTIONS]}

    @property
    def faithfulness(self) -> Tensor:
        """[share]: of the circuits ranked by size, from which CMD is."""
        return self._curve(self.size_values)

    @property
    def value_faithfulness(self) -> Tensor:
        """[share]: of the circuits ranked by value, from which CPR is."""
        return self._curve(self.value_values)

    @property
    def random_faithfulness(self) -> Tensor:
        """[draw, share]: of random circuits."""
        return self._curve(self.random_values)

    @property
    def per_pair(self) -> Tensor:
        """[image, share]: the part of the metric that a circuit (by size) gives in each pair, over the mean effect."""
        return (self.size_values - self.ablated[:, None]) / (self.clean - self.ablated).mean()

    @property
    def cmd(self) -> float:
        """The area between faithfulness and 1: 0 is best."""
        return cmd_of(self.faithfulness).item()

    @property
    def cpr(self) -> float:
        """The area under faithfulness: larger is better."""
        return cpr_of(self.value_faithfulness).item()

    @property
    def random_cmd(self) -> Tensor:
        """[draw]: of random circuits of the same sizes."""
        return cmd_of(self.random_faithfulness)

    @property
    def random_cpr(self) -> Tensor:
        """[draw]: of random circuits of the same sizes."""
        return cpr_of(self.random_faithfulness)

    def interval(self, figure: str = "cmd", level: float = 0.95) -> tuple[float, float]:
        """The bootstrap interval over pairs of `cmd` or `cpr`. Raises PrismaError if there is no such figure."""
        if figure not in FIGURES:
            raise PrismaError(f"expected one of {', '.join(FIGURES)}; found {figure!r}")
        values, area = (self.size_values, cmd_of) if figure == "cmd" else (self.value_values, cpr_of)
        ends = bootstrap_interval(lambda rows: area(self._curve(values, rows)), len(self.clean), level=level)
        return ends[0].item(), ends[1].item()

    def faithfulness_interval(self, level: float = 0.95) -> Tensor:
        """[2, share]: the ends of the bootstrap interval over pairs of `faithfulness`."""
        return self._curve_interval(self.size_values, level)

    def to_dict(self) -> dict[str, Any]:
        """As for every result, and also CMD and CPR with their intervals."""
        found = {name: {"value": getattr(self, name), "interval": list(self.interval(name))} for name in FIGURES}
        return {**super().to_dict(), "figures": found}

    def report(self, classes: Sequence[str] = ()) -> str:
        """CMD and CPR, each beside that of random circuits, and the spread over pairs at 5 % of the edges."""
        at = PROPORTIONS.index(0.05)
        spread, rows = self.per_pair[:, at].double().quantile(torch.tensor([0.1, 0.9]).double()).tolist(), []
        for name in FIGURES:
            low, high = self.interval(name)
            by_chance = getattr(self, f"random_{name}")
            chance = f"random circuits {by_chance.mean():.2f}" if len(by_chance) else "no random circuits"
            rows.append(f"{name.upper()} {getattr(self, name):.2f} ({low:.2f} to {high:.2f}); {chance}")
        rows.append(
            f"faithfulness at 5 % of the edges: {self.faithfulness[at]:.2f}, "
            f"in 80 % of the pairs {spread[0]:.2f} to {spread[1]:.2f}"
        )
        return "\n".join(rows)

    def plot(self, array: str | None = None) -> "Figure":
        """Faithfulness by the share of all edges, beside random circuits; or a picture of one array."""
        if array is not None:
            return super().plot(array)
        curves = {"ranked by size (CMD)": self.size_values, "ranked by value (CPR)": self.value_values}
        lines = {name: (self._curve(values), self._curve_interval(values)) for name, values in curves.items()}
        return draw_faithfulness(
            PROPORTIONS, lines, self.random_faithfulness, f"CMD {self.cmd:.2f}, CPR {self.cpr:.2f}"
        )

    def _curve(self, values: Tensor, rows: Tensor | slice = slice(None)) -> Tensor:
        base, total = self.ablated[rows].mean(), (self.clean - self.ablated)[rows].mean()
        return (values[rows].mean(0) - base) / total

    def _curve_interval(self, values: Tensor, level: float = 0.95) -> Tensor:
        return bootstrap_interval(partial(self._curve, values), len(self.clean), level=level)


@guarded
def circuit_evaluation(
    model: ViT,
    clean: Tensor,
    corrupt: Tensor,
    metric: Metric,
    scores: Tensor | None = None,
    *,
    tokens: bool = False,
    steps: int = 5,
    rules: str = "gradient",
    ablation: str = "corrupt",
    draws: int = 10,
    seed: int = 0,
    batch: int | None = None,
) -> CircuitEvaluation:
    """How good is a ranking of edges: how faithful are the circuits of all sizes that it gives? (MIB's CMD and CPR)

    Args:
        clean, corrupt: pairs of images [image, channel, (frame,) height, width], of the same shape.
        metric: logits [batch, class] -> one finite number per pair [batch], which depends on that pair's logits alone.
        scores: how much the metric is estimated to change when an edge is replaced [sender, receiver], or [sender,
            receiver, token], as `edge_scores` gives: from other pairs, for a fair figure. By default from these pairs.
        tokens: whether an edge at one token is an edge by itself; scores that are given say so by their shape.
        steps, rules: of the attribution where no scores are given, as in `edge_attribution`.
        ablation: what the other edges carry: `"corrupt"`, `"mean"` or `"zero"`.
        draws, seed: number and seed of random circuits of each size.
        batch: images per pass at most, all circuits together; by default as many as fit in 256 MiB.

    Returns:
        `.cmd`, `.cpr`, `.random_cmd`, `.random_cpr`, `.faithfulness` [share], `.per_pair` [image, share].

    Raises:
        PrismaError: shapes differ, an option is wrong, or the metric does not differ between all edges and none.
    """
    if draws < 0:
        raise PrismaError(f"expected draws to be at least 0; found {draws}")
    graph = Graph(model.config)
    if scores is None:
        scores = edge_scores(model, clean, corrupt, metric, tokens=tokens, steps=steps, rules=rules, batch=batch)
    exists = edges_of(model, scores)
    verifier = Verifier(model, clean, corrupt, metric, ablation, batch)
    sign = 1 if scores[0].sum() > 0 else -1  # of the whole effect, which the edges of the embedding share
    by_size, by_value = (
        torch.stack([best_edges(graph, exists, x, int(p * exists.sum())) for p in PROPORTIONS])
        for x in (scores.cpu().abs(), sign * scores.cpu())
    )
    sizes = by_size.flatten(1).sum(1)
    at_random = [random_circuit(graph, exists, int(size), seed + i) for i in range(draws) for size in sizes]
    values = verifier.measure(torch.cat([by_size, by_value, *([torch.stack(at_random)] if at_random else [])]))
    n, random = len(PROPORTIONS), values[2 * len(PROPORTIONS) :]
    settings = {"tokens": exists.ndim == 3, "ablation": ablation, "draws": draws, "seed": seed, "pairs": len(clean)}
    return CircuitEvaluation(
        metadata={"analysis": "circuit_evaluation", "steps": steps, "rules": rules, **settings},
        size_values=values[:n].mT,
        value_values=values[n : 2 * n].mT,
        random_values=random.reshape(draws, n, len(clean)).permute(2, 0, 1),
        edges=sizes,
        clean=verifier.clean,
        ablated=verifier.ablated,
    )


def edge_scores(
    model: ViT,
    clean: Tensor,
    corrupt: Tensor,
    metric: Metric,
    *,
    tokens: bool = False,
    steps: int = 5,
    rules: str = "gradient",
    batch: int | None = None,
) -> Tensor:
    """The scores of `edge_attribution`, mean over pairs [sender, receiver]; with `tokens` [sender, receiver, token].

    Args and errors: as in `edge_attribution`.
    """
    passes = AttributionPasses(
        model, metric, nodes=False, edges=True, steps=steps, into="clean", batch=batch, rules=rules, by_token=tokens
    )
    return passes.run(clean, corrupt)["edges"].mean(0)


def edges_of(model: ViT, scores: Tensor) -> Tensor:
    """Boolean: which edges exist that these scores are of; at tokens that the readout does not read, none to `logits`.

    Raises:
        PrismaError: the scores have another shape.
    """
    edges = Graph(model.config).edges
    if scores.shape == edges.shape:
        return edges
    if scores.shape != (*edges.shape, model.config.n_tokens):
        raise PrismaError(
            f"expected scores {list(edges.shape)}, or {[*edges.shape, model.config.n_tokens]} by token; "
            f"found {list(scores.shape)}"
        )
    exists = edges[..., None].repeat(1, 1, model.config.n_tokens)
    if (read := readout_tokens(model)) is not None:
        exists[:, -1, read:] = False
    return exists


def best_edges(graph: Graph, exists: Tensor, scores: Tensor, n: int) -> Tensor:
    """Boolean: the n existing edges with the largest scores, without dead ends."""
    order = scores.masked_fill(~exists, -torch.inf).flatten().argsort(descending=True, stable=True)
    chosen = torch.zeros(exists.numel(), dtype=torch.bool)
    chosen[order[:n]] = True
    return graph.on_paths(chosen.view_as(exists))


def random_circuit(graph: Graph, exists: Tensor, size: int, seed: int) -> Tensor:
    """Boolean: edges in a random order, until `size` of them lie on paths from `embed` to `logits`.

    The last may complete a path of several, so that it is never smaller than `size`.
    """
    scores = torch.rand(exists.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    low, high = 0, int(exists.sum())
    while low < high:  # edges on paths become only more
        middle = (low + high) // 2
        enough = int(best_edges(graph, exists, scores, middle).sum()) >= size
        low, high = (low, middle) if enough else (middle + 1, high)
    return best_edges(graph, exists, scores, low)
