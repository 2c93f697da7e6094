"""Checks of maps, on maps whose scores are known."""

import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor

from prisma import PrismaError, ViT
from prisma.analysis.attribution.attribute import attribute
from prisma.analysis.attribution.map_checks import (
    map_sanity,
    map_scores,
    map_sensitivity,
    rank_correlation,
    shuffled,
    stages_of,
)
from tests.variants import ANALYSED, images_of, model_of

COVERED = torch.tensor([[1.0, 0.75, 0.25, 0.0, 0.0, 0.0]])


def test_scores_of_known_maps() -> None:
    maps = torch.tensor([[3.0, 2.0, 1.0, 0.0, -1.0, -2.0], [0.0, 0.0, 0.0, 3.0, 1.0, -4.0], [1.0] * 6])
    found = map_scores(maps, COVERED.expand(3, -1))
    assert found.auroc.tolist() == [1, 1 / 3, 0.5]
    torch.testing.assert_close(found.mass, torch.tensor([(3 + 1.5 + 0.25) / 6, 0, 2 / 6]).double())
    torch.testing.assert_close(found.rank, torch.tensor([1, 0, 2 / 6]).double())  # of ties, the share
    nothing = map_scores(-torch.ones(1, 6), torch.zeros(1, 6))
    assert nothing.mass.isnan().all() and nothing.rank.isnan().all() and nothing.auroc.isnan().all()


@pytest.mark.parametrize("share", [0, 1])
def test_a_mask_of_nothing_or_everything_has_no_scores(share: int) -> None:
    found = map_scores(torch.tensor([[3.0, 2.0, -1.0]]), torch.full((1, 3), float(share)))
    assert all(x.isnan().all() for x in found.arrays.values())


def test_every_weight_is_in_a_part_that_is_shuffled() -> None:
    for variant in ANALYSED:
        model = model_of(variant)
        parts = tuple(f"{stage}." for stage in stages_of(model))
        assert all(name.startswith(parts) for name, _ in model.named_parameters()), variant


def test_rank_correlation_is_spearmans() -> None:
    x, y = torch.randn(2, 3, 20).round(decimals=1)  # with ties
    expected = torch.tensor([spearmanr(a, b).statistic for a, b in zip(x, y, strict=True)])
    torch.testing.assert_close(rank_correlation(x, y), expected.double())
    assert rank_correlation(torch.ones(1, 4), torch.randn(1, 4)).tolist() == [0]


def test_shuffling_keeps_the_numbers_and_the_model() -> None:
    model = model_of("base")
    before = model.state_dict()["blocks.1.mlp.out.weight"].clone()
    other = shuffled(model, ["blocks.1"], 0)
    assert torch.equal(model.state_dict()["blocks.1.mlp.out.weight"], before)
    moved = other.state_dict()["blocks.1.mlp.out.weight"]
    assert not torch.equal(moved, before) and torch.equal(moved.flatten().sort().values, before.flatten().sort().values)
    assert torch.equal(other.state_dict()["blocks.0.mlp.out.weight"], model.state_dict()["blocks.0.mlp.out.weight"])


def weights_map(model: ViT, images: Tensor) -> Tensor:
    """A map that depends on the weights of the readout alone."""
    return images[:, 0].flatten(1)[:, :6] * 0 + model.readout.head.weight.flatten()[:6]  # type: ignore[operator]


def test_sanity_says_which_weights_a_map_depends_on() -> None:
    model = model_of("base")
    images = images_of(model)
    found = map_sanity(model, images, weights_map)
    assert stages_of(model) == found.metadata["stages"] == ["readout", "blocks.1", "blocks.0", "embed"]
    assert (found.alone[:, 1:] == 1).all() and (found.alone[:, 0] < 0.9).all()
    assert torch.equal(found.cascade, found.alone[:, :1].expand(-1, 4)) and found.plot().axes
    blind = map_sanity(model, images, lambda model, images: images[:, 0].flatten(1))  # a filter of edges, say
    assert (blind.cascade == 1).all() and blind.plot("alone").axes


def test_ranks_of_shuffled_models_hold_in_single_precision() -> None:
    model = model_of("base")
    images = images_of(model)

    def explain(model: ViT, images: Tensor) -> Tensor:
        return attribute(model, images, 1, "cp_lrp").patches.flatten(1)

    exact, single = map_sanity(model, images, explain), map_sanity(model.float(), images.float(), explain)
    for name in ("cascade", "alone"):
        torch.testing.assert_close(single.arrays[name], exact.arrays[name])


def test_sensitivity_is_the_largest_relative_move() -> None:
    model = model_of("base")
    images = images_of(model)
    found = map_sensitivity(model, images, lambda model, x: 3 * x.flatten(1), radius=0.1, draws=50)
    least = (
        0.1 * images.flatten(1).std(1) * images[0].numel() ** 0.5 / 3**0.5 / images.flatten(1).norm(dim=1)
    )  # uniform noise
    assert ((found.per_image >= 3 * least / 3) & (found.per_image < 1.5 * least)).all()
    assert map_sensitivity(model, images, lambda model, x: torch.ones(2, 4)).effect == 0
    with pytest.raises(PrismaError, match=r"a radius above 0 and at least one draw; found 0\.0 and 4"):
        map_sensitivity(model, images, weights_map, radius=0)
