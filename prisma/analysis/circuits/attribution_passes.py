"""How attribution shares work: one run with gradients and one backward pass give every node and every edge.

Shapes: S sender, V receiver, B pair, T token, M d_model, H head, D d_head, I side (q, k, v).
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from prisma.analysis.attribution.lrp import FrozenNorms, RuleTap
from prisma.analysis.attribution.quadrature import gauss_legendre
from prisma.analysis.circuits.branches import Branch, branch_of
from prisma.analysis.circuits.gradient_run import GradientRun, gradient_run
from prisma.analysis.circuits.graph import Graph
from prisma.analysis.patching.pairs import source_of, target_and_source
from prisma.batching import inputs_per_pass, measure_rows, metric_gradient
from prisma.errors import PrismaError
from prisma.metrics import Metric
from prisma.numbers import exact
from prisma.plain import expect_plain, is_plain
from prisma.runs import check_pixels
from prisma.sites import no_tap
from prisma.slope import expect_slope
from prisma.vit import ViT

RULES = ("gradient", "cp_lrp", "attn_lrp")
"""What is passed back from the metric: its gradient, or relevance by one of the two sets of rules of `lrp`."""


@dataclass(frozen=True)
class AttributionPasses:
    """What to attribute in which model, and how.

    Args:
        nodes, edges: whether to attribute to nodes and to edges.
        steps: 1 for the gradient in the target run; more for the integral of the gradient over runs between the
            source's embedding and the target's, by that many points of Gauss-Legendre.
        into: which run is the target.
        batch: pairs per pass; None for as many as fit in 256 MiB, and one at least.
        rules: one of `RULES`.
        by_token: whether edges have an axis more, the token at which they are read.
    """

    model: ViT
    metric: Metric
    nodes: bool
    edges: bool
    steps: int
    into: str
    batch: int | None
    rules: str = "gradient"
    by_token: bool = False

    def run(self, clean: Tensor, corrupt: Tensor) -> dict[str, Tensor]:
        """Arrays by name: `clean`, `corrupt` [image], `edges` [image, sender, receiver, (token)], and the nodes'.

        Raises:
            PrismaError: shapes differ, an option is wrong, or the metric is not one finite number per pair, has no
                gradient, or has a gradient of zero where it is taken although it differs between the two runs.
        """
        target, source = target_and_source(clean, corrupt, self.into)
        check_pixels(self.model, clean)
        if self.steps < 1:
            raise PrismaError(f"expected steps to be at least 1; found {self.steps}")
        if self.rules not in RULES:
            raise PrismaError(f"expected rules to be one of {', '.join(RULES)}; found {self.rules!r}")
        if self.rules != "gradient":
            expect_plain(self.model, [""], "relevance propagation", gradients=True)
        graph = Graph(self.model.config)
        if self.nodes and not graph.stages:
            raise PrismaError("expected a model with layers; found n_layers=0")
        size, parts = self._pairs_per_pass(graph), []
        with torch.inference_mode(False), self._norms():  # the caller may be in it
            for rows in (slice(i, i + size) for i in range(0, len(target), size)):
                parts.append(self._attribute(graph, target[rows], source[rows], rows, len(target)))
        found = {name: torch.cat([part[name] for part in parts]).detach() for name in parts[0]}
        more = f"use steps={5 if self.steps == 1 else 4 * self.steps} (integrated gradients)"
        remedy = f"{more} or exact patching (activation_patching, path_patching)"
        expect_slope(self.metric, found.pop("reach"), found["clean"] - found["corrupt"], remedy)
        return found

    def _pairs_per_pass(self, graph: Graph) -> int:
        config = self.model.config
        streams = len(graph.senders) + 12 * config.n_heads + 20 * config.n_layers
        stream_bytes = config.n_tokens * config.d_model * next(self.model.parameters()).element_size()
        edges = len(graph.senders) * len(graph.receivers) * config.n_tokens * self.by_token
        return inputs_per_pass(self.model, self.batch, memory=streams * stream_bytes + 4 * edges)

    def _attribute(self, graph: Graph, target: Tensor, source: Tensor, rows: slice, pairs: int) -> dict[str, Tensor]:
        with torch.no_grad():
            other = gradient_run(self.model, graph, self.model.embed(source), grad=False)
            embed = self.model.embed(target)
        own = self._run(graph, embed) if self.steps == 1 else gradient_run(self.model, graph, embed, grad=False)
        change, found = difference(other, own), dict[str, Tensor]()
        for name, run in ((self.into, own), (source_of(self.into), other)):
            found[name] = measure_rows(self.metric, run.logits.detach(), rows, pairs)
        reach_B, move_B = torch.zeros_like(found["clean"]), (other.logits - own.logits.detach()).norm(dim=1)
        for fraction, weight in [(1.0, 1.0)] if self.steps == 1 else gauss_legendre(self.steps):
            run = own if self.steps == 1 else self._run(graph, other.streams[0].lerp(embed, fraction))
            slope_BC = metric_gradient(self.metric, run.logits, rows, pairs)[1]
            reach_B += weight * slope_BC.norm(dim=1) * move_B
            for name, values in self._products(graph, run, change, slope_BC).items():
                found[name] = found.get(name, 0) + weight * values
        return {**found, "reach": reach_B}

    def _run(self, graph: Graph, embed_BTM: Tensor) -> GradientRun:
        """A run with its autograd graph, through which `rules` are passed back."""
        tap = no_tap if self.rules == "gradient" else RuleTap(softmax=self.rules == "attn_lrp")
        return gradient_run(self.model, graph, embed_BTM, tap=tap)

    def _norms(self) -> AbstractContextManager[object]:
        return nullcontext() if self.rules == "gradient" else FrozenNorms()

    def _products(self, graph: Graph, run: GradientRun, change: GradientRun, slope_BC: Tensor) -> dict[str, Tensor]:
        """Change times gradient in one run, at all nodes and edges."""
        inputs = [run.forks] * self.edges + [run.streams, run.written, run.messages] * self.nodes
        flat = torch.autograd.grad(run.logits, [x for xs in inputs for x in xs], slope_BC)
        with torch.no_grad():
            at, gradients = 0, []
            for xs in inputs:
                gradients.append(flat[at : at + len(xs)])
                at += len(xs)
            products = _nodes(graph, change, *gradients[-3:]) if self.nodes else {}
            if self.edges:
                products["edges"] = self._edges(graph, run, gradients[0], change)
        return products

    def _edges(self, graph: Graph, run: GradientRun, gradients: Sequence[Tensor], change: GradientRun) -> Tensor:
        """[pair, sender, receiver, (token)]. `moves` [sender, pair, token, d_model]: how the stream moves with each."""
        embed = change.streams[0]
        paired = _paired_by_token if self.by_token else _paired
        shape = (len(embed), len(graph.senders), len(graph.receivers), *[embed.shape[1]] * self.by_token)
        scores_BSV = exact(embed.new_zeros(shape))
        moves = embed.new_empty(len(graph.senders), *embed.shape)
        moves[0] = embed
        for i, (stage, delta) in enumerate(zip(graph.stages, change.messages, strict=True)):
            branch, x = branch_of(self.model, stage), run.streams[i].detach()
            g_VBTM = receiver_gradients(branch, x, gradients[i]) if not branch.is_mlp else gradients[i][None]
            scores_BSV[:, : stage.reads, stage.receivers] = paired(moves[: stage.reads], g_VBTM)
            so_far = moves[: stage.senders.start]
            if graph.config.norm == "post":  # elsewhere a branch leaves the earlier part of the stream unchanged
                so_far.copy_(_push(partial(branch.add, written_RTM=run.written[i].detach()), x, so_far))
            moves[stage.senders] = _moves(branch, run.messages[i].detach(), run.outputs[i].detach(), x, delta)
        scores_BSV[:, :, -1:] = paired(moves, gradients[-1][None])
        return scores_BSV


def difference(source: GradientRun, own: GradientRun) -> GradientRun:
    """Source minus own run, for everything but the logits, which are the source's."""

    def minus(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return tuple(b - a.detach() for a, b in zip(ours, theirs, strict=True))

    return GradientRun(
        logits=source.logits,
        messages=minus(own.messages, source.messages),
        streams=minus(own.streams, source.streams),
        written=minus(own.written, source.written),
        outputs=(),
        forks=minus(own.forks, source.forks),
    )


def _nodes(
    graph: Graph, change: GradientRun, streams: Sequence[Tensor], written: Sequence[Tensor], messages: Sequence[Tensor]
) -> dict[str, Tensor]:
    """Change times gradient at every node, [pair, layer, ..., token]: the last three are gradients."""

    def gather(kind: str, changes: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor | None:
        of_kind = [_dot(d, g) for d, g, s in zip(changes, gradients, graph.stages, strict=False) if s.kind == kind]
        return torch.stack(of_kind, dim=1) if of_kind else None

    first = graph.stages[0].kind
    found = {
        "tokens": gather(first, change.streams, streams),
        "head_tokens": gather("attn", change.messages, messages),
        "time_head_tokens": gather("time", change.messages, messages),
        "attn_tokens": gather("attn", change.written, written),
        "mlp_tokens": gather("mlp", change.written, written),
    }
    return {name: x.mT if "head" in name else x for name, x in found.items() if x is not None}


def _dot(change: Tensor, gradient: Tensor) -> Tensor:
    """The product summed over the last axis, in float32 at least, also under autocast."""
    return (exact(change) * exact(gradient)).sum(-1)


def receiver_gradients(branch: Branch, x_BTM: Tensor, g_BTIHD: Tensor) -> Tensor:
    """Gradients at q, k and v of all heads -> at each receiver's input stream [receiver, pair, token, d_model]."""
    if not is_plain(branch.attention.qkv, gradients=True):
        return _receiver_gradients(branch, x_BTM, g_BTIHD)
    matrices_IHDM = branch.attention.qkv.weight.unflatten(0, branch.attention.split)
    g_VBTM = torch.einsum("btihd,ihdm->ihbtm", g_BTIHD, matrices_IHDM).flatten(0, 1)
    with torch.enable_grad():
        each = x_BTM.expand(len(g_VBTM), *x_BTM.shape).flatten(0, 1).detach().requires_grad_()
        (gradient,) = torch.autograd.grad(branch.read(each), each, g_VBTM.flatten(0, 1))
    return gradient.unflatten(0, g_VBTM.shape[:2])


def _receiver_gradients(branch: Branch, x_BTM: Tensor, g_BTIHD: Tensor) -> Tensor:
    """The same by calling the projections, whatever they compute."""
    receivers = g_BTIHD.shape[2] * g_BTIHD.shape[3]
    with torch.enable_grad():
        each_BTVM = x_BTM[:, :, None].expand(-1, -1, receivers, -1).detach().requires_grad_()
        read = branch.read(each_BTVM.movedim(2, 0).flatten(0, 1)).unflatten(0, (receivers, -1)).movedim(0, 2)
        found = branch.attention.linear_each(read.unflatten(2, g_BTIHD.shape[2:4]))
        (gradient,) = torch.autograd.grad(found, each_BTVM, g_BTIHD)
    return gradient.movedim(2, 0)


def _paired(moves_SBTM: Tensor, g_VBTM: Tensor) -> Tensor:
    """The product of every move with every gradient [pair, sender, receiver]."""
    moves_BSX, g_BVX = (exact(x).transpose(0, 1).flatten(2) for x in (moves_SBTM, g_VBTM))
    with torch.autocast(moves_BSX.device.type, enabled=False):
        return moves_BSX @ g_BVX.mT


def _paired_by_token(moves_SBTM: Tensor, g_VBTM: Tensor) -> Tensor:
    """The same for each token apart [pair, sender, receiver, token]."""
    with torch.autocast(moves_SBTM.device.type, enabled=False):
        return torch.einsum("sbtm,vbtm->bsvt", exact(moves_SBTM), exact(g_VBTM))


def _moves(branch: Branch, message: Tensor, output_BTM: Tensor, x_BTM: Tensor, delta: Tensor) -> Tensor:
    """How the stream after a stage moves with each of its senders [sender, pair, token, d_model]."""
    if branch.is_mlp:
        return _push(lambda y: branch.add(x_BTM, y), message, delta[None])
    if branch.attention.ln is None and is_plain(branch.attention.out, gradients=True):
        wrote = branch.attention.results(delta).movedim(2, 0)
    else:  # what one head sends may change what the others write: one norm over all heads
        one = torch.eye(delta.shape[2]).to(delta)[:, None, None, :, None]
        along = one * delta
        wrote = _push(lambda z: branch.attention.write(z.flatten(0, 1)).unflatten(0, (len(along), -1)), message, along)
    return _push(lambda y: branch.add(x_BTM, branch.block.scale(branch.kind, y)), output_BTM, wrote)


def _push(f: Callable[[Tensor], Tensor], at: Tensor, along: Tensor) -> Tensor:
    """The derivatives of a function at one point, along many directions [direction, ...]: two backward passes."""
    with torch.enable_grad():
        x = at.expand_as(along).detach().requires_grad_()
        y = f(x)
        cotangent = torch.zeros_like(y).requires_grad_()
        (back,) = torch.autograd.grad(y, x, cotangent, create_graph=True)
        return torch.autograd.grad(back, cotangent, along)[0]
