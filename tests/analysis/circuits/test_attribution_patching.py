"""Attribution patching is the derivative of patched runs, sums over edges, and is exact where the model is linear."""

import pytest
import torch
from torch import Tensor

import prisma
from prisma import LogitDiff, PrismaError, ViT, activation_patching, run, sweep
from prisma.analysis.circuits.attribution_patching import (
    AttributionPatching,
    attribute_nodes_and_edges,
    attribution_patching,
)
from prisma.analysis.circuits.edge_attribution import edge_attribution
from prisma.analysis.circuits.graph import Graph
from prisma.analysis.circuits.path_patching import path_patching
from prisma.data import task
from prisma.metrics import KL, Rank
from prisma.runs import record
from tests.analysis.circuits.test_circuit_run import HARD, pairs_of
from tests.analysis.circuits.test_edge_attribution import metric
from tests.planted_circuits import copy_head, images
from tests.variants import images_of, model_of

SITES = {
    "head_tokens": "attn.z", "time_head_tokens": "time.z",
    "tokens": "resid_pre", "attn_tokens": "attn_out", "mlp_tokens": "mlp_out",
}  # fmt: skip


def derivatives(model: ViT, target: Tensor, donor: Tensor, site: str) -> Tensor:
    """Of the metric of runs in which a site holds own + a (donor - own), in each token's and head's a, at a = 0."""
    found = []
    for layer in range(model.config.n_layers):
        name = f"blocks.{layer}.{site}"
        own, other = (record(model, images, name)[1][name].detach() for images in (target, donor))
        a = torch.zeros(own.shape[:-1], dtype=own.dtype, requires_grad=True)
        logits = run(model, target, {name: lambda x, a=a, more=other - own: x + a[..., None] * more})
        (slope,) = torch.autograd.grad(metric(logits).sum(), a)
        found.append(slope.mT if site.endswith("z") else slope)
    return torch.stack(found, dim=1)


def linear_model() -> ViT:
    """Attention-only, without norms, and with attention to all tokens alike: linear in everything."""
    model = model_of("attention_only_norm_none")
    with torch.no_grad():
        for block in model.blocks:
            block.get_submodule("attn.qkv").weight[: 2 * model.config.d_model].zero_()
    return model


@pytest.mark.parametrize("variant", [*HARD, "divided", "layer_scale", "pool_class_mean"])
def test_every_node_is_a_derivative(variant: str) -> None:
    model = model_of(variant)
    clean, corrupt = pairs_of(model, 2)
    found = attribution_patching(model, clean, corrupt, metric)
    absent = {"mlp_tokens"} if not model.config.d_mlp else set()
    absent |= {"time_head_tokens"} if model.config.attention != "divided" else set()
    for array, site in SITES.items():
        if array in absent:
            assert getattr(found, array) is None
        else:
            expected = derivatives(model, clean, corrupt, site)
            torch.testing.assert_close(getattr(found, array), expected, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(found.clean, metric(model(clean)), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.corrupt, metric(model(corrupt)), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("variant", HARD)
def test_edges_that_leave_a_sender_sum_to_the_sender(variant: str) -> None:
    model = model_of(variant)
    nodes, edges = attribute_nodes_and_edges(model, *pairs_of(model, 2), metric, steps=2)
    of_sender, graph = edges.values.sum(2), Graph(model.config)
    torch.testing.assert_close(of_sender[:, 0], nodes.tokens[:, 0].sum(-1), rtol=1e-9, atol=1e-10)
    attn = torch.cat([of_sender[:, s.senders] for s in graph.stages if s.kind == "attn"], dim=1)
    torch.testing.assert_close(attn, nodes.heads.flatten(1), rtol=1e-9, atol=1e-10)
    if nodes.mlp_tokens is not None:
        mlps = torch.cat([of_sender[:, s.senders] for s in graph.stages if s.kind == "mlp"], dim=1)
        torch.testing.assert_close(mlps, nodes.mlp_tokens.sum(-1), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("into", ["clean", "corrupt"])
def test_in_a_linear_model_it_is_patching(into: str) -> None:
    model = linear_model()
    clean, corrupt = pairs_of(model, 3)
    metric = LogitDiff(0, 1)
    nodes, edges = attribute_nodes_and_edges(model, clean, corrupt, metric, into=into)
    base = getattr(nodes, into).mean()
    heads = sweep(model, clean, corrupt, "attn.z", metric, into=into)
    torch.testing.assert_close(nodes.effect, heads - base, rtol=1e-10, atol=1e-10)
    tokens = sweep(model, clean, corrupt, "resid_pre", metric, into=into)
    torch.testing.assert_close(nodes.tokens.mean(0), tokens - base, rtol=1e-10, atol=1e-10)
    paths = path_patching(model, clean, corrupt, metric, into=into)
    torch.testing.assert_close(edges.effect, paths.effect - base, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(nodes.total, (nodes.corrupt - nodes.clean).mean() * (1 if into == "clean" else -1))
    assert nodes.effect.abs().min() > 1e-6


def test_for_small_differences_it_is_patching() -> None:
    model = model_of("base")
    clean, noise = pairs_of(model, 2)
    corrupt = clean + 1e-4 * noise
    nodes, edges = attribute_nodes_and_edges(model, clean, corrupt, metric)
    heads = sweep(model, clean, corrupt, "attn.z", metric) - nodes.clean.mean()
    assert (nodes.effect - heads).abs().max() < 1e-3 * heads.abs().max()
    paths = path_patching(model, clean, corrupt, metric).effect - nodes.clean.mean()
    assert (edges.effect - paths).abs().max() < 1e-3 * paths.abs().max()


def test_with_more_steps_the_embeddings_account_for_the_whole_difference() -> None:
    model = model_of("base")
    clean, corrupt = pairs_of(model, 2)
    errors = []
    for steps in (1, 5, 20, 60):
        found = attribution_patching(model, clean, corrupt, metric, steps=steps)
        errors.append((found.tokens[:, 0].sum(-1) - (found.corrupt - found.clean)).abs().max().item())
    assert errors[0] > 10 * errors[1] > 100 * errors[2] and errors[3] < 1e-8


def test_a_divergence_from_the_run_itself_is_integrated_or_refused() -> None:
    """Its gradient is zero in that run. In the copy head's model one head carries everything, so exact patching of it
    is the whole divergence, and so is the integral along the line to the other image."""
    model = copy_head()
    clean, corrupt = images([1, 2, 3, 1, 2], [1, 1, 1, 0, 2]), images([0, 2, 3, 0, 2], [3, 3, 2, 0, 2])
    divergence = KL(model(clean).detach())
    exact = activation_patching(model, clean, corrupt, "attn.z", divergence)
    found, edges = attribute_nodes_and_edges(model, clean, corrupt, divergence, steps=5)
    assert exact.effect[0, 1] > 0.03
    torch.testing.assert_close(found.heads[:, 0, 1], exact.corrupt, rtol=1e-4, atol=0)
    torch.testing.assert_close(found.effect, exact.effect, rtol=1e-4, atol=1e-12)
    torch.testing.assert_close(edges.effect[0].sum(), exact.effect[0, 1], rtol=1e-4, atol=0)
    refused = r"found KL, with a gradient of zero for 2 of 2 images.*would be zero; use steps=5 .*activation_patching"
    for both in (attribution_patching, edge_attribution):
        with pytest.raises(PrismaError, match=refused):
            both(model, clean, corrupt, divergence)
        assert both(model, clean, corrupt, divergence, into="corrupt").effect.abs().max() > 0.03  # a slope is there


def test_only_a_slope_of_zero_is_named() -> None:
    model = model_of("base")
    clean, corrupt = pairs_of(model, 3)
    with pytest.warns(UserWarning, match=r"<lambda>, with a gradient of zero for 1 of 3 images \(the first is 1\)"):
        centre = model(clean)[1:2].detach()  # a metric that is smallest at one of the images
        attribution_patching(model, clean, corrupt, lambda logits: (logits - centre).square().sum(-1), batch=2)
    tiny, plain = (attribution_patching(model, clean, corrupt, lambda x, s=s: s * metric(x)) for s in (1e-9, 1.0))
    torch.testing.assert_close(tiny.effect * 1e9, plain.effect)
    same = attribution_patching(model, clean, clean, KL(model(clean).detach()))  # nothing changes: zero is right
    assert same.effect.abs().max() < 1e-12


@pytest.mark.parametrize("batch", [1, 2, None])
def test_chunks_make_no_difference_and_a_metric_sees_all_pairs(batch: int | None) -> None:
    model = model_of("base")
    clean, corrupt = pairs_of(model, 3)
    nodes, edges = attribute_nodes_and_edges(
        model, clean, corrupt, LogitDiff([0, 1, 2], [4, 3, 0]), steps=2, batch=batch
    )
    for i, targets in enumerate([(0, 4), (1, 3), (2, 0)]):
        one = slice(i, i + 1)
        alone, its_edges = attribute_nodes_and_edges(model, clean[one], corrupt[one], LogitDiff(*targets), steps=2)
        for name, values in alone.arrays.items():
            if name not in ("effect", "stderr"):
                torch.testing.assert_close(nodes.arrays[name][one], values, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(edges.values[one], its_edges.values, rtol=1e-10, atol=1e-10)


def test_it_leaves_nothing_behind_and_heeds_no_mode() -> None:
    model = model_of("base")
    clean, corrupt = pairs_of(model)
    with torch.no_grad():
        first = attribution_patching(model, clean, corrupt, metric)
    model.requires_grad_(False)
    second = attribution_patching(model, clean, corrupt, metric)
    with torch.inference_mode():
        third = attribution_patching(model, clean.clone(), corrupt.clone(), metric)
    assert torch.equal(first.head_tokens, second.head_tokens) and not second.head_tokens.requires_grad
    assert torch.equal(first.head_tokens, third.head_tokens)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_on_a_trained_mouse_it_finds_what_patching_finds() -> None:
    """Measured on these 30 pairs: correlation with exact path patching, over edges, 0.91 (EAP) and 0.96 (EAP-IG)."""
    model = prisma.load("mice/digits").model
    images, labels = task("digits").inputs("test", 33)
    clean, corrupt = images[:-1], images[1:]
    differ = labels[:-1] != labels[1:]
    clean, corrupt, metric = clean[differ], corrupt[differ], LogitDiff(labels[:-1][differ], labels[1:][differ])
    exact = path_patching(model, clean, corrupt, metric)
    exists = Graph(model.config).edges
    effects = (exact.effect - exact.clean.mean())[exists]
    correlations = []
    for steps in (1, 5):
        _, edges = attribute_nodes_and_edges(model, clean, corrupt, metric, steps=steps)
        correlations.append(torch.corrcoef(torch.stack([edges.effect[exists], effects]))[0, 1].item())
    assert correlations[0] > 0.75 and correlations[1] > 0.95


def test_results_are_saved_and_drawn(tmp_path: object) -> None:
    model = model_of("base")
    found = attribution_patching(model, *pairs_of(model, 2), metric)
    again = AttributionPatching.from_npz(found.to_npz(f"{tmp_path}/attribution.npz"))
    assert torch.equal(again.heads, found.heads) and again.mlp_tokens is not None and again.time_head_tokens is None
    assert found.plot().axes and found.to_dict()["metadata"]["steps"] == 1
    assert torch.allclose(found.normalised() * found.total, found.effect)


def test_bad_input_is_refused() -> None:
    model = model_of("base")
    clean, corrupt = pairs_of(model, 2)
    with pytest.raises(PrismaError, match="pairs of one shape"):
        attribution_patching(model, clean, corrupt[:1], metric)
    with pytest.raises(PrismaError, match="a metric that has a gradient; found Rank"):
        attribution_patching(model, clean, corrupt, Rank(0))
    with pytest.raises(PrismaError, match="a metric that is finite"):
        attribution_patching(model, clean, corrupt, lambda logits: logits[:, 0] * torch.inf)
    with pytest.raises(PrismaError, match="one number per image"):
        attribution_patching(model, clean, corrupt, torch.sum)
    with pytest.raises(PrismaError, match="expected steps to be at least 1; found 0"):
        attribution_patching(model, clean, corrupt, metric, steps=0)
    with pytest.raises(PrismaError, match="expected batch to be at least 1; found 0"):
        attribution_patching(model, clean, corrupt, metric, batch=0)
    with pytest.raises(PrismaError, match="expected into to be clean or corrupt; found 'both'"):
        attribution_patching(model, clean, corrupt, metric, into="both")
    with pytest.raises(PrismaError, match="found a total effect of 0"):
        attribution_patching(model, clean, clean, metric).normalised()
    bare = model_of("no_layers")
    with pytest.raises(PrismaError, match="found n_layers=0"):
        attribution_patching(bare, images_of(bare), images_of(bare), metric)
