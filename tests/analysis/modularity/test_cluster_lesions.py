"""Lesions of communities: against whole runs with edits, with planted communities, and with random ones."""

from dataclasses import replace

import pytest
import torch
from scipy.stats import combine_pvalues
from torch import Tensor

import prisma
from prisma.analysis.modularity.cluster_lesions import ClusterLesions, cluster_lesions
from prisma.analysis.modularity.modularity import Modularity, modularity
from prisma.analysis.modularity.weight_graph import weight_graph
from prisma.data import task
from prisma.errors import PrismaError
from tests.variants import images_of, model_of


@pytest.fixture(scope="module")
def digits() -> tuple[prisma.ViT, Tensor, Tensor]:
    return (prisma.load("mice/digits").model, *task("digits").inputs("test", 150))


@pytest.fixture(scope="module")
def communities(digits: tuple[prisma.ViT, Tensor, Tensor]) -> Modularity:
    return modularity(weight_graph(digits[0], "blocks.1.mlp"), 3, 2)


def of_units(found: Modularity, units: Tensor) -> Modularity:
    """Communities of the neurons of block 0: those given are 0, the others 1."""
    labels = torch.full_like(found.labels, -1)
    own = torch.ones(128, dtype=torch.int64)
    own[units] = 0
    labels[found.layer == 1] = own
    names = [name.replace("blocks.1", "blocks.0") for name in found.metadata["layers"]]
    return replace(found, labels=labels, metadata={**found.metadata, "layers": names})


def test_a_lesion_is_a_run_with_these_neurons_at_zero(
    digits: tuple[prisma.ViT, Tensor, Tensor], communities: Modularity
) -> None:
    model, images, labels = digits
    found = cluster_lesions(model, images, labels, communities, draws=2)
    assert found.layer.tolist() == [1] * len(found.size) and found.size.sum().item() == 128
    clean = prisma.run(model, images).argmax(-1) == labels
    for row, community in enumerate(found.community.tolist()):
        units = (communities.labels[communities.layer == 1] == community).nonzero()[:, 0].tolist()
        assert len(units) == found.size[row]
        edited = prisma.run(model, images, {"blocks.1.mlp.post": prisma.Zero().at(d_mlp=units)}).argmax(-1) == labels
        changes = (edited.double() - clean.double()).detach()
        expected = torch.stack([changes[labels == c].mean() for c in range(10)])
        assert torch.allclose(found.changes[row], expected)
        assert found.importance[row].item() == pytest.approx(expected.mean().item())
        spread = expected.max() - expected.min()
        if expected.mean().abs() > 1e-9:
            assert found.coherence[row].item() == pytest.approx((spread / expected.mean().abs()).item())


def test_neurons_that_matter_are_important_and_random_ones_are_not(
    digits: tuple[prisma.ViT, Tensor, Tensor], communities: Modularity
) -> None:
    model, images, labels = digits
    rows = torch.arange(len(labels))
    alone = prisma.ablation(model, images, "mlp.post", lambda logits: -logits[rows, labels], axis="d_mlp")
    first = alone.effect[0].argsort(descending=True)[:40]
    found = cluster_lesions(model, images, labels, of_units(communities, first), draws=19)
    assert found.size.tolist() == [40, 88] and found.importance_p[0].item() == 1 / 20 and found.importance[0] < -0.01
    chance = of_units(communities, torch.randperm(128, generator=torch.Generator().manual_seed(1))[:40])
    assert cluster_lesions(model, images, labels, chance, draws=19).importance_p[0] > 0.05


def test_heads_and_neurons_of_all_layers_and_what_is_left_out(digits: tuple[prisma.ViT, Tensor, Tensor]) -> None:
    model, images, labels = digits
    heads = modularity(weight_graph(model), 2, 2)
    found = cluster_lesions(model, images[:40], labels[:40], heads, draws=3)
    assert found.metadata["site"] == "attn.z" and set(found.layer.tolist()) <= {0, 1} and (found.size < 4).all()
    stream = modularity(weight_graph(model, "stream"), 2, 2)
    both = cluster_lesions(model, images[:40], labels[:40], stream, draws=3, smallest=5)
    assert both.metadata["site"] == "mlp.post" and set(both.layer.tolist()) == {0, 1} and (both.size >= 5).all()
    assert both.names["set"][0] == f"block 0, community {both.community[0]}"


def test_p_values_are_combined_by_fisher(digits: tuple[prisma.ViT, Tensor, Tensor], communities: Modularity) -> None:
    found = cluster_lesions(*digits, communities, draws=4)
    r = (found.random_importance <= found.importance[:, None] + 1e-9).sum(1)
    assert torch.equal(found.importance_p, (r + 1).double() / 5)
    assert found.p_importance == pytest.approx(combine_pvalues(found.importance_p.numpy()).pvalue)
    assert found.p_coherence == pytest.approx(combine_pvalues(found.coherence_p.numpy()).pvalue)
    assert isinstance(found, ClusterLesions) and found.plot("importance").axes


def test_a_class_without_images_is_left_out() -> None:
    model = model_of("base")
    found = cluster_lesions(
        model, images_of(model, 4), torch.tensor([0, 1, 0, 1]), modularity(weight_graph(model, "stream"), 2, 2), draws=2
    )
    assert found.changes[:, 2:].isnan().all() and found.changes[:, :2].isfinite().all()


def test_communities_of_another_model_or_of_none_are_one_sentence(
    digits: tuple[prisma.ViT, Tensor, Tensor], communities: Modularity
) -> None:
    model, images, labels = digits
    other, rows = model_of("base"), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(
        PrismaError, match=r"expected communities of this model; found a layer blocks.1.mlp.post of 128"
    ):
        cluster_lesions(other, images_of(other, 2), rows, communities)
    with pytest.raises(PrismaError, match=r"expected communities of units of mlp.post or attn.z; found those of nodes"):
        cluster_lesions(model, images, labels, modularity(torch.ones(6, 6), 2, 2))
    whole = replace(communities, labels=torch.zeros_like(communities.labels))
    with pytest.raises(PrismaError, match="a community with at least 1 units of a layer, and not all 128; found none"):
        cluster_lesions(model, images, labels, whole)
    with pytest.raises(PrismaError, match="expected at least 2 draws, and smallest at least 1; found 1 and 1"):
        cluster_lesions(model, images, labels, communities, draws=1)
    with pytest.raises(PrismaError, match=r"expected communities as `modularity` returns them; found a torch.Tensor"):
        cluster_lesions(model, images, labels, communities.labels)  # type: ignore[arg-type]
    with pytest.raises(PrismaError, match=r"expected a label for each of 150 images; found \[3\]"):
        cluster_lesions(model, images, labels[:3], communities)
