"""The table of methods: what each is told, and what the players' numbers become."""

import pytest
import torch
from torch import Tensor

from prisma import PrismaError
from prisma.analysis.attribution.methods import METHODS, Plan, method_named


class Sizes:
    """A game of two images with a class token: 10 times the number of present patches, and the image."""

    images, n_prefix, n_patches = torch.zeros(2, 1), 1, 4

    def of_coalitions(self, image: int, present_KP: Tensor) -> Tensor:
        return 10.0 * present_KP.sum(1) + image


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.removes])
def test_a_segment_shares_its_number_among_its_patches(name: str) -> None:
    pairs = torch.tensor([[True, False, False, True], [False, True, True, False]])
    map_BT, change = METHODS[name].run(Sizes(), Plan(100, [pairs, pairs], 0, None))
    assert map_BT.shape == (2, 5) and not map_BT[:, 0].any()
    assert torch.equal(map_BT[:, 1], map_BT[:, 4]) and torch.equal(map_BT[:, 2], map_BT[:, 3])
    if change is not None:
        torch.testing.assert_close(map_BT[:, 1:].float(), torch.full((2, 4), 10.0))
        assert change.tolist() == [40, 40]


def test_each_method_says_what_it_does_and_another_is_refused() -> None:
    assert all(method.summary[0].islower() or method.summary.startswith("Shapley") for method in METHODS.values())
    with pytest.raises(PrismaError, match="found 'shap'; the nearest"):
        method_named("shap")
