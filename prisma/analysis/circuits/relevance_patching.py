"""Relevance patching (RelP): attribution patching whose gradient is replaced by the coefficients of LRP.

    attribution of site a = (a' - a) . R(a) / a       a in the target run, a' in the source run, R(a) the relevance of a

R(a) / a is what one backward pass gives where each step passes back by a rule in the place of its derivative:

    norm                its standard deviation, or length, is held constant
    activation f(x)     f(x) / x, the slope of the line from 0 to f(x)
    attention           its pattern is held constant (cp_lrp); or half to each factor of a product (attn_lrp)
    gated MLP           half to each factor
    linear map          the derivative itself

So with cp_lrp it is exact patching in a model that is linear around the target run: the one with these norms, patterns
and ratios as constants. Where a part saturates, the ratio still sees it and the derivative does not; what a part does
by changing an attention pattern or the length of the stream, cp_lrp leaves out.

Sources: Rezaei Jafari et al. 2508.21258 (RelP); Ali et al. 2202.07304 and Achtibat et al. 2402.05602 (the rules, of
which `prisma.analysis.attribution.lrp` is the home).
"""

from dataclasses import dataclass

from torch import Tensor

from prisma.analysis.border import guarded
from prisma.analysis.circuits.attribution_passes import AttributionPasses
from prisma.analysis.circuits.attribution_patching import AttributionPatching
from prisma.errors import PrismaError
from prisma.metrics import Metric
from prisma.vit import ViT

LRP_RULES = ("cp_lrp", "attn_lrp")


@dataclass(frozen=True, kw_only=True, eq=False)
class RelevancePatching(AttributionPatching):
    """Estimated effects of patching each part, in units of the metric: as `AttributionPatching`, from relevance."""


@guarded
def relevance_patching(
    model: ViT,
    clean: Tensor,
    corrupt: Tensor,
    metric: Metric,
    *,
    rules: str = "cp_lrp",
    into: str = "clean",
    batch: int | None = None,
) -> RelevancePatching:
    """Which parts carry the difference between two images, estimated by relevance in the place of the gradient? (RelP)

    A number is an estimate of `metric(patched) - metric(target)`, as in `attribution_patching`, at the same cost.
    `edge_attribution(..., rules="cp_lrp")` gives the same for edges.

    Args:
        clean, corrupt: pairs of images [image, channel, (frame,) height, width], of the same shape.
        metric: logits [batch, class] -> one finite number per pair [batch], which has a gradient and depends on that
            pair's logits alone. Relevance begins as its gradient.
        rules: `"cp_lrp"` (RelP: patterns held constant) or `"attn_lrp"` (half to each factor of a product).
        into: `"clean"` for corrupt values in the clean run (noising), `"corrupt"` the other way (denoising).
        batch: pairs per pass at most; by default as many as fit in 256 MiB, and one at least.

    Returns:
        As `attribution_patching`.

    Raises:
        PrismaError: as `attribution_patching`, or there are no such rules.
    """
    if rules not in LRP_RULES:
        raise PrismaError(f"expected rules to be {' or '.join(LRP_RULES)}; found {rules!r}")
    passes = AttributionPasses(model, metric, nodes=True, edges=False, steps=1, into=into, batch=batch, rules=rules)
    found = passes.run(clean, corrupt)
    settings = {"rules": rules, "into": into, "pairs": len(found["clean"])}
    return RelevancePatching(metadata={"analysis": "relevance_patching", **settings}, **found)
