"""Attribution of latents: how the metric would change, to first order, if one of them were as in another run.

    effect of latent j = sum over tokens of (z'_j - z_j) W_dec[j] . g        of the error = sum of (e' - e) . g

g is the gradient of the metric at the coder's site, z and e the code and the error there, z' and e' those of the source
run. What is upstream sees through a coder, because latents and error together are the activation itself; so one
backward pass gives all nodes of all sites, and the effects of a site's nodes sum to the attribution of the site. With
more `steps`, g is its mean over runs in which the site lies on the straight line between the two runs, from that many
points of Gauss-Legendre; then the effects of a site's nodes sum to what patching the whole site does.

Sources: Marks et al. 2403.19647 (sparse feature circuits); Nanda 2023, Attribution Patching.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from prisma.analysis.attribution.quadrature import gauss_legendre
from prisma.analysis.border import guarded
from prisma.analysis.patching.pairs import source_of, target_and_source
from prisma.batching import inputs_per_pass, measure_rows, metric_gradient
from prisma.edits import Add, Set
from prisma.errors import PrismaError
from prisma.metrics import Metric
from prisma.numbers import exact
from prisma.runs import Model, check_pixels, run
from prisma.sites import Cache
from prisma.slope import expect_slope
from prisma.sparse.activations import rows_of
from prisma.sparse.latent_nodes import Code, Coders, LatentEffects, Nodes


@guarded
def latent_attribution(
    model: Model,
    coders: Coders,
    clean: Tensor,
    corrupt: Tensor,
    metric: Metric,
    *,
    tokens: Sequence[int] | None = None,
    steps: int = 1,
    into: str = "clean",
    batch: int | None = None,
    other_model: bool = False,
) -> LatentEffects:
    """Which latents carry the difference between two images, estimated for all of them at once?

    The result approximates what `latent_patching` would find for every latent and every error, at the cost of a forward
    for each image of a pair and a forward and backward, which steps > 1 repeat for each site and step. Check the
    largest ones exactly. A large effect of an error says that the coder does not have what the metric needs.

    Args:
        coders: one coder, several, or coders by site; each of one site.
        clean, corrupt: pairs of images [image, channel, (frame,) height, width], of the same shape.
        metric: logits [batch, class] -> one finite number per pair [batch], which has a gradient and depends on that
            pair's logits alone.
        tokens: indices of the tokens at which the coders are spliced in; None: all.
        steps: 1 for the gradient in the target run; about 5 for integrated gradients.
        into: `"clean"` for corrupt values in the clean run (noising), `"corrupt"` the other way (denoising).
        batch: pairs per pass at most; by default as many as fit in 256 MiB, and one at least.
        other_model: take a model with other weights than the coders were trained on.

    Returns:
        `.effect`, `.stderr` [node], `.values` [image, node], and which node is which in `.named()`.

    Raises:
        PrismaError: shapes differ, coders do not fit, or the metric is not one finite number per pair, has no gradient,
            or has a gradient of zero at the target run although it differs between the two runs.
    """
    nodes = Nodes.of(model, coders, tokens, other_model)
    target, source = target_and_source(clean, corrupt, into)
    check_pixels(model, clean)
    if steps < 1:
        raise PrismaError(f"expected steps to be at least 1; found {steps}")
    size, parts = inputs_per_pass(model, batch, memory=nodes.memory(model)), []
    with torch.inference_mode(False):  # the caller may be in it
        target, source = target.clone(), source.clone()
        for rows in (slice(i, i + size) for i in range(0, len(target), size)):
            parts.append(_attribute(model, nodes, target[rows], source[rows], metric, rows, len(target), steps))
    found = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    remedy = f"use steps={5 if steps == 1 else 4 * steps} (integrated gradients) or exact patching (latent_patching)"
    expect_slope(metric, found["reach"], found["target"] - found["source"], remedy)
    settings = {"steps": steps, "into": into, "pairs": len(target), "tokens": nodes.tokens, "sites": nodes.sites}
    return LatentEffects(
        metadata={"analysis": "latent_attribution", **settings},
        values=found["values"],
        nodes=nodes.places,
        **{into: found["target"], source_of(into): found["source"]},
    )


def _attribute(
    model: Model, nodes: Nodes, target: Tensor, source: Tensor, metric: Metric, rows: slice, total: int, steps: int
) -> dict[str, Tensor]:
    own, acts, codes = nodes.record(model, target)
    other, source_acts, source_codes = nodes.record(model, source)
    move = exact(other - own).norm(dim=1)
    found = {"target": measure_rows(metric, own, rows, total), "source": measure_rows(metric, other, rows, total)}
    parts: dict[str, list[Tensor]] = {site: [] for site in nodes.sites}
    reach = torch.zeros_like(move)
    for weight, slope, gradients in slopes(model, target, acts, source_acts, nodes.sites, metric, rows, total, steps):
        reach += weight * slope.norm(dim=1) * move
        for site, gradient in gradients.items():
            parts[site].append(weight * products(nodes, site, codes[site], source_codes[site], gradient))
    values = torch.cat([torch.stack(parts[site]).sum(0) for site in nodes.sites], 1)
    return {**found, "values": values, "reach": reach / (1 if steps == 1 else len(nodes.sites))}


def slopes(
    model: Model,
    images: Tensor,
    acts: Cache,
    source: Cache,
    sites: Sequence[str],
    metric: Metric,
    rows: slice,
    total: int,
    steps: int,
) -> Iterator[tuple[float, Tensor, dict[str, Tensor]]]:
    """(weight, gradient of the metric by the logits, gradient at each of some sites) of the runs of an attribution."""
    if steps == 1:
        leaves = {site: torch.zeros_like(acts[site]).requires_grad_() for site in sites}
        yield 1.0, *_gradients(model, images, {s: Add(x) for s, x in leaves.items()}, leaves, metric, rows, total)
        return
    for site in sites:
        for fraction, weight in gauss_legendre(steps):
            leaf = source[site].lerp(acts[site], fraction).requires_grad_()
            yield weight, *_gradients(model, images, {site: Set(leaf)}, {site: leaf}, metric, rows, total)


def _gradients(
    model: Model,
    images: Tensor,
    edit: dict[str, Add] | dict[str, Set],
    leaves: dict[str, Tensor],
    metric: Metric,
    rows: slice,
    total: int,
) -> tuple[Tensor, dict[str, Tensor]]:
    with torch.enable_grad():
        logits = run(model, images, edit)
    slope = metric_gradient(metric, logits, rows, total)[1]
    found = torch.autograd.grad(logits, list(leaves.values()), slope, allow_unused=True, materialize_grads=True)
    return slope, dict(zip(leaves, found, strict=True))


@torch.no_grad()
def products(nodes: Nodes, site: str, code: Code, source: Code, gradient: Tensor) -> Tensor:
    """[image, node of this site]: change times gradient, summed over tokens."""
    g = nodes.chosen(rows_of(gradient, site)).to(code.error.dtype)
    moved, missed = (nodes.chosen(b - a) for a, b in ((code.z, source.z), (code.error, source.error)))
    latents = (moved * (g @ nodes.coders[site].W_dec.T)).sum(1)
    return torch.cat([latents, (missed * g).sum((1, 2))[:, None]], 1)
