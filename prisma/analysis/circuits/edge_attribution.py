"""Edge attribution: how the metric would change, to first order, if one edge carried what it carries on another image.

    score[u, v] = d/da metric(run in which v alone reads  m_u + a (m_u' - m_u)  from u)   at a = 0
                = sum over tokens of  (J_uv (m_u' - m_u)) . g_v

m_u is what u sends in the target run, m_u' in the source run; g_v is the gradient of the metric at the stream that v
alone reads; J_uv is what lies between them: W_O, layer scale, and the norms of the stream (the identity, unless the
model is post-norm). This is edge attribution patching (EAP). It misses an edge where the gradient is flat, so EAP-IG
takes the integral over runs whose embeddings lie on the straight line to the source's, as `attribution_patching` does.
With other `rules`, relevance takes the place of the gradient, as in `relevance_patching`.

The scores of the edges that leave a sender sum to the sender's own attribution.

Sources: Syed et al. 2310.10348 (EAP); Hanna et al. 2403.17806 (EAP-IG); the derivative of `circuit_run`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from prisma.analysis.border import guarded
from prisma.analysis.circuits.attribution_passes import AttributionPasses
from prisma.analysis.circuits.edge_effects import EdgeEffects
from prisma.analysis.circuits.graph import Edge, Graph, largest, names, picture_labels
from prisma.metrics import Metric
from prisma.vit import ViT


@dataclass(frozen=True, kw_only=True, eq=False)
class EdgeAttribution(EdgeEffects):
    """Estimated effect of patching each edge, to first order: `metric(patched) - metric(target)`; 0 without an edge.

    A large value means that the edge is estimated to change the metric by that much, in the direction of its sign.
    """

    @property
    def names(self) -> Mapping[str, Sequence[str]]:
        return picture_labels(self.metadata)

    def top(self, n: int = 10) -> list[tuple[Edge, float]]:
        """The n edges with the largest effects by size, with the effects, means over pairs."""
        return largest(self.effect, self.metadata, n)


@guarded
def edge_attribution(
    model: ViT,
    clean: Tensor,
    corrupt: Tensor,
    metric: Metric,
    *,
    steps: int = 1,
    rules: str = "gradient",
    into: str = "clean",
    batch: int | None = None,
) -> EdgeAttribution:
    """Which connections carry the difference between two images, estimated for all edges at once? (EAP and EAP-IG)

    The result approximates what `path_patching` would find for every edge, in a few passes. Use it to rank edges;
    `circuit_discovery` verifies the best ones exactly.

    Cost: a forward for each image of a pair; for each step a forward, a backward, the step from the gradients at q, k
    and v back to the stream (about the backward of the QKV projections again), and for each branch one product
    [sender, token x d_model] by [token x d_model, receiver]. Memory per pair of a pass: a stream for every sender, a
    stream for every receiver of one layer, and the activations of one forward.

    Args:
        clean, corrupt: pairs of images [image, channel, (frame,) height, width], of the same shape.
        metric: logits [batch, class] -> one finite number per pair [batch], which has a gradient and depends on that
            pair's logits alone.
        steps: 1 for EAP; about 5 for EAP-IG.
        rules: what is passed back: `"gradient"`, or relevance by `"cp_lrp"` (RelP) or `"attn_lrp"`.
        into: `"clean"` for corrupt values in the clean run (noising), `"corrupt"` the other way (denoising).
        batch: pairs per pass at most; by default as many as fit in 256 MiB, and one at least.

    Returns:
        `.effect`, `.stderr` [sender, receiver], `.values` [image, sender, receiver], `.clean` and `.corrupt` [image].

    Raises:
        PrismaError: shapes differ, or the metric is not one finite number per pair, has no gradient, or has a gradient
            of zero at the target run (KL to that run) although it differs between the two runs.
    """
    passes = AttributionPasses(model, metric, nodes=False, edges=True, steps=steps, into=into, batch=batch, rules=rules)
    return edge_result(model, passes, passes.run(clean, corrupt))


def edge_result(model: ViT, passes: AttributionPasses, found: Mapping[str, Tensor]) -> EdgeAttribution:
    """The result of passes that attributed to edges."""
    graph = Graph(model.config)
    return EdgeAttribution(
        metadata={
            "analysis": "edge_attribution",
            "steps": passes.steps,
            "rules": passes.rules,
            "into": passes.into,
            "pairs": len(found["clean"]),
            "senders": names(graph.senders),
            "receivers": names(graph.receivers),
        },
        values=found["edges"],
        clean=found["clean"],
        corrupt=found["corrupt"],
    )
