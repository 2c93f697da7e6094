"""Importance: would the class token know more of a class in a block, if it attended more to a token?

    o = attn_out of block l at the class token,   z = head(ln_final(o)),   importance[l, h, j] = df(z) / da[l, h, j]

a[l, h, j] is the weight of head h of block l from the class token to token j. f is the logit of the class, or its
log-probability, minus the cross-entropy of z. Only the path inside the block counts: from a through that block's own
values and output, into a readout of its output alone.

Source: Vilas et al. 2310.18969, without the second softmax of its code, which shrinks gradients about ten times.

Shapes: B image, H head, T token (as key), M d_model, C class.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from prisma.analysis.attention.token_grid import image_passes
from prisma.analysis.attention.token_maps import over_patches
from prisma.analysis.border import guarded, record
from prisma.analysis.result import Result
from prisma.errors import PrismaError, quoted
from prisma.metrics import Logit, Target
from prisma.plain import expect_plain
from prisma.view.figures.plots import draw
from prisma.vit import ViT, expect_pixels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OF = ("cross_entropy", "logit")


@dataclass(frozen=True, kw_only=True, eq=False)
class Importance(Result):
    """How much more of a class each block's attention would write at the class token, per unit of attention.

    Positive: attending more to this token in this head would raise the class there. Compare the tokens
    of a head, or heads, of one image: the final norm divides each block's output by its own size.
    """

    AXES: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "patches": ("image", "time", "row", "column"),
        "map": ("image", "layer", "head", "token"),
        "summed": ("image", "token"),
    }

    map: Tensor  # [image, layer, head, token]
    patches: Tensor  # [image, (time,) row, column]: the sum over layers and heads, over the patches

    @property
    def axes(self) -> dict[str, tuple[str, ...]]:
        image = {"patches": ("image", "row", "column")} if self.patches.ndim == 3 else {}
        return {**super().axes, **image}

    @property
    def summed(self) -> Tensor:
        """[image, token]: the sum over layers and heads."""
        return self.map.sum((1, 2))

    def plot(self, array: str | None = None) -> "Figure":
        """The mean over images of each head's largest importance, [layer, head]; or an array."""
        if array is not None:
            return super().plot(array)
        largest = self.map.detach().cpu().amax(-1).mean(0)
        return draw(largest, ("layer", "head"), title="importance: the largest of any token")


@guarded
def importance(
    model: ViT, images: Tensor, target: Target, *, of: str = "cross_entropy", batch: int | None = None
) -> Importance:
    """Which tokens would tell the class token more of a class, in which block and head?

    A map of what attention could bring inside one block, not of what the answer rests on: it need not agree with the
    object's mask, and other methods cause larger falls when their tokens are removed (`prisma.compare_maps`).

    Args:
        images: [image, channel, (frame,) height, width].
        target: the class, or one for each image; any class can be asked for.
        of: "cross_entropy": the gradient of the class's log-probability; "logit": of its logit.
        batch: images in one pass.

    Returns:
        `map` [image, layer, head, token], `summed` [image, token], `patches` [image, (time,) row, column].

    Raises:
        PrismaError: the model reads out something else than its class token, or has no classes; no such class or `of`.
    """
    if of not in OF:
        raise PrismaError(f"expected of to be {' or '.join(OF)}; found {quoted(of)}")
    config = model.config
    if config.pool != "class" or not config.n_classes or not config.n_layers or config.attention == "divided":
        found = f"pool={config.pool}, n_classes={config.n_classes}, n_layers={config.n_layers}"
        raise PrismaError(f"expected a model with layers that reads classes out of its class token; found {found}")
    expect_pixels(config, next(model.parameters()).dtype, images)
    expect_plain(model, ["readout"], "the readout of an attention's output", gradients=True)
    with torch.inference_mode(False):
        rows = image_passes(model, torch.arange(len(images), device=images.device), batch, copies=4)
        parts = [_of_pass(model, images, target, some, of) for some in rows]
    map_BLHT = torch.cat(parts)
    metadata = {"analysis": "importance", "of": of, "target": str(Logit(target).target)[:80]}
    patches = over_patches(config, map_BLHT.sum((1, 2)))
    return Importance(metadata=metadata, map=map_BLHT, patches=patches)


def _of_pass(model: ViT, images: Tensor, target: Target, rows: Tensor, of: str) -> Tensor:
    """[image, layer, head, token] of some of the images."""
    layers, n = range(model.config.n_layers), len(images)
    patterns, outputs = ([f"blocks.{layer}.{site}" for layer in layers] for site in ("attn.pattern", "attn_out"))
    with torch.enable_grad():
        leaf = images[rows].detach().requires_grad_()
        _, acts = record(model, leaf, [*patterns, *outputs])
        found = []
        for pattern, output in zip(patterns, outputs, strict=True):
            logits_BC = model.readout(acts[output][:, :1])
            scores_BC = logits_BC.log_softmax(-1) if of == "cross_entropy" else logits_BC
            everyone = scores_BC.new_zeros(n, scores_BC.shape[1]).index_put((rows,), scores_BC)
            value = Logit(target)(everyone)[rows].sum()
            (gradient_BHQK,) = torch.autograd.grad(value, acts[pattern], retain_graph=True)
            found.append(gradient_BHQK[:, :, 0].detach())
    return torch.stack(found, dim=1)
