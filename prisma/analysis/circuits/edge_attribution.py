"""Edge attribution: how the metric would change, to first order, if one edge carried what it carries on other images.

    score[u, v] = d/da metric(run in which v alone hears  m_u + a (m_u' - m_u)  from u)   at a = 0
                = sum over tokens of  (J_uv (m_u' - m_u)) . g_v

m_u is what u sends on the target, m_u' on the donor; g_v the gradient of the metric at the stream that v alone reads;
J_uv what lies between: W_O, layer scale, and the norms on the stream (identity, unless the model is post-norm). That is
edge attribution patching (EAP). It is blind where the gradient is flat, so EAP-IG takes the mean over `steps` runs from
embeddings on the straight line to the donor's, at donor + k / steps (target - donor), k = 1 ... steps.

The scores of the edges that leave a sender sum to the sender's own attribution.

Sources: Syed et al. 2310.10348 (EAP); Hanna et al. 2403.17806 (EAP-IG); the derivative of `circuit_run`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from prisma.analysis.circuits.attribution_passes import AttributionPasses
from prisma.analysis.circuits.graph import Edge, Graph, ends, largest, names
from prisma.analysis.result import PairedEffect
from prisma.metrics import Metric
from prisma.vit import ViT


@dataclass(frozen=True, kw_only=True, eq=False)
class EdgeAttribution(PairedEffect):
    """First-order effects of every edge: estimates of `metric(patched) - metric(target)`, 0 where there is no edge."""

    AXES: ClassVar = {
        "effect": ("sender", "receiver"),
        "stderr": ("sender", "receiver"),
        "values": ("image", "sender", "receiver"),
        "clean": ("image",),
        "corrupt": ("image",),
    }

    values: Tensor  # [image, sender, receiver]

    @property
    def per_image(self) -> Tensor:
        return self.values

    @property
    def names(self) -> Mapping[str, Sequence[str]]:
        return ends(self.metadata)

    def top(self, n: int = 10) -> list[tuple[Edge, float]]:
        """The n edges with the largest effects by size, with their effects, means over pairs."""
        return largest(self.effect, self.metadata, n)


def edge_attribution(
    model: ViT,
    clean: Tensor,
    corrupt: Tensor,
    metric: Metric,
    *,
    steps: int = 1,
    into: str = "clean",
    batch: int | None = None,
) -> EdgeAttribution:
    """The score of every edge, of each pair: EAP, or EAP-IG with `steps`.

    Costs a forward for the donor; for each step a forward, a backward, what q, k and v of all heads need to get their
    gradients back to the stream (about the backward of the QKV projections again), and for each branch one product
    [sender, token x d_model] by [token x d_model, receiver]. Memory, for each pair of a pass: a stream for every
    sender, of one layer at a time one for every receiver, and the activations of one forward.

    Args:
        clean, corrupt: pairs of images [image, channel, (frame,) height, width], of the same shape.
        metric: logits [batch, class] -> one finite number per pair [batch], with a gradient, each of its image alone.
        steps: 1 for EAP; EAP-IG takes 5 or so.
        into: `"clean"` for corrupt values in the clean run (noising), `"corrupt"` the other way (denoising).
        batch: so many pairs in one pass; by default as many as fit in 256 MiB, and one at least.

    Returns:
        `.effect`, `.stderr` [sender, receiver], `.values` [image, sender, receiver], `.clean` and `.corrupt` [image].

    Raises:
        PrismaError: shapes differ, or the metric is not one finite number per pair or has no gradient.
    """
    walk = AttributionPasses(model, metric, nodes=False, edges=True, steps=steps, into=into, batch=batch)
    return edge_result(model, walk, walk.run(clean, corrupt))


def edge_result(model: ViT, walk: AttributionPasses, found: Mapping[str, Tensor]) -> EdgeAttribution:
    """What a walk found of edges."""
    graph = Graph(model.config)
    return EdgeAttribution(
        metadata={
            "analysis": "edge_attribution",
            "steps": walk.steps,
            "into": walk.into,
            "pairs": len(found["clean"]),
            "senders": names(graph.senders),
            "receivers": names(graph.receivers),
        },
        values=found["edges"],
        clean=found["clean"],
        corrupt=found["corrupt"],
    )
