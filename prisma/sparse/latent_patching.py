"""Patching of latents: the exact change of the metric where one of them, or an error, is as in another run."""

from collections.abc import Sequence

import torch
from torch import Tensor

from prisma.analysis.border import guarded
from prisma.analysis.patching.pairs import source_of, target_and_source
from prisma.batching import inputs_per_pass, measure_rows
from prisma.edits import Edit
from prisma.metrics import Metric
from prisma.runs import Model, run
from prisma.sparse.activations import bare, rows_of
from prisma.sparse.coders import Coder
from prisma.sparse.latent_nodes import ERROR, Code, Coders, LatentEffects, Node, Nodes, places_of
from prisma.sparse.splicing import Splice


@guarded
@torch.no_grad()
def latent_patching(
    model: Model,
    coders: Coders,
    clean: Tensor,
    corrupt: Tensor,
    metric: Metric,
    nodes: Sequence[Node] | None = None,
    *,
    tokens: Sequence[int] | None = None,
    into: str = "clean",
    batch: int | None = None,
    other_model: bool = False,
) -> LatentEffects:
    """What does each latent carry of the difference between two images?

    For each node, a run of the target with this node as in the source run: all its tokens, and nothing else. One run of
    the model for each node and pair, so name the nodes of a wide coder: `latent_attribution` says which may matter.

    Args:
        nodes: (site, latent) or (site, None) for the error, such as those of `latent_attribution(...).top()`; None for
            all. The site of a transcoder's nodes is the one that it writes.
        Others: as in `latent_attribution`; the metric needs no gradient.

    Raises:
        PrismaError: shapes differ, coders do not fit, a node does not exist, or the metric is not one finite number.
    """
    there = Nodes.of(model, coders, tokens, other_model)
    places = there.places if nodes is None else places_of(there, nodes)
    target, source = target_and_source(clean, corrupt, into)
    size, parts = inputs_per_pass(model, batch, memory=there.memory(model)), []
    for rows in (slice(i, i + size) for i in range(0, len(target), size)):
        some, total = target[rows], len(target)
        own, acts, codes = there.record(model, some)
        other, _, source_codes = there.record(model, source[rows])
        base, values = measure_rows(metric, own, rows, total), []
        for i, latent in places.tolist():
            site = there.sites[i]
            coder, code = there.coders[site], source_codes[site]
            reads = rows_of(acts[bare(coder.site)], coder.site) if coder.config.target else None
            replaced = [] if latent == ERROR else [latent]
            edit = replacing(coder, code, codes[site], replaced, latent == ERROR, there.tokens, reads)
            values.append(measure_rows(metric, run(model, some, {site: edit}), rows, total) - base)
        parts.append((torch.stack(values, 1), base, measure_rows(metric, other, rows, total)))
    found = [torch.cat(each) for each in zip(*parts, strict=True)]
    settings = {"into": into, "pairs": len(target), "tokens": there.tokens, "sites": there.sites}
    return LatentEffects(
        metadata={"analysis": "latent_patching", **settings},
        values=found[0],
        nodes=places,
        **{into: found[1], source_of(into): found[2]},
    )


def replacing(
    coder: Coder,
    source: Code,
    like: Code,
    latents: Sequence[int],
    error: bool,
    tokens: Sequence[int] | None,
    reads: Tensor | None = None,
) -> Edit:
    """The edit in which some latents, and the error if asked for, are those of another run.

    Args:
        source: of the other run; of one image, it is that of every image.
        like: of this run, for the shapes.
        tokens: where the nodes are replaced; None: at all tokens.
        reads: of a transcoder, what it reads.
    """
    splice = Splice(
        coder,
        reads=reads,
        source=source.z.expand_as(like.z),
        source_error=source.error.expand_as(like.error) if error else None,
        other_model=True,  # `Nodes.of` has asked once
    )
    splice = splice.patch(latents) if len(latents) else splice
    return splice if tokens is None else splice.at(token=list(tokens))
