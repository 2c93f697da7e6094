"""What a checkpoint's line of `metrics.jsonl` says beside loss and accuracy: when does a behaviour appear?

`weight_norm` is the root of the sum of the squares of all weights. `gradient_norm` is the same of the gradient of the
loss on the batch of the step, before it is clipped. `heads` has a table [layer][head] for each score of `KEPT` that the
model and the probe images allow: the mean over the probe images, which are the same at every checkpoint.

Which scores a task has follows from its images: `object` where the task has masks, `induction` where two patches of an
image show the same (`CONTENT`; elsewhere: have the same pixels), `class_token` where the model has one.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from prisma.analysis.attention.head_scores import head_scores, pixel_content
from prisma.analysis.attention.score_functions import ENTROPY, SCORES, Score, ScoreContext
from prisma.analysis.attention.token_grid import TokenGrid, uniform_attention
from prisma.config import ViTConfig
from prisma.data import task
from prisma.data.induction import GAP
from prisma.data.task import Split, coverage
from prisma.run_folder import HEADS, WEIGHT_NORM
from prisma.train.probe import probe_images
from prisma.vit import ViT

KEPT: Mapping[str, Score] = {
    "entropy": ENTROPY,
    **{name: SCORES[name] for name in ("class_token", "corner", "edge", "object", "induction")},
}
"""The scores of heads that a run keeps at every checkpoint. Entropy is in bits, the others are shares of attention."""


def _glyphs(probe: Split, config: ViTConfig) -> Tensor:
    """Which glyph each patch shows: 1 and up in the patches that hold the centres of the two, 0 elsewhere."""
    (_, rows, columns), (p, q), side_by_side = config.grid, config.patch_sides, probe.factors["orientation"]
    content = torch.zeros(len(probe.labels), rows, columns, dtype=torch.long)
    for name, beyond in (("first", 0), ("second", GAP)):
        row = (probe.factors["row"] + beyond * (1 - side_by_side)).clamp(max=rows * p - 1) // p
        column = (probe.factors["column"] + beyond * side_by_side).clamp(max=columns * q - 1) // q
        content[torch.arange(len(content)), row, column] = probe.factors[name] + 1
    return content.flatten(1)


CONTENT: Mapping[str, Callable[[Split, ViTConfig], Tensor]] = {"induction": _glyphs}
"""Task -> what each patch of the probe images shows, [image, patch], where that is more than its pixels."""
DIGITS = 6  # after the point, of a score in a file


@dataclass(frozen=True)
class Probed:
    """The probe images as the scores need them."""

    images: Tensor  # normalised, on the device of the run
    scores: Mapping[str, Score]  # those that the model and the images allow
    masks: Tensor | None  # share of each patch that the object covers, [image, row, column]
    content: Tensor  # [image, patch]: equal numbers are patches that look the same


@lru_cache(maxsize=2)
def probed(name: str, config: ViTConfig, device: str) -> Probed:
    """The probe images of a task, for models of one architecture."""
    data = task(name)
    probe = probe_images(data.splits["test"])
    images = data.transform.normalise(probe.images).to(device)
    covered, known = _covered(probe, config), CONTENT.get(name)
    content = pixel_content(config, images) if known is None else known(probe, config).to(device)
    context = ScoreContext(
        keys=TokenGrid.of(config),
        uniform=uniform_attention(config).to(device),
        queries=torch.ones(config.n_tokens, dtype=torch.bool, device=device),
        coverage=None if covered is None else covered.flatten(1).to(device),
        content=content,
    )
    allowed = {name: score for name, score in KEPT.items() if not score.missing(context)}
    with_keys = {name: score for name, score in allowed.items() if score.chance(context).isfinite().any()}
    return Probed(images, with_keys if config.n_layers else {}, covered, content)


def weights_and_heads(model: ViT, of: Probed) -> dict[str, Any]:
    """`weight_norm` and `heads` of the present weights.

    Raises:
        PrismaError: weights are NaN or infinite, or the model's run on the probe images is.
    """
    norms = torch.stack([parameter.detach().norm(dtype=torch.float64) for parameter in model.parameters()])
    found: dict[str, Any] = {WEIGHT_NORM: norms.norm().item(), HEADS: {}}
    if of.scores:
        images = of.images.to(next(model.parameters()).dtype)
        scored = head_scores(model, images, of.scores, masks=of.masks, content=of.content)
        tables = scored.mean.double().tolist()
        found[HEADS] = {
            name: [[round(x, DIGITS) for x in heads] for heads in layers]
            for name, layers in zip(scored.names["score"], tables, strict=True)
        }
    return found


def _covered(probe: Split, config: ViTConfig) -> Tensor | None:
    """The share of each patch that the object covers; None without masks, or where patches leave a margin."""
    sides = zip(config.image_sides, config.patch_sides, strict=True)
    if probe.masks is None or probe.masks.ndim != 3 or config.frames > 1 or any(side % p for side, p in sides):
        return None
    return coverage(probe.masks, config.patch_sides)
