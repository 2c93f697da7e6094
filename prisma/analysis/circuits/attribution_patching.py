"""Attribution patching: activation patching of every head, token, attention and MLP, to first order, in a few passes.

    attribution of site a = (a' - a) . d metric / d a       a on the target, a' on the donor

which is the slope of the metric on the way from a to a', and estimates `metric(patched) - metric(target)`. It is exact
where the metric is linear in the site, and poor where softmax or norms saturate: with `steps` the gradient is the mean
over runs from embeddings on the straight line to the donor's, at donor + k / steps (target - donor), k = 1 ... steps.

Sources: Nanda 2023, Attribution Patching; Kramár et al. 2403.00745 (AtP*, where it fails); Sundararajan et al.
1703.01365 (integrated gradients); Hanna et al. 2403.17806 (the line from input to input).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from prisma.analysis.circuits.attribution_passes import AttributionPasses
from prisma.analysis.circuits.edge_attribution import EdgeAttribution, edge_result
from prisma.analysis.result import PairedEffect
from prisma.metrics import Metric
from prisma.vit import ViT


@dataclass(frozen=True, kw_only=True, eq=False)
class AttributionPatching(PairedEffect):
    """First-order effects: estimates of `metric(patched) - metric(target)` of each pair.

    An attribution of several tokens at once is the sum of theirs; of several heads of one layer likewise.
    """

    AXES: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "effect": ("layer", "head"),
        "stderr": ("layer", "head"),
        "heads": ("image", "layer", "head"),
        "head_tokens": ("image", "layer", "head", "token"),
        "tokens": ("image", "layer", "token"),
        "attn_tokens": ("image", "layer", "token"),
        "mlp_tokens": ("image", "layer", "token"),
        "time_head_tokens": ("image", "layer", "head", "patch"),
        "clean": ("image",),
        "corrupt": ("image",),
    }

    head_tokens: Tensor  # of `attn.z`
    tokens: Tensor  # of `resid_pre`
    attn_tokens: Tensor  # of `attn_out`
    mlp_tokens: Tensor | None = None  # of `mlp_out`
    time_head_tokens: Tensor | None = None  # of `time.z`, of divided attention

    @property
    def heads(self) -> Tensor:
        """Of each head, all tokens at once [image, layer, head]."""
        return self.head_tokens.sum(-1)

    @property
    def per_image(self) -> Tensor:
        return self.heads


def attribution_patching(
    model: ViT,
    clean: Tensor,
    corrupt: Tensor,
    metric: Metric,
    *,
    steps: int = 1,
    into: str = "clean",
    batch: int | None = None,
) -> AttributionPatching:
    """All nodes: a forward for the donor, and a forward and a backward for each step.

    Args:
        clean, corrupt: pairs of images [image, channel, (frame,) height, width], of the same shape.
        metric: logits [batch, class] -> one finite number per pair [batch], with a gradient, each of its image alone.
        steps: 1 for the gradient at the target.
        into: `"clean"` for corrupt values in the clean run (noising), `"corrupt"` the other way (denoising).
        batch: so many pairs in one pass; by default as many as fit in 256 MiB, and one at least.

    Returns:
        `.effect`, `.stderr` [layer, head]; of each pair `.heads`, `.head_tokens`, `.tokens`, `.attn_tokens`,
        `.mlp_tokens` [image, layer, ...], `.clean` and `.corrupt` [image].

    Raises:
        PrismaError: shapes differ, the model has no layers, or the metric is not one finite number per pair or has no
            gradient.
    """
    walk = AttributionPasses(model, metric, nodes=True, edges=False, steps=steps, into=into, batch=batch)
    return _result(walk, walk.run(clean, corrupt))


def attribute(
    model: ViT,
    clean: Tensor,
    corrupt: Tensor,
    metric: Metric,
    *,
    steps: int = 1,
    into: str = "clean",
    batch: int | None = None,
) -> tuple[AttributionPatching, EdgeAttribution]:
    """`attribution_patching` and `edge_attribution`, of the same passes: what the latter costs.

    Args and errors: as in `attribution_patching`.
    """
    walk = AttributionPasses(model, metric, nodes=True, edges=True, steps=steps, into=into, batch=batch)
    found = walk.run(clean, corrupt)
    return _result(walk, found), edge_result(model, walk, found)


def _result(walk: AttributionPasses, found: Mapping[str, Tensor]) -> AttributionPatching:
    return AttributionPatching(
        metadata={
            "analysis": "attribution_patching",
            "steps": walk.steps,
            "into": walk.into,
            "pairs": len(found["clean"]),
        },
        **{name: values for name, values in found.items() if name != "edges"},
    )
