"""Path patching evaluates no more blocks than it says."""

import pytest
from torch import Tensor

from prisma import LogitDiff, PrismaError, ViT
from prisma.analysis.circuits.graph import Graph
from prisma.analysis.circuits.head_graph import head_graph
from prisma.analysis.circuits.path_patching import path_patching
from prisma.analysis.circuits.path_runs import Group, group_of
from tests.analysis.circuits.test_circuit_run import pairs_of
from tests.variants import config_of, model_of

METRIC = LogitDiff(0, 1)


class Counter:
    """Rows that go through the MLPs of a model, of which there is one in each block."""

    def __init__(self, model: ViT) -> None:
        self.rows = 0
        self.handles = [block.mlp.register_forward_hook(self.count) for block in model.blocks]

    def count(self, mlp: object, args: tuple[Tensor, ...], out: Tensor) -> None:
        self.rows += len(out)

    def done(self) -> int:
        for handle in self.handles:
            handle.remove()
        return self.rows


@pytest.mark.parametrize("batch", [None, 7])
def test_the_head_graph_evaluates_as_many_blocks_as_it_says(batch: int | None) -> None:
    model = model_of("base", n_layers=4)
    layers, heads, pairs = 4, 3, 3
    clean, corrupt = pairs_of(model, pairs)
    counter = Counter(model)
    head_graph(model, clean, corrupt, METRIC, sides=("q", "v"), batch=batch)
    sides = 2
    assert counter.done() == 2 * pairs * layers + sides * heads**2 * pairs * layers * (layers**2 - 1) // 6


def test_path_patching_evaluates_as_many_blocks_as_it_says() -> None:
    model, layers, pairs = model_of("base", n_layers=4), 4, 2
    clean, corrupt = pairs_of(model, pairs)
    counter = Counter(model)
    path_patching(model, clean, corrupt, METRIC)
    graph, expected = Graph(model.config), 2 * pairs * layers
    for receiver, reads in zip(graph.receivers, graph.reads, strict=True):
        if receiver.layer is not None:
            expected += reads * pairs * (layers - receiver.layer)  # the MLP of its own layer, and those after it
    assert counter.done() == expected


def test_receivers_are_grouped_by_what_is_patched_together() -> None:
    graph = Graph(config_of("base"))
    assert group_of(graph, "a1.h2") == Group(2, 2, ("q", "k", "v"))
    assert group_of(graph, "a1.h2.k") == Group(2, 2, ("k",))
    assert group_of(graph, "m0") == Group(1)
    assert group_of(graph, "logits") == Group(4)
    with pytest.raises(PrismaError, match="no receiver 'embed'"):
        group_of(graph, "embed")
