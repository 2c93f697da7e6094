"""Relevance: how much each embedded token supports the answer, by attention weighted with its gradient.

    R_0 = I,   R_l = R_{l-1} + mean_heads relu(dmetric/dA_l * A_l) R_{l-1}

In divided attention, time and space are two layers. In attention pooling, the pooling query is not a token, and its row
is mean_heads relu(dmetric/dA * A) R.

Source: Chefer et al. 2103.15679 (the rules for self-attention and for co-attention); it follows 2012.09838.

Shapes: B image, Q query, K key, H head, C class.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from prisma.analysis.attention.token_grid import image_passes
from prisma.analysis.attention.token_maps import READOUTS, TokenMaps, head_mean, over_patches, readout_row
from prisma.analysis.border import guarded, record
from prisma.batching import metric_gradient
from prisma.errors import PrismaError
from prisma.inventory import site_names
from prisma.metrics import Logit, Metric
from prisma.runs import run
from prisma.slope import expect_slope
from prisma.vit import ViT


@dataclass(frozen=True, kw_only=True, eq=False)
class Relevance(TokenMaps):
    """How much each embedded token supports the metric, through attention.

    Relevances are at least 0 and have no unit: compare tokens within an image, not images with each other. The diagonal
    of `map` includes 1 for the residual stream, which carries every token to itself.
    """


@guarded
def relevance(model: ViT, images: Tensor, metric: Metric | None = None, *, batch: int | None = None) -> Relevance:
    """Which parts of the image support this answer?

    `patches` is a map over the image for one class (or any metric): a large number is a patch whose attention raises
    the metric, 0 is a patch without such influence. Attention that lowers the metric is dropped (relu), so there are no
    negative numbers.

    Works under `torch.no_grad()` and with frozen weights, and leaves no gradients on the model. Two forwards and one
    backward.

    Args:
        images: [image, channel, (frame,) height, width].
        metric: logits [image, class] -> one number per image, such as `Logit(target)`; by default the logit of each
            image's predicted class. It is given the logits of all images at once.
        batch: images in one pass; by default as many as have patterns of about 64 MiB, since gradients take the
            patterns' memory about four times.

    Returns:
        `map` [image, query, key], `readout` [image, key], `patches` [image, (time,) row, column].

    Raises:
        PrismaError: the images do not fit the model, the model has no classes and no metric is given, or the metric is
            not one finite number per image, has no gradient, or has a gradient of zero at the images' own logits
            although it changes with the logits, such as KL to this very run: every relevance would be zero.

    Source: Chefer et al. 2103.15679.
    """
    if metric is None and not model.config.n_classes:
        raise PrismaError(
            "relevance for the predicted class needs a model with classes; found n_classes=0: give a metric"
        )
    with torch.inference_mode(False):
        gradient_BC = _metric_gradient(model, images, metric, batch)
        rows = image_passes(model, torch.arange(len(images), device=images.device), batch, copies=4)
        parts = [_propagated(model, images[some], gradient_BC[some]) for some in rows]
    map_BQK, readout_BK = (torch.cat(part) for part in zip(*parts, strict=True))
    name = "predicted class" if metric is None else getattr(metric, "__name__", type(metric).__name__)
    metadata = {"analysis": "relevance", "metric": name, "readout": READOUTS[model.config.pool]}
    return Relevance(metadata=metadata, patches=over_patches(model.config, readout_BK), readout=readout_BK, map=map_BQK)


def _metric_gradient(model: ViT, images: Tensor, metric: Metric | None, batch: int | None) -> Tensor:
    """Gradient of the metric by the logits, [image, class]: the metric may need all images, a pass has a few."""
    with torch.no_grad():
        logits_BC = torch.cat([run(model, some) for some in image_passes(model, images, batch)])
    metric = Logit(logits_BC.argmax(-1)) if metric is None else metric
    value_B, gradient_BC = metric_gradient(metric, logits_BC, slice(None), len(images))
    other_BC = logits_BC.roll(1, dims=1)  # another answer, as far from this one as its classes are from each other
    reach_B = gradient_BC.norm(dim=1) * (other_BC - logits_BC).norm(dim=1)
    remedy = "use a metric that changes at this run, such as Logit, LogitDiff or KL to the run of another image"
    expect_slope(metric, reach_B, metric(other_BC) - value_B, remedy)
    return gradient_BC


def _propagated(model: ViT, images: Tensor, gradient_BC: Tensor) -> tuple[Tensor, Tensor]:
    """`map` [image, query, key] and `readout` [image, key]."""
    config = model.config
    sites = [site for site in site_names(config) if site.endswith(".pattern")]
    with torch.enable_grad():
        leaf = (
            images.detach().clone().requires_grad_()
        )  # so that patterns have gradients even when all weights are frozen
        logits_BC, acts = record(model, leaf, sites)
        patterns = list(acts.values())
        gradients = torch.autograd.grad(logits_BC, patterns, gradient_BC) if patterns else ()
    weighted = {
        site: (gradient_BHQK * pattern_BHQK).detach().relu()
        for site, pattern_BHQK, gradient_BHQK in zip(acts, patterns, gradients, strict=True)
    }
    exact = torch.promote_types(logits_BC.dtype, torch.float32)  # as patterns are
    map_BQK = torch.eye(config.n_tokens, dtype=exact, device=images.device).repeat(len(images), 1, 1)
    for site in (site for site in sites if site != "pool.pattern"):
        step_BQK = head_mean(weighted[site])
        tokens = slice(config.n_tokens - step_BQK.shape[-1], None)  # attention over time reads patches alone
        map_BQK[:, tokens] = map_BQK[:, tokens] + step_BQK @ map_BQK[:, tokens]
    return map_BQK, readout_row(config, weighted.get("pool.pattern"), map_BQK)
