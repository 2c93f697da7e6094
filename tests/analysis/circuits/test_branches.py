"""Branches put together are the model, and what they send is what a run records."""

import pytest
import torch

from prisma.analysis.circuits.branches import branch_of, concatenated, messages
from prisma.analysis.circuits.graph import Graph
from tests.analysis.circuits.edge_twin import EdgeTwin
from tests.variants import ANALYSED, images_of, model_of


@pytest.mark.parametrize("variant", ANALYSED)
@torch.no_grad()
def test_branch_after_branch_is_the_model(variant: str) -> None:
    model = model_of(variant)
    images = images_of(model)
    logits, own = messages(model, images)
    x = before = own.embed
    for stage, sent in zip(Graph(model.config).stages, own.stages, strict=True):
        branch, read = branch_of(model, stage), before if stage.reads < stage.senders.start else x
        width = stage.receivers.stop - stage.receivers.start
        torch.testing.assert_close(branch.send(read[:, :, None].expand(-1, -1, width, -1)), sent, rtol=0, atol=1e-12)
        before, x = x, branch.add(x, branch.write(sent))
    torch.testing.assert_close(model.readout(x), logits, rtol=0, atol=1e-12)
    assert torch.equal(logits, model(images))


@pytest.mark.parametrize("variant", ["base", "norm_res_post", "layer_scale", "divided"])
@torch.no_grad()
def test_messages_are_those_of_the_twin(variant: str) -> None:
    model = model_of(variant)
    images = images_of(model, 1)
    _, own = messages(model, images)
    _, sent = EdgeTwin(model.config, model.state_dict()).edge_run(images[0])
    graph = Graph(model.config)
    torch.testing.assert_close(own.embed[0], sent["embed"], rtol=0, atol=1e-12)
    for stage, found in zip(graph.stages, own.stages, strict=True):
        expected = [sent[str(node)] for node in graph.senders[stage.senders]]
        expected = expected[0] if stage.kind == "mlp" else torch.stack(expected, dim=1)
        torch.testing.assert_close(found[0], expected, rtol=0, atol=1e-12)


@torch.no_grad()
def test_parts_of_a_run_are_concatenated_and_cut() -> None:
    model = model_of("base")
    images = images_of(model, 3)
    _, whole = messages(model, images)
    again = concatenated([whole[:1], whole[1:]])
    assert torch.equal(again.embed, whole.embed)
    assert all(torch.equal(a, b) for a, b in zip(again.stages, whole.stages, strict=True))
    assert not whole.map(torch.zeros_like).stages[0].any()
