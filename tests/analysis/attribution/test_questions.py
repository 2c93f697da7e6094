"""What a map explains: against activations that are recorded, and against metrics that see their own images."""

import pytest
import torch

from prisma import KL, Logit, LogitDiff, PrismaError, Probability, Rank, Similarity, record
from prisma.analysis.attribution.questions import (
    Neuron,
    as_target,
    name_of,
    neuron_of,
    of_one,
    values_of_logits,
    values_of_pixels,
)
from prisma.metrics import Metric
from tests.variants import images_of, model_of


@pytest.mark.parametrize(
    ("neuron", "read"),
    [
        (Neuron("blocks.1.mlp.post", 3, token=2), lambda x: x[:, 2, 3]),
        (Neuron("blocks.0.resid_post", 5), lambda x: x[:, 0, 5]),
        (Neuron("blocks.1.hook_resid_post", 5, token=None), lambda x: x[..., 5].mean(1)),
        (Neuron("blocks.0.attn.z", 1, token=4, head=2), lambda x: x[:, 4, 2, 1]),
        (Neuron("pooled", 4), lambda x: x[:, 4]),
    ],
)
def test_a_neuron_is_a_number_of_its_site(neuron: Neuron, read: object) -> None:
    model = model_of("base")
    images = images_of(model, n=3)
    expected = read(record(model, images, neuron.site)[1][neuron.site])  # type: ignore[operator]
    found = values_of_pixels(model, as_target(model, neuron, None), images, torch.arange(3), 3)
    torch.testing.assert_close(found, expected)
    assert name_of(neuron).startswith("Neuron(site='")


def test_each_row_is_measured_as_its_own_image() -> None:
    """Rows of one image, in any order and number, are shown to a metric in the place of that image."""
    logits = torch.randn(7, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rows = torch.tensor([2, 0, 2, 1, 2, 0, 2])
    classes, other = torch.tensor([3, 1, 0]), torch.randn(3, 4, dtype=torch.float64)
    torch.testing.assert_close(
        values_of_logits(Logit(classes), logits, rows, 3), logits.gather(1, classes[rows, None])[:, 0]
    )
    expected = KL(other[rows])(logits)
    torch.testing.assert_close(values_of_logits(KL(other), logits, rows, 3), expected)


@pytest.mark.parametrize(
    "metric",
    [Logit([1, 2]), LogitDiff([1, 2], 0), Probability(1), Rank([0, 3]), KL(torch.eye(4)[:2].double()),
     KL(torch.eye(4)[:1].double()), Similarity(torch.eye(4)[:2].double()), Similarity(torch.ones(4).double())],
)  # fmt: skip
def test_many_runs_of_one_image_are_measured_at_once(metric: Metric) -> None:
    logits = torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    one_by_one = torch.stack([metric(torch.stack([logits[0], row]))[1] for row in logits])
    torch.testing.assert_close(values_of_logits(metric, logits, torch.ones(6).long(), 2), one_by_one)
    assert of_one(metric, 1) is not None and of_one(lambda x: x[:, 0], 0) is None
    assert of_one(LogitDiff([1, 2], [0, 2]), 1) is None  # which would refuse two classes that are the same


def test_classes_and_the_predicted_class_are_logits() -> None:
    model = model_of("base")
    assert as_target(model, 3, None) == Logit(3)
    assert as_target(model, [1, 2], None) == Logit([1, 2])
    assert as_target(model, None, torch.tensor([[0.0, 1.0], [2.0, 1.0]])) == Logit([1, 0])
    assert as_target(model, LogitDiff(0, 1), None) == LogitDiff(0, 1)


def test_bad_targets_are_refused() -> None:
    model = model_of("base")
    images, rows = images_of(model), torch.arange(2)
    with pytest.raises(PrismaError, match=r"no site of this model matches 'blocks.9.mlp.post'"):
        as_target(model, Neuron("blocks.9.mlp.post", 0), None)
    with pytest.raises(PrismaError, match=r"expected a d_mlp of blocks.0.mlp.post below 10; found 10"):
        values_of_pixels(model, Neuron("blocks.0.mlp.post", 10), images, rows, 2)
    with pytest.raises(PrismaError, match="expected a site of features, and a head where it has heads"):
        values_of_pixels(model, Neuron("blocks.0.attn.z", 1), images, rows, 2)
    with pytest.raises(PrismaError, match="n_classes=0: give a target"):
        as_target(model_of("no_head"), None, torch.zeros(1, 12))


def test_a_neuron_is_read_from_text() -> None:
    assert neuron_of("blocks.1.mlp.post:17") == Neuron("blocks.1.mlp.post", 17)
    assert neuron_of("blocks.1.attn.z:3,head=2,token=mean") == Neuron("blocks.1.attn.z", 3, token=None, head=2)
    assert neuron_of("blocks.1.resid_post:3,token=-1") == Neuron("blocks.1.resid_post", 3, token=-1)
    for text in (
        "blocks.1.mlp.post",
        "blocks.1.mlp.post:x",
        "blocks.1.mlp.post:1,place=3",
        "a:1,head=mean",
        "a:1,token",
    ):
        with pytest.raises(PrismaError, match="expected a neuron as SITE:INDEX"):
            neuron_of(text)
