"""A linear map of features, against least squares with rows added for the penalty."""

import torch

from prisma.config import ViTConfig
from prisma.data import task
from prisma.train.initial import initial_model
from prisma.train.linear_probe import linear_probe, ridge_map


def test_the_map_is_least_squares_with_a_penalty_on_all_but_the_bias() -> None:
    x, labels, ridge = torch.randn(50, 4, dtype=torch.float64) + 2, torch.randint(3, (50,)), 0.3
    rows = torch.cat([x, torch.ones(50, 1, dtype=torch.float64)], 1)
    penalty = torch.eye(5, dtype=torch.float64)[:4] * (50 * ridge) ** 0.5
    wanted = torch.cat([torch.nn.functional.one_hot(labels, 3).double(), torch.zeros(4, 3, dtype=torch.float64)])
    expected = torch.linalg.lstsq(torch.cat([rows, penalty]), wanted).solution
    torch.testing.assert_close(ridge_map(x, labels, 3, ridge), expected)


def test_pixels_tell_most_digits_and_a_model_of_one_number_few() -> None:
    digits = task("digits")
    pixels = linear_probe(None, digits)
    assert 0.9 < pixels.accuracy < 0.97 and pixels.n == 360
    narrow = ViTConfig(
        image_size=8, patch_size=8, channels=1, n_layers=1, d_model=1, n_heads=1, d_mlp=1, n_classes=0, norm="none"
    )
    assert linear_probe(initial_model(narrow, 0), digits, images=500).accuracy < 0.4
