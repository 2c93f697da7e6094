"""A circuit's picture: who stands where, and who has a name."""

from prisma.analysis.circuits.graph import Graph, names
from prisma.view.figures.circuit import DOWN, UP, draw_circuit, places
from tests.variants import ANALYSED, config_of


def test_no_two_nodes_stand_in_one_place_and_edges_go_up() -> None:
    for variant in ANALYSED:
        graph = Graph(config_of(variant))
        at = places(names(graph.senders))
        assert len(set(at.values())) == len(at) == len(graph.senders) + 1, variant
        for sender, receiver in graph.named(graph.edges):
            below, above = at[sender][1], at[".".join(receiver.split(".")[:2])][1]
            assert below < above, f"{variant}: {sender} -> {receiver}"


def test_nodes_of_the_circuit_have_names_and_edges_colours() -> None:
    senders = names(Graph(config_of("base")).senders)
    figure = draw_circuit(senders, [(("embed", "a0.h1.v"), -2.0), (("a0.h1", "m1"), 1.0), (("m1", "logits"), -0.5)])
    panel = figure.axes[0]
    assert sorted(text.get_text() for text in panel.texts) == ["a0.h1", "embed", "logits", "m1", "v"]
    assert len(panel.lines) == len(senders) + 1 - 4  # dots of the others
    widths = {patch.get_edgecolor()[:3]: patch.get_linewidth() for patch in panel.patches}
    from matplotlib.colors import to_rgb

    assert set(widths) == {to_rgb(UP), to_rgb(DOWN)} and max(p.get_linewidth() for p in panel.patches) == 3.5


def test_an_empty_circuit_is_drawn() -> None:
    assert not draw_circuit(["embed"], []).axes[0].patches
