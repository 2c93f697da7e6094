"""Edges between latents: what of a latent's effect on the metric passes through each latent of a later coder.

    edge[i, j] = sum over tokens of (z'_i - z_i) W_dec[i] . d/dx  sum over tokens of z_j(x) (W_dec[j] . g)

x is the activation at the sender's site, z_j(x) the receiver's code in the run that continues from x, and g the
gradient of the metric at the receiver's site, held fixed: the first-order effect of patching the sender while
everything but the receiver j stays as it was. The last sender and the last receiver are the errors. Where every path
from the sender's site to the metric passes through the receiver's, a sender's edges to all receivers and the error sum
to its effect. A latent that is not active has no slope: what would activate it passes through the error. A transcoder
has its nodes where it writes; as a receiver, its code follows what it reads.

Source: Marks et al. 2403.19647.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from prisma.analysis.border import guarded
from prisma.analysis.circuits.edge_effects import EdgeEffects
from prisma.analysis.circuits.graph import largest_places
from prisma.analysis.patching.pairs import source_of, target_and_source
from prisma.batching import inputs_per_pass, measure_rows, metric_gradient
from prisma.edits import Add
from prisma.errors import PrismaError
from prisma.inventory import site_names
from prisma.metrics import Metric
from prisma.runs import Model, check_pixels, record
from prisma.sparse.activations import bare, rows_of
from prisma.sparse.coders import Coder
from prisma.sparse.latent_attribution import products
from prisma.sparse.latent_nodes import ERROR, Node, Nodes, places_of


@dataclass(frozen=True, kw_only=True, eq=False)
class LatentEdges(EdgeEffects):
    """Estimated effect on the metric of what each sender sends through each receiver, to first order."""

    @property
    def names(self) -> Mapping[str, Sequence[str]]:
        receivers = [_label(latent) for latent in self.metadata["receivers"]]
        return {"sender": [*map(str, range(self.values.shape[1] - 1)), "error"], "receiver": receivers}

    def top(self, n: int = 10) -> list[tuple[tuple[Node, Node], float]]:
        """The n edges with the largest effects by size, with the effects, means over pairs."""
        (first, second), receivers = self.metadata["sites"], self.metadata["receivers"]
        error = self.values.shape[1] - 1
        return [
            (((first, None if i == error else i), (second, receivers[j])), value)
            for i, j, value in largest_places(self.effect, n)
        ]


@guarded
def latent_edges(
    model: Model,
    sender: Coder,
    receiver: Coder,
    clean: Tensor,
    corrupt: Tensor,
    metric: Metric,
    latents: Sequence[int] | None = None,
    *,
    tokens: Sequence[int] | None = None,
    into: str = "clean",
    batch: int | None = None,
    other_model: bool = False,
) -> LatentEdges:
    """Through which latents of a later coder do the latents of an earlier one change the metric?

    Cost: a forward for each image of a pair, and a backward for each receiver.

    Args:
        sender, receiver: coders of two sites, the sender's first in the model.
        latents: the receivers; None for all. The receiver's error is always the last receiver.
        Others: as in `latent_attribution`.

    Returns:
        `.effect`, `.stderr` [sender, receiver], `.values` [image, sender, receiver]; the errors are last.

    Raises:
        PrismaError: what the sender writes is not before what the receiver reads, a latent does not exist, or as in
            `latent_attribution`.
    """
    nodes, known = Nodes.of(model, [sender, receiver], tokens, other_model), site_names(model.config)
    first, second = nodes.sites
    written, read = bare(sender.config.target or sender.site), bare(receiver.site)
    if written != first or known.index(read) < known.index(written):
        raise PrismaError(f"expected a sender before the receiver, which reads {read}; found one at {written}")
    wanted = range(receiver.config.width) if latents is None else latents
    places = places_of(nodes, [*((second, j) for j in wanted), (second, None)])[:, 1].tolist()
    target, source = target_and_source(clean, corrupt, into)
    check_pixels(model, clean)
    size, parts = inputs_per_pass(model, batch, memory=nodes.memory(model)), []
    with torch.inference_mode(False):  # the caller may be in it
        target, source = target.clone(), source.clone()
        for rows in (slice(i, i + size) for i in range(0, len(target), size)):
            parts.append(_edges(model, nodes, target[rows], source[rows], metric, rows, len(target), places))
    values, own, other = (torch.cat(each) for each in zip(*parts, strict=True))
    return LatentEdges(
        metadata={
            "analysis": "latent_edges", "into": into, "pairs": len(target), "tokens": nodes.tokens,
            "sites": nodes.sites, "receivers": [None if j == ERROR else j for j in places],
        },
        values=values,
        **{into: own, source_of(into): other},
    )  # fmt: skip


def _edges(
    model: Model,
    nodes: Nodes,
    target: Tensor,
    source: Tensor,
    metric: Metric,
    rows: slice,
    total: int,
    places: Sequence[int],
) -> tuple[Tensor, Tensor, Tensor]:
    first, second = nodes.sites
    own, acts, codes = nodes.record(model, target)
    other, _, source_codes = nodes.record(model, source)
    leaf = torch.zeros_like(acts[first]).requires_grad_()
    with torch.enable_grad():
        logits, reached = record(model, target, (bare(nodes.coders[second].site), second), {first: Add(leaf)})
        slope = metric_gradient(metric, logits, rows, total)[1]
        x = reached[second]
        (gradient,) = torch.autograd.grad(
            logits, x, slope, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        g = nodes.chosen(rows_of(gradient, second)).to(codes[second].error.dtype)
        code, weight = nodes.code(second, reached), nodes.coders[second].W_dec.detach()
        z, error = nodes.chosen(code.z), nodes.chosen(code.error)
        found = []
        for j in places:
            through = (error * g).sum() if j == ERROR else (z[..., j] * (g @ weight[j])).sum()
            (back,) = torch.autograd.grad(through, leaf, retain_graph=True, allow_unused=True, materialize_grads=True)
            found.append(products(nodes, first, codes[first], source_codes[first], back))
    values = torch.stack(found, -1)
    return values, measure_rows(metric, own, rows, total), measure_rows(metric, other, rows, total)


def _label(latent: int | None) -> str:
    return "error" if latent is None else str(latent)
