"""A run with gradients is the run, and the gradient at a fork passes through its branch alone."""

import pytest
import torch

from prisma import record
from prisma.analysis.circuits.gradient_run import gradient_run
from prisma.analysis.circuits.graph import Graph
from tests.variants import ANALYSED, images_of, model_of


@pytest.mark.parametrize("variant", ANALYSED)
def test_a_run_with_gradients_is_the_run(variant: str) -> None:
    model = model_of(variant)
    images = images_of(model)
    graph = Graph(model.config)
    run = gradient_run(model, graph, model.embed(images))
    torch.testing.assert_close(run.logits, model(images), rtol=0, atol=1e-12)
    if model.config.n_layers:
        _, acts = record(model, images, ["blocks.*.resid_pre", "blocks.*.attn.z", "blocks.*.attn_out"])
        first = [i for i, s in enumerate(graph.stages) if i == 0 or s.layer > graph.stages[i - 1].layer]
        torch.testing.assert_close(
            torch.stack([run.streams[i] for i in first]), acts.stack("resid_pre"), rtol=0, atol=1e-12
        )
        attn = [i for i, stage in enumerate(graph.stages) if stage.kind == "attn"]
        torch.testing.assert_close(
            torch.stack([run.messages[i] for i in attn]), acts.stack("attn.z"), rtol=0, atol=1e-12
        )
        torch.testing.assert_close(
            torch.stack([run.written[i] for i in attn]), acts.stack("attn_out"), rtol=0, atol=1e-12
        )
    assert not gradient_run(model, graph, model.embed(images), grad=False).logits.requires_grad


def test_a_fork_has_the_gradient_of_its_branch_alone() -> None:
    model = model_of("norm_none")
    run = gradient_run(model, Graph(model.config), model.embed(images_of(model)))
    mlp, after = 1, 2
    whole, private = torch.autograd.grad(run.logits[:, 0].sum(), [run.streams[mlp], run.forks[mlp]], retain_graph=True)
    (around,) = torch.autograd.grad(run.logits[:, 0].sum(), run.streams[after])
    torch.testing.assert_close(whole, private + around, rtol=1e-10, atol=1e-12)
