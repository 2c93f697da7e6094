"""Attribution runs no more than it says, and its parts are what autograd gives one at a time."""

import pytest
import torch

from prisma.analysis.circuits.attribution_passes import difference, receiver_gradients
from prisma.analysis.circuits.attribution_patching import attribute_nodes_and_edges
from prisma.analysis.circuits.branches import branch_of
from prisma.analysis.circuits.gradient_run import gradient_run
from prisma.analysis.circuits.graph import Graph
from tests.analysis.circuits.test_circuit_run import pairs_of
from tests.analysis.circuits.test_edge_attribution import metric
from tests.variants import images_of, model_of


@pytest.mark.parametrize("steps", [1, 4])
def test_a_run_for_each_step_and_one_for_each_image_of_a_pair(steps: int) -> None:
    model = model_of("base")
    pairs, rows = 5, []
    handle = model.blocks[1].get_submodule("mlp").register_forward_hook(lambda *args: rows.append(len(args[-1])))
    attribute_nodes_and_edges(model, *pairs_of(model, pairs), metric, steps=steps, batch=2)
    handle.remove()
    assert sum(rows) == pairs * (1 + steps + (steps > 1)) and max(rows) == 2  # one step is the target's own run


@pytest.mark.parametrize("variant", ["base", "qk_norm", "rotary", "norm_post", "divided"])
def test_gradients_of_receivers_are_those_of_streams_of_their_own(variant: str) -> None:
    model = model_of(variant)
    graph = Graph(model.config)
    branch = branch_of(model, graph.stages[0])
    with torch.no_grad():
        x_BTM = model.embed(images_of(model))
    each = x_BTM[:, :, None].expand(-1, -1, 3 * model.config.n_heads, -1).clone().requires_grad_()
    sides = branch.attention.project_each(branch.read(each.unflatten(2, (3, -1))))
    weights = [torch.randn(side.shape, dtype=side.dtype, generator=torch.Generator().manual_seed(1)) for side in sides]
    (expected,) = torch.autograd.grad(sum((s * w).sum() for s, w in zip(sides, weights, strict=True)), each)
    apart = branch.project(x_BTM)
    (g_BTIHD,) = torch.autograd.grad(branch.attention.placed(*apart.unbind(2)), apart, weights)
    found = receiver_gradients(branch, x_BTM, g_BTIHD)
    torch.testing.assert_close(found, expected.permute(2, 0, 1, 3), rtol=1e-10, atol=1e-12)


def test_the_difference_of_two_runs() -> None:
    model = model_of("base")
    graph = Graph(model.config)
    own, source = (gradient_run(model, graph, model.embed(images)) for images in pairs_of(model))
    found = difference(source, own)
    for name in ("streams", "written", "messages"):
        for change, a, b in zip(getattr(found, name), getattr(own, name), getattr(source, name), strict=True):
            assert torch.equal(change, b - a)
