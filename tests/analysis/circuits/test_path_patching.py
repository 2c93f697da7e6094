"""Path patching is the exact run without one edge."""

import numpy as np
import pytest
import torch
from torch import Tensor

import prisma
from prisma import LogitDiff, PrismaError, ViT
from prisma.analysis.circuits.branches import messages
from prisma.analysis.circuits.circuit_run import run_edges
from prisma.analysis.circuits.graph import Graph, names
from prisma.analysis.circuits.path_patching import path_patching
from tests.analysis.circuits.edge_twin import EdgeTwin
from tests.analysis.circuits.test_circuit_run import HARD, pairs_of
from tests.variants import images_of, model_of


def feature_difference(logits: Tensor) -> Tensor:
    return logits[:, 0] - logits[:, 1] * logits[:, 2]


@torch.no_grad()
def by_edges(model: ViT, target: Tensor, donor: Tensor, groups: list[list[str]]) -> Tensor:
    """The same by the exact run over edges [image, sender, group]."""
    graph = Graph(model.config)
    _, other = messages(model, donor)
    circuits = graph.edges.expand(len(graph.senders), len(groups), -1, -1).clone()
    for s in range(len(graph.senders)):
        for g, group in enumerate(groups):
            circuits[s, g, s, [graph.receiver(name) for name in group]] = False
    logits = run_edges(model, target, circuits.flatten(0, 1), other)
    return torch.stack([feature_difference(x) for x in logits]).view(*circuits.shape[:2], -1).permute(2, 0, 1)


@pytest.mark.parametrize("variant", [*HARD, "divided", "video", "pool_class_mean", "no_layers", "no_head"])
def test_every_path_is_the_run_without_that_edge(variant: str) -> None:
    model = model_of(variant)
    clean, corrupt = pairs_of(model, 2)
    found = path_patching(model, clean, corrupt, feature_difference)
    expected = by_edges(model, clean, corrupt, [[name] for name in names(Graph(model.config).receivers)])
    torch.testing.assert_close(found.values, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found.clean, feature_difference(model(clean)), rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_a_path_is_that_of_the_slow_twin() -> None:
    model = model_of("base")
    clean, corrupt = pairs_of(model, 1)
    twin = EdgeTwin(model.config, model.state_dict())
    _, other = twin.edge_run(clean[0])
    found = path_patching(model, clean, corrupt, feature_difference, into="corrupt")
    for sender, receiver in [("embed", "a1.h1.v"), ("a0.h2", "a1.h0.q"), ("a0.h1", "m0"), ("m0", "logits")]:
        logits, _ = twin.edge_run(corrupt[0], {(sender, receiver): 0.0}, other)
        at = found.metadata["senders"].index(sender), found.metadata["receivers"].index(receiver)
        torch.testing.assert_close(found.effect[at], feature_difference(logits[None])[0], rtol=1e-10, atol=1e-10)


def in_two_runs(model: ViT, target: Tensor, source: Tensor, sender: str, receiver: str) -> Tensor:
    """Wang et al.: a run in which the sender is new and all other heads are held, and one with the receiver's input."""
    held = prisma.record(model, target, "blocks.*.attn.z")[1]
    edit: dict[str, list[prisma.Edit]] = {site: [prisma.Set(z)] for site, z in held.items()}
    layer, _, head = sender[1:].partition(".h")
    site = {"e": "embed", "a": f"blocks.{layer}.attn.z", "m": f"blocks.{layer}.mlp_out"}[sender[0]]
    new = prisma.Set(prisma.record(model, source, site)[1][site])
    edit.setdefault(site, []).append(new.at(head=int(head)) if head else new)
    if receiver == "logits":
        return prisma.run(model, target, edit)
    if receiver[0] == "m":
        return prisma.run(
            model,
            target,
            {
                f"blocks.{receiver[1:]}.mlp_out": prisma.Set(
                    prisma.record(model, target, f"blocks.{receiver[1:]}.mlp_out", edit)[1][
                        f"blocks.{receiver[1:]}.mlp_out"
                    ]
                )
            },
        )
    layer, head, side = receiver[1:].replace("h", "").split(".")
    reads = f"blocks.{layer}.attn.{side}"
    value = prisma.record(model, target, reads, edit)[1][reads]
    return prisma.run(model, target, {reads: prisma.Set(value).at(head=int(head))})


@torch.no_grad()
@pytest.mark.parametrize("variant", ["base", "norm_post", "parallel", "sub_norms", "layer_scale"])
def test_with_recomputed_mlps_every_path_is_that_of_two_runs(variant: str) -> None:
    model = model_of(variant, n_layers=3)
    clean, corrupt = pairs_of(model, 2)
    found = path_patching(model, clean, corrupt, feature_difference, mlps="recomputed", batch=5)
    senders, receivers = found.metadata["senders"], found.metadata["receivers"]
    chosen = [
        (s, r) for s in ("embed", "a0.h1", "m0", "a1.h2") for r in ("a1.h0.q", "a2.h2.v", "a2.h1.k", "m2", "logits")
    ]
    for sender, receiver in chosen:
        value = found.values[:, senders.index(sender), receivers.index(receiver)]
        if (sender, receiver) == ("a1.h2", "a1.h0.q"):
            expected = feature_difference(model(clean))  # no path
        else:
            expected = feature_difference(in_two_runs(model, clean, corrupt, sender, receiver))
        torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-10)
    with pytest.raises(PrismaError, match="expected mlps to be frozen or recomputed; found 'both'"):
        path_patching(model, clean, corrupt, feature_difference, mlps="both")


@pytest.mark.parametrize("batch", [1, 3, 1000])
def test_chunks_make_no_difference_and_a_metric_sees_all_pairs(batch: int) -> None:
    model = model_of("base")
    clean, corrupt = pairs_of(model, 4)
    metric = LogitDiff([0, 1, 2, 3], [4, 3, 0, 1])
    whole = path_patching(model, clean, corrupt, metric)
    parts = path_patching(model, clean, corrupt, metric, batch=batch)
    torch.testing.assert_close(parts.values, whole.values, rtol=1e-10, atol=1e-10)
    alone = path_patching(model, clean[1:2], corrupt[1:2], LogitDiff(1, 3))
    torch.testing.assert_close(whole.values[1:2], alone.values, rtol=1e-10, atol=1e-10)


def test_chosen_senders_and_whole_heads() -> None:
    model = model_of("base")
    clean, corrupt = pairs_of(model, 2)
    found = path_patching(
        model,
        clean,
        corrupt,
        feature_difference,
        senders=["m0", "embed", "m0"],
        receivers=["a1.h2", "logits", "a1.h2.k"],
    )
    sides = [[f"a1.h2.{side}" for side in "qkv"], ["logits"], ["a1.h2.k"]]
    expected = by_edges(model, clean, corrupt, sides)
    order = [names(Graph(model.config).senders).index(name) for name in ("m0", "embed", "m0")]
    torch.testing.assert_close(found.values, expected[:, order], rtol=1e-10, atol=1e-10)


def test_the_largest_changes_by_name_and_in_pictures() -> None:
    model = model_of("base")
    clean, corrupt = pairs_of(model, 2)
    found = path_patching(model, clean, corrupt, feature_difference)
    change = found.effect - found.clean.mean()
    (sender, receiver), largest = found.top(1)[0]
    at = found.metadata["senders"].index(sender), found.metadata["receivers"].index(receiver)
    assert largest == change[at].item() and abs(largest) == change.abs().max().item() and len(found.top(5)) == 5
    assert np.allclose(found.plot().axes[0].images[0].get_array(), change.numpy(), rtol=1e-12)
    assert found.plot("stderr").axes


def test_bad_input_is_refused() -> None:
    model = model_of("base")
    clean, corrupt = pairs_of(model, 2)
    with pytest.raises(PrismaError, match="pairs of one shape"):
        path_patching(model, clean, corrupt[:1], feature_difference)
    with pytest.raises(PrismaError, match=r"no sender 'a5\.h0'"):
        path_patching(model, clean, corrupt, feature_difference, senders=["a5.h0"])
    with pytest.raises(PrismaError, match=r"no receiver 'a0\.h0\.z'"):
        path_patching(model, clean, corrupt, feature_difference, receivers=["a0.h0.z"])
    with pytest.raises(PrismaError, match="found 0 senders"):
        path_patching(model, clean, corrupt, feature_difference, senders=[])
    with pytest.raises(PrismaError, match="expected into to be clean or corrupt; found 'both'"):
        path_patching(model, clean, corrupt, feature_difference, into="both")
    with pytest.raises(PrismaError, match="one number per image"):
        path_patching(model, clean, corrupt, lambda logits: logits)
    with pytest.raises(PrismaError, match="found a total effect of 0"):
        path_patching(model, clean, clean, feature_difference, senders=["embed"], receivers=["logits"]).normalised()
    with pytest.raises(PrismaError, match="expected images"):
        path_patching(model, images_of(model_of("video")), images_of(model_of("video")), feature_difference)
