"""AtP*: attribution patching with the attention pattern recomputed (QK fix) and without cancellation (GradDrop).

    attribution of q = sum over keys of  (pattern with q' - pattern) . d metric / d pattern     likewise of k
    attribution of v, z, MLP = (a' - a) . d metric / d a                                       as attribution patching

The softmax of patterns with one patched query, or one patched key, is exact, so a saturated pattern is no reason to
miss a query or a key; from the pattern on, the estimate is to first order. With a key t patched, each query moves
weight between t and its other keys alone, so all keys of a head take two softmaxes:

    effect of k_t on query i = (p'_it - p_it) (g_it - mean of g_ij over the other keys j, weighted by p_ij)

with p' = sigmoid(new score - logsumexp of the other scores) and g = d metric / d pattern.

GradDrop looks for effects that cancel: what a part does directly, and what it does through a later layer, may have
opposite signs. For each layer l the gradient is taken without what passes through the branches of layer l, and

    size of a part = 1 / (L - 1)  sum over l of  |attribution with layer l left out|

Left out is the part's own layer too, which gives 0: so L - 1. A size has no sign.

Source: Kramár et al. 2403.00745 (AtP*; its statistical bound for what is missed is not here).

Shapes: B pair, T token, H head, D d_head, Q query, K key.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from prisma.analysis.border import guarded
from prisma.analysis.circuits.attribution_passes import AttributionPasses
from prisma.analysis.circuits.branches import branch_of
from prisma.analysis.circuits.gradient_run import GradientRun
from prisma.analysis.circuits.graph import SIDES, Graph
from prisma.analysis.result import PairedEffect
from prisma.attention import Attention
from prisma.batching import inputs_per_pass
from prisma.errors import PrismaError
from prisma.metrics import Metric
from prisma.numbers import exact
from prisma.sites import Tap
from prisma.vit import ViT

Sides = Sequence[Tensor]
"""q, k and v [pair, token, head, d_head], as the dot product sees them."""


@dataclass(frozen=True, kw_only=True, eq=False)
class AtpStar(PairedEffect):
    """Estimated effect of patching each part; with GradDrop its size, which is never negative.

    Large: patching this part changes the metric, by about so much. `heads`, `sides` and `mlps` are of all tokens
    patched at once; the others of one token.
    """

    AXES: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "effect": ("layer", "head"),
        "stderr": ("layer", "head"),
        "heads": ("image", "layer", "head"),
        "sides": ("image", "layer", "side", "head"),
        "mlps": ("image", "layer"),
        "head_tokens": ("image", "layer", "head", "token"),
        "query_tokens": ("image", "layer", "head", "token"),
        "key_tokens": ("image", "layer", "head", "token"),
        "value_tokens": ("image", "layer", "head", "token"),
        "mlp_tokens": ("image", "layer", "token"),
        "clean": ("image",),
        "corrupt": ("image",),
    }

    heads: Tensor  # for `attn.z`
    sides: Tensor  # for `attn.q`, `attn.k` and `attn.v`
    head_tokens: Tensor
    query_tokens: Tensor
    key_tokens: Tensor
    value_tokens: Tensor
    mlps: Tensor | None = None  # for `mlp_out`
    mlp_tokens: Tensor | None = None

    @property
    def names(self) -> Mapping[str, Sequence[str]]:
        return {"side": SIDES}

    @property
    def per_image(self) -> Tensor:
        return self.heads


@guarded
def atp_star(
    model: ViT,
    clean: Tensor,
    corrupt: Tensor,
    metric: Metric,
    *,
    grad_drop: bool = True,
    into: str = "clean",
    batch: int | None = None,
) -> AtpStar:
    """Which heads, queries, keys, values and MLPs carry the difference, where patterns saturate and effects cancel?

    The result ranks candidates for exact patching. With `grad_drop` a number is a size of 0 or more, without it an
    estimate of `metric(patched) - metric(target)` with its sign.

    Cost: a forward for each image of a pair, a backward, or one for each layer with `grad_drop`, and for each layer
    the scores of every head four times.

    Args:
        clean, corrupt: pairs of images [image, channel, (frame,) height, width], of the same shape.
        metric: logits [batch, class] -> one finite number per pair [batch], which has a gradient and depends on that
            pair's logits alone.
        grad_drop: whether to average sizes over gradients with one layer left out each (GradDrop), or to take the
            gradient as it is (the QK fix alone).
        into: `"clean"` for corrupt values in the clean run (noising), `"corrupt"` the other way (denoising).
        batch: pairs per pass at most; by default as many as fit in 256 MiB, and one at least.

    Returns:
        `.effect`, `.stderr` [layer, head]; for each pair `.heads` [image, layer, head], `.sides` [image, layer, side,
        head], `.mlps` [image, layer], the same by token, `.clean` and `.corrupt` [image].

    Raises:
        PrismaError: as `attribution_patching`; attention is divided; or `grad_drop` with fewer than two layers.
    """
    config = model.config
    if config.attention == "divided":
        raise PrismaError(
            "expected a model with joint attention, each row of which is one softmax; found divided attention"
        )
    if grad_drop and config.n_layers == 1:
        raise PrismaError(
            "expected 2 layers or more, of which GradDrop leaves out one each; found n_layers=1: use grad_drop=False "
            "(--set grad_drop=False)"
        )
    found = _Passes(model, metric, nodes=True, edges=False, steps=1, into=into, batch=batch, grad_drop=grad_drop).run(
        clean, corrupt
    )
    settings = {"grad_drop": grad_drop, "into": into, "pairs": len(found["clean"])}
    return AtpStar(metadata={"analysis": "atp_star", **settings}, **found)


@dataclass(frozen=True)
class _Passes(AttributionPasses):
    grad_drop: bool = True

    def _pairs_per_pass(self, graph: Graph) -> int:
        config = self.model.config
        stream = config.n_tokens * config.d_model
        gradients = 2 * (config.n_layers if self.grad_drop else 1) + 20
        size = next(self.model.parameters()).element_size()
        memory = size * (config.n_layers * gradients * stream + 12 * config.n_heads * config.n_tokens**2)
        return inputs_per_pass(self.model, self.batch, memory=memory)

    def _products(self, graph: Graph, run: GradientRun, change: GradientRun, slope_BC: Tensor) -> dict[str, Tensor]:
        layers: dict[str, list[Tensor]] = {}
        with_each_left_out = list(self._gradients(graph, run, slope_BC))
        with torch.no_grad():
            for i, stage in enumerate(graph.stages):
                branch = branch_of(self.model, stage)
                if branch.is_mlp:
                    parts = [{"mlp_tokens": _dot(change.messages[i], g[i])} for g in with_each_left_out]
                else:
                    head = _Head(branch.attention, run.forks[i].detach(), change.forks[i], change.messages[i])
                    parts = [head.estimates(g[i]) for g in with_each_left_out]
                for name, value in self._averaged([_with_wholes(part) for part in parts]).items():
                    layers.setdefault(name, []).append(value)
        return {name: torch.stack(values, dim=1) for name, values in layers.items()}

    def _averaged(self, parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
        if not self.grad_drop:
            return parts[0]
        return {name: torch.stack([part[name].abs() for part in parts]).sum(0) / (len(parts) - 1) for name in parts[0]}

    def _gradients(self, graph: Graph, run: GradientRun, slope_BC: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """The gradient at every message: with one layer left out after the other, or once, whole."""
        for layer in range(self.model.config.n_layers) if self.grad_drop else [None]:
            own = [x for x, stage in zip(run.written, graph.stages, strict=True) if stage.layer == layer]
            handles = [x.register_hook(torch.zeros_like) for x in own]
            yield torch.autograd.grad(run.logits, run.messages, slope_BC, retain_graph=True)
            for handle in handles:
                handle.remove()


class _Head:
    """The heads of a layer, with what does not depend on the gradient computed once.

    Args:
        own, change: q, k and v before QK-norm and rotation [pair, token, side, head, d_head], and source minus own.
        moved: source minus own of z.
    """

    def __init__(self, attention: Attention, own: Tensor, change: Tensor, moved: Tensor) -> None:
        (q, k, v), (new_q, new_k, new_v) = (attention.placed(*x.unbind(2)) for x in (own, own + change))
        self.scores, self.with_q, self.with_k = (
            _scores(attention, *sides, v) for sides in ((q, k), (new_q, k), (q, new_k))
        )
        self.pattern, self.v, self.change_v, self.moved = self.scores.softmax(-1), exact(v), exact(new_v - v), moved

    def estimates(self, g_BTHD: Tensor) -> dict[str, Tensor]:
        """The effect of each token, and of all keys at once, for a gradient at z."""
        by_key, new = (torch.einsum("bqhd,bkhd->bhqk", exact(g_BTHD), x) for x in (self.v, self.change_v))
        queries, all_keys = ((x.softmax(-1) - self.pattern) * by_key for x in (self.with_q, self.with_k))
        return {
            "head_tokens": _dot(self.moved, g_BTHD).mT,
            "query_tokens": queries.sum(-1),
            "key_tokens": one_key_each(self.scores, self.with_k, by_key).sum(-2),
            "value_tokens": (self.pattern * new).sum(-2),
            "all_keys": all_keys.sum((-1, -2)),
        }


def one_key_each(scores: Tensor, new: Tensor, g: Tensor) -> Tensor:
    """How much sum_k pattern g changes for each query when one key alone has its new score [..., query, key].

    Only the largest weight of a row can be near 1, where 1 minus it would be rounded: there the softmax of the others
    is computed by itself.
    """
    if scores.shape[-1] == 1:
        return torch.zeros_like(scores)
    p, top = scores.softmax(-1), scores.argmax(-1, keepdim=True)
    others = scores.scatter(-1, top, -torch.inf)
    least = (1 - p).scatter(-1, top, 1.0)
    rest = (scores.logsumexp(-1, keepdim=True) + least.log()).scatter(-1, top, others.logsumexp(-1, keepdim=True))
    mean = (((p * g).sum(-1, keepdim=True) - p * g) / least).scatter(
        -1, top, (others.softmax(-1) * g).sum(-1, keepdim=True)
    )
    return ((new - rest).sigmoid() - (scores - rest).sigmoid()) * (g - mean)


def _scores(attention: Attention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    tap = Tap(["scores"])
    attention.attend(q, k, v, tap)
    return tap.tensors["scores"]


def _with_wholes(part: dict[str, Tensor]) -> dict[str, Tensor]:
    """The parts of a layer by token, and all tokens together."""
    if "mlp_tokens" in part:
        return {**part, "mlps": part["mlp_tokens"].sum(-1)}
    keys = part.pop("all_keys")
    sides = [part["query_tokens"].sum(-1), keys, part["value_tokens"].sum(-1)]
    return {**part, "heads": part["head_tokens"].sum(-1), "sides": torch.stack(sides, dim=1)}


def _dot(change: Tensor, gradient: Tensor) -> Tensor:
    return (exact(change) * exact(gradient)).sum(-1)
