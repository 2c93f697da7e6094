"""Pairs and metrics do not depend on how the data set is divided into shards."""

from typing import Any

import pytest
import torch

from prisma import LogitDiff, PrismaError
from prisma.analysis.patching.corruptions import CORRUPTIONS, blur, gaussian_noise, mask_object, mean_image, other_image
from prisma.metrics import Logit, Probability
from tests.study.study import inputs_of


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corrupt_image_does_not_depend_on_the_shard(name: str) -> None:
    whole = inputs_of(corrupt=name).corrupt
    parts = [inputs_of(rows=rows, corrupt=name).corrupt for rows in (range(2), range(2, 3), range(3, 5))]
    assert torch.equal(torch.cat(parts), whole)
    assert not (whole == inputs_of().images).flatten(1).all(1).any()


def test_each_name_selects_its_corruption() -> None:
    images, masks = inputs_of().images, inputs_of().pictures.masks
    assert torch.equal(inputs_of(corrupt="other").corrupt, other_image(images))
    assert torch.equal(inputs_of(corrupt="mean").corrupt, mean_image(images))
    assert torch.equal(inputs_of(corrupt="object").corrupt, mask_object(images, masks))
    assert torch.allclose(inputs_of(corrupt="blur", sigma=1.0).corrupt, blur(images, sigma=1.0), rtol=1e-12)
    noisy = [gaussian_noise(images[i : i + 1], sigma=2.0, seed=7 + i) for i in range(5)]
    assert torch.equal(inputs_of(corrupt="noise", sigma=2.0, seed=7).corrupt, torch.cat(noisy))


def test_swapped_images_follow_the_seed() -> None:
    first, again, other = (inputs_of(corrupt="swap", seed=seed).corrupt for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_the_default_target_is_the_predicted_class() -> None:
    inputs = inputs_of()
    logits = inputs.model(inputs.images)
    best, second = logits.topk(2).indices.unbind(1)
    assert inputs_of(metric="logit").metric == Logit(best)
    assert inputs_of(metric="probability").metric == Probability(best)
    assert inputs_of(metric="logit_diff").metric == LogitDiff(best, second)
    assert inputs_of(metric="logit", target=3).metric == Logit([3] * 5)
    of_target = inputs_of(metric="logit_diff", target=3).metric
    rest = torch.where(torch.arange(5) == 3, -torch.inf, logits)
    assert of_target == LogitDiff([3] * 5, rest.argmax(1))


def test_masks_and_following_images_may_be_absent() -> None:
    assert inputs_of(masks=False).object_coverage_or_none is None
    assert inputs_of().object_coverage.shape == (5, 3, 3)
    others = inputs_of(rows=range(3, 5)).following_images
    assert others is not None and torch.equal(others, inputs_of().images[:2])
    assert inputs_of().following_images is None


@pytest.mark.parametrize(
    ("options", "asked", "sentence"),
    [
        ({"corrupt": "fog"}, "corrupt", "expected a corruption: noise, .*found 'fog'"),
        (
            {"corrupt": "mean", "sigma": 1.0},
            "corrupt",
            "expected sigma only with noise or blur; found sigma=1.0 with mean",
        ),
        ({"n": 1}, "corrupt", "expected 2 images or more, .*; found 1"),
        ({"corrupt": "object", "masks": False}, "corrupt", "pictures without masks"),
        ({"masks": False}, "object_coverage", "pictures without masks"),
        ({"metric": "loss"}, "metric", "expected a metric among logit, .*found 'loss'"),
        ({"target": 5}, "metric", "expected a class from 0 to 4; found 5"),
        ({"variant": "no_head"}, "metric", "expected a model with classes, .*; found none; for a CLIP, use --prompts"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], asked: str, sentence: str) -> None:
    with pytest.raises(PrismaError, match=sentence):
        getattr(inputs_of(**options), asked)
