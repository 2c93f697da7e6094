"""How fast the graph of a network is built: the 784-392-10 network of 0.31 million edges, against a loop over units.

    python -m benchmarks.modularity [--widths 784 392 10] [--rounds 3] [--threads N] [--json FILE]

The loop is that of toumei, written anew: one edge of a networkx graph after the other, its weight taken out of the
tensor by itself. Targets: the graph with its adjacency in a second, and a twentieth of the loop. Beside it, what one
shuffled graph costs: its weights in other places, two communities, Q and the n-cut.
"""

import itertools
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from statistics import median

import networkx as nx
import scipy
import sklearn
import torch
from torch import nn

from benchmarks.timing import CLOCKS, Line, arguments, interleave, ratio, report
from prisma.analysis.modularity import Graph, modularity, weight_graph


def network(widths: list[int]) -> nn.Sequential:
    layers = [(nn.Linear(a, b), nn.ReLU()) for a, b in itertools.pairwise(widths)]
    return nn.Sequential(*[part for pair in layers for part in pair][:-1])


def double_loop(net: nn.Sequential) -> nx.Graph:
    """An edge for each pair of units of neighbouring layers."""
    graph, linear = nx.Graph(), [part for part in net if isinstance(part, nn.Linear)]
    for number, layer in enumerate(linear):
        for before in range(layer.in_features):
            for after in range(layer.out_features):
                weight = abs(layer.weight[after, before].detach().item())
                graph.add_edge(f"{number}:{before}", f"{number + 1}:{after}", weight=weight)
    return graph


def ours(net: nn.Sequential) -> Graph:
    graph = weight_graph(net)
    _ = graph.adjacency
    return graph


def measure(args: Namespace) -> list[Line]:
    torch.manual_seed(0)
    net = network(args.widths)
    graph, theirs = ours(net), double_loop(net)
    expected = nx.to_scipy_sparse_array(theirs, sorted(theirs, key=lambda name: [int(x) for x in name.split(":")]))
    difference = abs(graph.adjacency - expected).max()
    if difference > 1e-6:
        raise SystemExit(f"expected the same graph of both; found a difference of {difference}")
    calls: dict[str, Callable[[], object]] = {"graph": lambda: ours(net), "double loop": lambda: double_loop(net)}
    clock = CLOCKS[args.clock]
    seconds = interleave(calls, args.rounds, clock)
    found = median(seconds["graph"])
    few, many = (interleave({"": partial(modularity, graph, 2, n)}, args.rounds, clock)[""] for n in (2, 12))
    shuffle = (median(many) - median(few)) / 10
    return [
        Line(f"graph of {graph.n_edges:,} edges", "", found, 0.0, found, "s", 1.0),
        ratio(seconds, "graph", "double loop", 0.05, f"{graph.n_edges:,} edges"),
        Line("a shuffled graph, with its communities", "", shuffle, 0.0, shuffle, "s", None),
    ]


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--widths", type=int, nargs="+", default=[784, 392, 10])
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    versions = {"networkx": nx.__version__, "scipy": scipy.__version__, "scikit-learn": sklearn.__version__}
    report(measure(args), args, versions)


if __name__ == "__main__":
    main()
