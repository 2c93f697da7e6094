"""Attribution patching: activation patching of every head, token, attention and MLP, to first order, in a few passes.

    attribution of site a = (a' - a) . d metric / d a       a in the target run, a' in the source run

This is the slope of the metric on the way from a to a', and estimates `metric(patched) - metric(target)`. It is exact
where the metric is linear in the site, and poor where softmax or norms saturate. With more `steps`, the gradient is its
integral over runs whose embeddings lie on the straight line between the source's and the target's, from that many
points of Gauss-Legendre; those never include the two runs themselves. A metric without a slope in the target run, such
as the divergence from that very run, has no first-order effects: one step refuses it, more steps integrate it. The
integrated attributions of the embedding sum to the whole difference between the two runs.

Sources: Nanda 2023, Attribution Patching; Kramár et al. 2403.00745 (AtP*, where it fails); Sundararajan et al.
1703.01365 (integrated gradients); Hanna et al. 2403.17806 (the line from input to input).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from prisma.analysis.border import guarded
from prisma.analysis.circuits.attribution_passes import AttributionPasses
from prisma.analysis.circuits.edge_attribution import EdgeAttribution, edge_result
from prisma.analysis.result import PairedEffect
from prisma.metrics import Metric
from prisma.vit import ViT


@dataclass(frozen=True, kw_only=True, eq=False)
class AttributionPatching(PairedEffect):
    """Estimated effects of patching each part: `metric(patched) - metric(target)` for each pair, to first order.

    A large value means that patching this part is estimated to change the metric by that much; the sign says in which
    direction. The attribution of several tokens, or of several heads of one layer, is the sum of theirs.
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

    head_tokens: Tensor  # for `attn.z`
    tokens: Tensor  # for `resid_pre`
    attn_tokens: Tensor  # for `attn_out`
    mlp_tokens: Tensor | None = None  # for `mlp_out`
    time_head_tokens: Tensor | None = None  # for `time.z`, in divided attention

    @property
    def heads(self) -> Tensor:
        """The attribution of each head, all tokens together [image, layer, head]."""
        return self.head_tokens.sum(-1)

    @property
    def per_image(self) -> Tensor:
        return self.heads


@guarded
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
    """Which parts of the model carry the difference between two images, estimated for all of them at once?

    The result approximates what `activation_patching` would find for every head, token, attention and MLP, at the cost
    of one forward for each image of a pair, and one forward and backward for each step. Check the largest ones exactly.

    Args:
        clean, corrupt: pairs of images [image, channel, (frame,) height, width], of the same shape.
        metric: logits [batch, class] -> one finite number per pair [batch], which has a gradient and depends on that
            pair's logits alone.
        steps: 1 for the gradient in the target run; about 5 for integrated gradients, which also work for a metric
            that has no slope in the target run.
        into: `"clean"` for corrupt values in the clean run (noising), `"corrupt"` the other way (denoising).
        batch: pairs per pass at most; by default as many as fit in 256 MiB, and one at least.

    Returns:
        `.effect`, `.stderr` [layer, head]; for each pair `.heads`, `.head_tokens`, `.tokens`, `.attn_tokens`,
        `.mlp_tokens` [image, layer, ...], `.clean` and `.corrupt` [image].

    Raises:
        PrismaError: shapes differ, the model has no layers, or the metric is not one finite number per pair, has no
            gradient, or has a gradient of zero at the target run (KL to that run) although it differs between the two.
    """
    passes = AttributionPasses(model, metric, nodes=True, edges=False, steps=steps, into=into, batch=batch)
    return _result(passes, passes.run(clean, corrupt))


@guarded
def attribute_nodes_and_edges(
    model: ViT,
    clean: Tensor,
    corrupt: Tensor,
    metric: Metric,
    *,
    steps: int = 1,
    into: str = "clean",
    batch: int | None = None,
) -> tuple[AttributionPatching, EdgeAttribution]:
    """`attribution_patching` and `edge_attribution` from the same passes, at the cost of the latter.

    Args and errors: as in `attribution_patching`.
    """
    passes = AttributionPasses(model, metric, nodes=True, edges=True, steps=steps, into=into, batch=batch)
    found = passes.run(clean, corrupt)
    return _result(passes, found), edge_result(model, passes, found)


def _result(passes: AttributionPasses, found: Mapping[str, Tensor]) -> AttributionPatching:
    return AttributionPatching(
        metadata={
            "analysis": "attribution_patching",
            "steps": passes.steps,
            "into": passes.into,
            "pairs": len(found["clean"]),
        },
        **{name: values for name, values in found.items() if name != "edges"},
    )
