"""A head graph is path patching from every head to q, k and v of every later head."""

import pytest
import torch

from prisma import PrismaError
from prisma.analysis.circuits.head_graph import head_graph
from prisma.analysis.circuits.path_patching import path_patching
from tests.analysis.circuits.test_circuit_run import pairs_of
from tests.analysis.circuits.test_path_patching import feature_difference
from tests.variants import model_of


@pytest.mark.parametrize("variant", ["base", "divided", "norm_post"])
def test_the_head_graph_is_the_paths_between_heads(variant: str) -> None:
    model = model_of(variant, n_layers=3)
    clean, corrupt = pairs_of(model, 2)
    graph = head_graph(model, clean, corrupt, feature_difference)
    paths = path_patching(model, clean, corrupt, feature_difference)
    layers, heads = graph.metadata["layers"], model.config.n_heads
    for side, name in enumerate("qkv"):
        for i, sender in enumerate(layers):
            for j, receiver in enumerate(layers):
                for h in range(heads):
                    for k in range(heads):
                        at = (
                            paths.metadata["senders"].index(f"{sender}.h{h}"),
                            paths.metadata["receivers"].index(f"{receiver}.h{k}.{name}"),
                        )
                        found = graph.effect[side, i, h, j, k]
                        torch.testing.assert_close(found, paths.effect[at], rtol=1e-10, atol=1e-10)


def test_results_have_names_and_no_path_is_no_change() -> None:
    model = model_of("base")
    clean, corrupt = pairs_of(model, 2)
    found = head_graph(model, clean, corrupt, feature_difference, sides="k")
    assert found.axes["values"] == (
        "image", "side", "sender layer", "sender head", "receiver layer", "receiver head",
    )  # fmt: skip
    assert found.values.shape == (2, 1, 2, 3, 2, 3)
    unchanged = found.values[:, 0, 1]
    torch.testing.assert_close(unchanged, found.clean[:, None, None, None].expand_as(unchanged))
    assert not torch.allclose(found.values[:, 0, 0, :, 1], found.clean[:, None, None])


def test_the_picture_has_a_panel_for_each_side() -> None:
    model = model_of("base")
    clean, corrupt = pairs_of(model, 2)
    graph = head_graph(model, clean, corrupt, feature_difference, sides="qv")
    drawn = [panel.images[0].get_array() for panel in graph.plot().axes if panel.images]
    change = graph.effect - graph.clean.mean()
    assert len(drawn) == 2 and drawn[1][2, 4] == change[1, 0, 2, 1, 1].item()  # heads 2 of layer 0 and 1 of layer 1
    assert graph.plot("clean").axes


def test_bad_input_is_refused() -> None:
    model = model_of("base")
    clean, corrupt = pairs_of(model, 2)
    with pytest.raises(PrismaError, match="q, k and v; found 'z'"):
        head_graph(model, clean, corrupt, feature_difference, sides=["z"])
    with pytest.raises(PrismaError, match="found 0 layers"):
        head_graph(model_of("no_layers"), clean, corrupt, feature_difference)
