"""The graph's nodes are those of the twin, its edges follow the forward, and dead ends are cut."""

import pytest
import torch

from prisma import PrismaError
from prisma.analysis.circuits.graph import Graph, Node, by_layer, largest, names, picture_labels
from tests.analysis.circuits.edge_twin import EdgeTwin
from tests.variants import ANALYSED, config_of, images_of, model_of, tower_of


def test_names() -> None:
    nodes = [Node("embed"), Node("attn", 1, 2), Node("attn", 1, 2, "q"), Node("time", 0, 1), Node("mlp", 4)]
    assert names([*nodes, Node("logits")]) == ["embed", "a1.h2", "a1.h2.q", "t0.h1", "m4", "logits"]


def test_pictures_have_all_names_or_those_of_layers() -> None:
    few = {"senders": ["embed", "a0.h0"], "receivers": ["m0", "logits"]}
    assert picture_labels(few) == {"sender": few["senders"], "receiver": few["receivers"]}
    many = {"senders": ["embed", *(f"a{i}.h{j}" for i in range(6) for j in range(5))], "receivers": few["receivers"]}
    assert picture_labels(many)["sender"][:8] == ["embed", "", "", "a0", "", "", "", ""]
    assert by_layer(["a0.h0.q", "a0.h1.q", "m0", "t1.h0.q", "logits"]) == ["", "a0", "", "t1", "logits"]


def test_the_largest_come_first_whatever_their_sign() -> None:
    found = largest(torch.tensor([[1.0, -3.0], [2.0, 0.0]]), {"senders": ["embed", "m0"], "receivers": ["m1", "m2"]}, 2)
    assert found == [(("embed", "m2"), -3.0), (("m0", "m1"), 2.0)]


@pytest.mark.parametrize("variant", ["base", "attention_only", "divided", "parallel", "no_layers"])
def test_nodes_are_those_of_the_twin_in_order(variant: str) -> None:
    model = model_of(variant)
    graph, twin = Graph(model.config), EdgeTwin(model.config, model.state_dict())
    _, sent = twin.edge_run(images_of(model, 1)[0])
    assert names(graph.senders) == list(sent)
    assert names(graph.receivers) == twin.receivers()


def test_edges_go_forward() -> None:
    graph = Graph(config_of("base"))
    edges = graph.named(graph.edges)
    assert ("embed", "a0.h0.q") in edges and ("a0.h1", "m0") in edges and ("m1", "logits") in edges
    assert ("a0.h0", "a0.h1.q") not in edges and ("m0", "m0") not in edges and ("a1.h0", "m0") not in edges
    heads, layers = 3, 2
    before = [1 + layer * (heads + 1) for layer in range(layers)]  # senders before a layer
    assert len(edges) == sum(n * 3 * heads + n + heads for n in before) + before[-1] + heads + 1


def test_a_parallel_mlp_does_not_read_its_blocks_heads() -> None:
    edges = Graph(config_of("parallel")).named(Graph(config_of("parallel")).edges)
    assert ("a0.h0", "m0") not in edges and ("embed", "m0") in edges and ("a0.h0", "m1") in edges


def test_names_and_masks_are_inverse() -> None:
    for variant in ANALYSED:
        graph = Graph(config_of(variant))
        assert torch.equal(graph.mask(graph.named(graph.edges)), graph.edges), variant
        assert torch.equal(graph.on_paths(graph.edges), graph.edges), variant


def test_dead_ends_are_cut() -> None:
    graph = Graph(config_of("base"))
    path = [("embed", "a0.h1.v"), ("a0.h1", "m1"), ("m1", "logits")]
    unheard, unfed = [("embed", "a0.h0.k"), ("a0.h0", "m0")], [("a0.h2", "a1.h2.q"), ("a1.h2", "logits")]
    assert graph.named(graph.on_paths(graph.mask([*path, *unheard, *unfed]))) == path
    assert not graph.on_paths(graph.mask(path[:-1])).any()


def test_what_does_not_exist_is_refused() -> None:
    graph = Graph(config_of("base"))
    with pytest.raises(PrismaError, match=r"no sender 'a0\.h7'; the nearest are a0\.h"):
        graph.sender("a0.h7")
    with pytest.raises(PrismaError, match=r"no receiver 'a0\.h1'; the nearest are a0\.h1"):
        graph.receiver("a0.h1")
    with pytest.raises(PrismaError, match=r"there is no edge m0 -> a0\.h0\.q"):
        graph.mask([("m0", "a0.h0.q")])
    with pytest.raises(PrismaError, match="found TextConfig"):
        Graph(tower_of("base").config)
