"""Two networks in one, whose lesions are known: each class has units of its own in both layers of its module."""

import pytest
import torch
from torch import Tensor, nn

from prisma.analysis.modularity.cluster_lesions import cluster_lesions_network
from prisma.analysis.modularity.lesions import Lesions, Sets
from prisma.analysis.modularity.modularity import Modularity, modularity
from prisma.analysis.modularity.weight_graph import weight_graph
from prisma.errors import PrismaError

CLASSES, EACH = 6, 4  # units of a layer for each class; the first half of the classes is one module


def two_modules() -> tuple[nn.Sequential, Tensor, Tensor]:
    """(a network, one image for each class, their classes): any unit that is left of a class answers for it."""
    network = nn.Sequential(
        nn.Linear(CLASSES, CLASSES * EACH), nn.ReLU(), nn.Linear(CLASSES * EACH, CLASSES * EACH), nn.ReLU(),
        nn.Linear(CLASSES * EACH, CLASSES),
    ).eval()  # fmt: skip
    copies = torch.eye(CLASSES).repeat_interleave(EACH, 0)
    weak = 0.01 * torch.block_diag(torch.ones(CLASSES // 2, CLASSES // 2), torch.ones(CLASSES // 2, CLASSES // 2))
    mixed = weak.repeat_interleave(EACH, 0).repeat_interleave(EACH, 1)
    with torch.no_grad():
        for x in network.parameters():
            x.zero_()
        network[0].weight.copy_(copies + weak.repeat_interleave(EACH, 0))
        network[2].weight.copy_(copies @ copies.T + mixed)
        network[4].weight.copy_((copies + weak.repeat_interleave(EACH, 0)).T)
    return network, torch.eye(CLASSES), torch.arange(CLASSES)


def test_modules_are_found_important_and_depend_on_their_own_other_half() -> None:
    network, images, labels = two_modules()
    found = modularity(weight_graph(network), 2, 5, shuffle="all")
    half = found.labels[:CLASSES].unique_consecutive()
    assert found.q == pytest.approx(0.5, abs=1e-6) and len(half) == 2
    lesions = cluster_lesions_network(network, images, labels, found, draws=39, pairs=True)
    assert lesions.metadata["layers"] == ["0", "2"] and lesions.size.tolist() == [CLASSES * EACH // 2] * 4
    lost = -0.5 * (1 - 1 / CLASSES)  # of a class without units all answers tie
    assert lesions.importance.tolist() == pytest.approx([lost] * 4)
    assert lesions.importance_p.tolist() == [1 / 40] * 4 and lesions.p_importance < 1e-3
    assert lesions.first is not None and lesions.second is not None and lesions.conditional is not None
    assert lesions.conditional_p is not None and lesions.interaction is not None and len(lesions.first) == 8
    for row, (a, b) in enumerate(zip(lesions.first.tolist(), lesions.second.tolist(), strict=True)):
        own = lesions.community[a] == lesions.community[b]
        assert lesions.conditional[row].item() == pytest.approx(0 if own else lost)
        assert lesions.interaction[row].item() == pytest.approx(-lost if own else 0)
        assert lesions.conditional_p[row].item() == (1 if own else 1 / 40)
    assert lesions.names["pair"][0] == "2, community 0 without 0, community 0"


def test_units_of_one_class_are_coherent_and_units_of_all_are_not() -> None:
    network, images, labels = two_modules()
    found = modularity(weight_graph(network), 2, 2)
    layers, width = found.layer, CLASSES * EACH
    for units, coherent in ((range(EACH), True), (range(0, width, EACH), False)):
        community = torch.ones(width, dtype=torch.int64)
        community[list(units)] = 0
        own = torch.full_like(found.labels, -1)
        own[layers == 1] = community
        some = Modularity(**{**vars(found), "labels": own})
        lesions = cluster_lesions_network(network, images, labels, some, draws=39)
        row = lesions.community.tolist().index(0)
        assert (lesions.coherence_p[row] < 0.05) == coherent
        assert lesions.coherence[row].item() == pytest.approx(CLASSES if coherent else 0)


def test_random_sets_are_of_units_with_edges() -> None:
    network, _, _ = two_modules()
    gone = [0, 7, 9, 20]
    with torch.no_grad():
        network[0].weight[gone] = 0  # type: ignore[index]
        network[2].weight[:, gone] = 0  # type: ignore[index]
    found = modularity(weight_graph(network), 2, 2)
    assert (found.labels[found.layer == 1][gone] == -1).all()
    sets = Sets.of(network, found, 30, 1, 0)
    own = [units for i, units in enumerate(sets.units) if sets.layers[i // sets.per_community] == 0]
    assert len(own) == 2 * 31 and {unit for units in own for unit in units} == set(range(CLASSES * EACH)) - set(gone)
    one = torch.where(found.labels == 1, 0, found.labels)  # a community that is all units with edges is the layer
    with pytest.raises(PrismaError, match="a community with at least 1 units of a layer, and not all 24; found none"):
        Sets.of(network, Modularity(**{**vars(found), "labels": one}), 2, 1, 0)


def test_a_lesion_is_a_network_with_these_weights_and_biases_at_zero() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 5, 2), nn.ReLU(), nn.Flatten(), nn.Linear(45, 3)
    ).eval()
    images, labels = torch.randn(20, 1, 6, 6), torch.arange(20) % 3
    lesions = Lesions(network, images, labels, Sets(["0", "3"], "", [[0]], [0], [0], [1]), batch=7)
    removed = [("0", [1, 4]), ("3", [0])]
    with torch.no_grad():
        got = lesions.right(removed)
        for name, units in removed:
            network.get_submodule(name).weight[units] = 0  # type: ignore[index]
            network.get_submodule(name).bias[units] = 0  # type: ignore[index]
        assert torch.equal(got, (network(images).argmax(1) == labels).to(got))


def test_what_cannot_be_removed_is_one_sentence() -> None:
    network, images, labels = two_modules()
    found = modularity(weight_graph(network), 2, 2)
    for changed, message in (
        ({"network": network.train()}, "found one in training: use .eval()"),
        ({"labels": labels.float()}, "the class of each as a whole number; found 6 images and labels"),
        ({"labels": labels + 1}, r"labels of its classes; found \[6, 6\] and labels 1 to 6"),
        ({"communities": modularity(weight_graph(nn.Linear(6, 6)), 2, 2)}, "a network's layers before the last"),
    ):
        told = {"network": network, "images": images, "labels": labels, "communities": found, **changed}
        with pytest.raises(PrismaError, match=message):
            cluster_lesions_network(**told, draws=2)  # type: ignore[arg-type]
        network.eval()
    other = nn.Sequential(nn.Linear(6, 3), nn.ReLU(), nn.Linear(3, 6)).eval()
    with pytest.raises(PrismaError, match="expected communities of this model; found a layer 0 of 24 units"):
        cluster_lesions_network(other, images, labels, found, draws=2)
    one = Modularity(**{**vars(found), "labels": torch.where(found.layer == 1, found.labels, -1)})
    with pytest.raises(PrismaError, match="expected communities in two layers or more for pairs; found them in one"):
        cluster_lesions_network(network, images, labels, one, draws=2, pairs=True)
