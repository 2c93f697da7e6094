"""A run in which only the edges of a circuit carry this run's values, and all others those of another run.

Every receiver v reads a residual stream of its own, made by the model's own additions and norms from

    for each sender u:   what u sends in this run, if u -> v is in the circuit;   what u sent in the other run, if not.

With all edges it is the plain run, with no edges the other run, and with one edge left out it is path patching of that
edge. The streams differ only where the edges do, so receivers that have read the same edges so far share a stream.

Edges may tell positions apart: u -> v at token t is what u sends at token t, as v reads it there. Attention is inside a
node: what a head sends at t depends on its q at t, and on its k and v at all tokens.

Sources: Goldowsky-Dill et al. 2304.05969 (path patching); Wang et al. 2211.00593; Conmy et al. 2304.14997 (ACDC).

Shapes: C circuit, S sender, V receiver, B image, T token, M d_model, H sender of a
stage, G stream (of several receivers of a circuit).
"""

import torch
from torch import Tensor

from prisma.analysis.circuits.branches import Messages, branch_of
from prisma.analysis.circuits.graph import Graph, Stage
from prisma.batching import block_memory, inputs_per_pass
from prisma.errors import PrismaError
from prisma.vit import ViT


@torch.no_grad()
def run_edges(model: ViT, images: Tensor, edges: Tensor, other: Messages, *, batch: int | None = None) -> Tensor:
    """Logits of runs in which only some edges carry this run's values.

    Args:
        images: [image, channel, (frame,) height, width].
        edges: boolean [sender, receiver] as in `Graph`, or [sender, receiver, token] where they tell positions apart;
            either with an axis `circuit` before it for many circuits at once. Entries where the model has no edge are
            ignored.
        other: the messages of the other run, for the same images.
        batch: images per pass at most, all circuits together; by default as many as fit in 256 MiB.

    Returns:
        [image, class], or [circuit, image, class].

    Raises:
        PrismaError: `edges` has another shape, or `other` has another number of images.
    """
    graph = Graph(model.config)
    wanted = [len(graph.senders), len(graph.receivers)]
    by_token = list(edges.shape[-3:]) == [*wanted, model.config.n_tokens]
    fits = by_token or list(edges.shape[-2:]) == wanted
    if edges.dtype != torch.bool or not fits or edges.ndim - by_token not in (2, 3):
        raise PrismaError(f"expected boolean edges {wanted}; found {list(edges.shape)} of {edges.dtype}")
    if len(other.embed) != len(images):
        raise PrismaError(f"expected messages of the other run for {len(images)} images; found {len(other.embed)}")
    edges_CSVT = edges.reshape(-1, *wanted, model.config.n_tokens if by_token else 1).to(images.device)
    batch = inputs_per_pass(model, batch, memory=len(graph.receivers) * block_memory(model))
    per_circuit = min(batch, len(images))
    logits = []
    for some in edges_CSVT.split(max(batch // per_circuit, 1)):
        rows = [slice(i, i + per_circuit) for i in range(0, len(images), per_circuit)]
        logits.append(torch.cat([_run(model, graph, images[row], some, other[row]) for row in rows], dim=1))
    return torch.cat(logits).reshape(*edges.shape[: edges.ndim - by_token - 2], len(images), -1)


def _run(model: ViT, graph: Graph, images: Tensor, edges_CSVT: Tensor, other: Messages) -> Tensor:
    """[circuit, image, class]. A receiver reads the stream `of_CV` among `streams` [stream, image, token, d_model]."""
    circuits = len(edges_CSVT)
    kept_GT, which = torch.unique(edges_CSVT[:, 0].flatten(0, 1), dim=0, return_inverse=True)
    streams, of_CV = torch.where(kept_GT[:, None, :, None], model.embed(images), other.embed), which.view(circuits, -1)
    before = streams, of_CV
    for stage, other_message in zip(graph.stages, other.stages, strict=True):
        read, of = before if stage.reads < stage.senders.start else (streams, of_CV)
        before = streams, of_CV
        branch = branch_of(model, stage)
        x_CVBTM = read[of[:, stage.receivers]]
        x_each = x_CVBTM.permute(0, 2, 3, 1, 4).flatten(0, 1)  # [row, token, receiver, d_model]
        message = branch.send(x_each).unflatten(0, (circuits, len(images)))
        if stage.kind == "mlp":  # one sender, like one head
            message, other_message = message[..., None, :], other_message[..., None, :]
        circuit, stream, kept_GHT, of_CV = _groups(graph, stage, edges_CSVT, of_CV)
        kept = kept_GHT.mT[:, None, -message.shape[2] :, :, None]  # attention over time has the patches alone
        chosen = torch.where(kept, message[circuit], other_message)
        chosen = chosen[..., 0, :] if stage.kind == "mlp" else chosen
        streams = branch.add(streams[stream].flatten(0, 1), branch.write(chosen.flatten(0, 1))).unflatten(
            0, (-1, len(images))
        )
    return model.readout(streams[of_CV[:, -1]].flatten(0, 1)).unflatten(0, (circuits, len(images)))


def _groups(graph: Graph, stage: Stage, edges_CSVT: Tensor, of_CV: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """For each stream after a stage: its circuit, the stream before, the senders kept; and the stream of a receiver."""
    first = next(v for v, reads in enumerate(graph.reads) if reads >= stage.senders.stop)
    circuits, later = len(of_CV), len(graph.reads) - first
    circuit_CV = torch.arange(circuits, device=of_CV.device)[:, None].expand(-1, later)
    kept_CVHT = edges_CSVT[:, stage.senders, first:].transpose(1, 2)
    key = torch.cat([circuit_CV[..., None], of_CV[:, first:, None], kept_CVHT.flatten(2).long()], dim=-1)
    different, which = torch.unique(key.flatten(0, 1), dim=0, return_inverse=True)
    of_CV = of_CV.clone()
    of_CV[:, first:] = which.view(circuits, later)
    return different[:, 0], different[:, 1], different[:, 2:].bool().unflatten(1, kept_CVHT.shape[2:]), of_CV
