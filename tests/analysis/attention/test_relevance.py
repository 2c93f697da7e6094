"""Relevance against a twin that takes gradients image by image and multiplies head by head."""

import pytest
import torch
from torch import Tensor

from prisma import PrismaError, ViT
from prisma.analysis.attention.relevance import relevance
from prisma.metrics import KL, Logit, LogitDiff, Rank, Similarity
from prisma.runs import record
from tests.planted_heads import planted
from tests.variants import WITH_CLASSES, images_of, model_of


def twin(model: ViT, image: Tensor, target: int) -> tuple[Tensor, Tensor]:
    """Map [query, key] and readout [key] of one image, by a backward pass of its target's logit."""
    c = model.config
    logits, acts = record(model, image[None], ["*"])
    patterns = {site: x for site, x in acts.items() if site.endswith(".pattern")}
    for pattern in patterns.values():
        pattern.retain_grad()
    logits[0, target].backward()
    model.zero_grad()
    flow, rows = torch.eye(c.n_tokens, dtype=torch.float64), {}
    for site, pattern in patterns.items():
        assert pattern.grad is not None
        useful = torch.zeros(pattern.shape[2:], dtype=torch.float64)
        for head in range(pattern.shape[1]):
            product = pattern[0, head] * pattern.grad[0, head]
            useful += torch.where(product > 0, product, 0).detach() / pattern.shape[1]
        rows[site] = useful
        if site != "pool.pattern":
            step = torch.zeros_like(flow)
            step[c.n_tokens - len(useful) :, c.n_tokens - len(useful) :] = useful
            flow = flow + step @ flow
    if c.pool == "attention":
        row = rows["pool.pattern"][0]
        return flow, row @ flow[c.n_tokens - len(row) :]
    mean = flow[0 if c.pool_prefix else c.n_prefix :].mean(0)
    both = {"class": flow[0], "mean": mean, "class_mean": (flow[0] + mean) / 2, "distilled": flow[:2].mean(0)}
    return flow, both[c.pool]


@pytest.mark.parametrize("variant", WITH_CLASSES)
def test_it_is_what_the_twin_finds(variant: str) -> None:
    model = model_of(variant)
    images, targets = images_of(model, n=3), [2, 0, 4]
    found = relevance(model, images, Logit(targets), batch=2)
    assert found.map is not None
    for i, target in enumerate(targets):
        flow, row = twin(model, images[i], target)
        torch.testing.assert_close(found.map[i], flow, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(found.readout[i], row, rtol=1e-10, atol=1e-10)
    assert not found.readout.requires_grad


def test_the_default_is_the_predicted_class() -> None:
    model = model_of("base")
    images = images_of(model, n=3)
    expected = relevance(model, images, Logit(model(images).argmax(-1)))
    assert torch.equal(relevance(model, images).readout, expected.readout)
    assert relevance(model, images).metadata["metric"] == "predicted class"


def test_it_needs_no_gradients_of_the_caller_and_leaves_none() -> None:
    model = model_of("base")
    images = images_of(model)
    expected = relevance(model, images).readout
    model.requires_grad_(False)
    assert torch.equal(relevance(model, images).readout, expected)
    with torch.no_grad():
        assert torch.equal(relevance(model, images).readout, expected)
    with torch.inference_mode():
        assert torch.equal(relevance(model, images.clone()).readout, expected)
    model.requires_grad_(True)
    relevance(model, images)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not images.requires_grad


def test_the_metric_sees_all_images_at_once() -> None:
    model = model_of("pool_mean")
    images = images_of(model, n=3)
    metrics = [LogitDiff([0, 1, 2], [1, 2, 3]), KL(model(images).detach().roll(1, 0))]
    for metric in metrics:
        whole, pieces = (relevance(model, images, metric, batch=batch).readout for batch in (3, 1))
        torch.testing.assert_close(whole, pieces, rtol=1e-10, atol=1e-10)


def test_a_model_without_classes_has_relevance_for_a_direction() -> None:
    model = model_of("no_head")
    images = images_of(model)
    direction = torch.randn(12, dtype=torch.float64)
    assert relevance(model, images, Similarity(direction)).readout.max() > 0
    with pytest.raises(PrismaError, match="n_classes=0: give a metric"):
        relevance(model, images)


def test_only_the_patch_that_speaks_for_the_class_is_relevant() -> None:
    """A head gives half of the class token's attention to two patches each, and only the first has a value."""
    look = torch.eye(10)
    look[0] = torch.tensor([0, 0.5, 0, 0.5] + [0] * 6)
    model = planted({(0, 1): look}, image_size=3, n_layers=1)
    with torch.no_grad():
        attention = model.blocks[0].get_submodule("attn")
        attention.qkv.weight.view(3, 3, 10, 10)[2, 1, 0, 1] = 1.0  # its value, in the first number of the head
        attention.out.weight.view(10, 3, 10)[0, 1, 0] = 1.0
        model.readout.head.weight[1, 0] = 1.0
    images = torch.zeros(1, 1, 3, 3, dtype=torch.float64)
    patches = relevance(model, images, Logit(1)).patches[0].flatten()
    torch.testing.assert_close(patches, torch.tensor([0.5 / 3] + [0] * 8, dtype=torch.float64))
    assert relevance(model, images, Logit(0)).patches.abs().max() == 0


def test_a_metric_without_a_slope_at_this_run_is_refused() -> None:
    model = model_of("base")
    images = images_of(model, n=3)
    own = model(images).detach()
    with pytest.raises(PrismaError, match=r"found KL, with a gradient of zero for 3 of 3 images.*use a metric that"):
        relevance(model, images, KL(own))
    with pytest.raises(PrismaError, match="found Similarity, with a gradient of zero for 3 of 3 images"):
        relevance(model, images, Similarity(own))
    with pytest.warns(UserWarning, match=r"for 1 of 3 images \(the first is 2\)"):
        relevance(model, images, KL(torch.cat([own[[1, 0]], own[2:]])))
    assert relevance(model, images, lambda logits: 1e-9 * logits[:, 0]).readout.isfinite().all()


def test_bad_input_is_refused() -> None:
    model = model_of("base")
    images = images_of(model)
    with pytest.raises(PrismaError, match="a metric that has a gradient; found Rank"):
        relevance(model, images, Rank(0))
    with pytest.raises(PrismaError, match="expected a class from 0 to 4; found 7"):
        relevance(model, images, Logit(7))
    with pytest.raises(PrismaError, match="one number per image"):
        relevance(model, images, lambda logits: logits)
    with pytest.raises(PrismaError, match="expected batch to be at least 1; found 0"):
        relevance(model, images, batch=0)
