"""The graph of a vision transformer: what writes to the residual stream, what reads from it, and which edges exist.

Senders write to the stream: the embedding, each head, each MLP. Receivers read from it: each head's q, k and v, each
MLP, and the readout (`logits`). Every sender has an edge to every receiver that comes after it, because the residual
stream connects them directly.

Names: `embed`, `a1.h2` (attention of layer 1, head 2), `t1.h2` (divided attention: over time), `m4` (MLP of layer 4);
as receivers `a1.h2.q`, `a1.h2.k`, `a1.h2.v`, `t1.h2.q`, ..., `m4`, `logits`.

Source: Elhage et al. 2021, A Mathematical Framework for Transformer Circuits; edges as in Goldowsky-Dill et al.
2304.05969 and Syed et al. 2310.10348.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from prisma.config import TransformerConfig, ViTConfig
from prisma.errors import PrismaError, nearest

SIDES = ("q", "k", "v")
MOST_ROWS, MOST_LETTERS = 24, 70  # that a picture has room for, as names of rows and of columns
_LETTERS = {"attn": "a", "time": "t", "mlp": "m"}
Edge = tuple[str, str]
"""(sender, receiver), by name."""


@dataclass(frozen=True)
class Node:
    """A sender or a receiver. `str(node)` is its name."""

    kind: str  # "embed", "attn", "time", "mlp" or "logits"
    layer: int | None = None
    head: int | None = None
    side: str | None = None  # for a head as receiver: "q", "k" or "v"

    def __str__(self) -> str:
        if self.layer is None:
            return self.kind
        parts = [f"{_LETTERS[self.kind]}{self.layer}", f"h{self.head}", self.side]
        return ".".join(str(part) for part in parts[: 1 + (self.head is not None) + (self.side is not None)])


@dataclass(frozen=True)
class Stage:
    """A branch of a block, and the places of its nodes among all senders and receivers."""

    kind: str  # "time", "attn" or "mlp"
    layer: int
    senders: slice
    receivers: slice
    reads: int  # how many senders it reads: the first `reads` of all


class Graph:
    """Nodes in the order of the forward.

    Args:
        config: the architecture of a vision transformer.

    Raises:
        PrismaError: the model is a text tower.
    """

    def __init__(self, config: TransformerConfig) -> None:
        if not isinstance(config, ViTConfig):
            raise PrismaError(f"the graph of a vision transformer needs its ViTConfig; found {type(config).__name__}")
        self.config = config
        senders, receivers, stages = [Node("embed")], list[Node](), list[Stage]()
        kinds = [*["time"] * (config.attention == "divided"), "attn", *["mlp"] * (config.d_mlp > 0)]
        for layer in range(config.n_layers):
            for kind in kinds:
                heads = [None] if kind == "mlp" else list(range(config.n_heads))
                sides = [None] if kind == "mlp" else list(SIDES)
                first, before = len(senders), len(receivers)
                senders += [Node(kind, layer, head) for head in heads]
                receivers += [Node(kind, layer, head, side) for side in sides for head in heads]
                reads = stages[-1].reads if kind == "mlp" and config.parallel else first
                stages.append(Stage(kind, layer, slice(first, len(senders)), slice(before, len(receivers)), reads))
        self.stages = tuple(stages)
        self.senders = tuple(senders)
        self.receivers = (*receivers, Node("logits"))
        self.reads = (*(s.reads for s in stages for _ in range(s.receivers.start, s.receivers.stop)), len(senders))
        self._sender = {str(node): i for i, node in enumerate(self.senders)}
        self._receiver = {str(node): i for i, node in enumerate(self.receivers)}

    @property
    def edges(self) -> Tensor:
        """Boolean [sender, receiver]: which edges exist."""
        return torch.arange(len(self.senders))[:, None] < torch.tensor(self.reads)

    def sender(self, name: str) -> int:
        """Index of a sender. Raises PrismaError, with the nearest names, if no sender has this name."""
        return _index(name, self._sender, "sender")

    def receiver(self, name: str) -> int:
        """Index of a receiver. Raises PrismaError, with the nearest names, if no receiver has this name."""
        return _index(name, self._receiver, "receiver")

    def mask(self, edges: Iterable[Edge]) -> Tensor:
        """Edges by name -> boolean [sender, receiver].

        Raises:
            PrismaError: a node or an edge does not exist.
        """
        exists, mask = self.edges, torch.zeros(len(self.senders), len(self.receivers), dtype=torch.bool)
        for sender, receiver in edges:
            at = self.sender(sender), self.receiver(receiver)
            if not exists[at]:
                raise PrismaError(
                    f"there is no edge {sender} -> {receiver}: {receiver} does not read what {sender} writes"
                )
            mask[at] = True
        return mask

    def named(self, mask: Tensor) -> list[Edge]:
        """Boolean [sender, receiver] -> edges by name, senders in order."""
        return [(str(self.senders[s]), str(self.receivers[r])) for s, r in mask.nonzero().tolist()]

    def writer(self, receiver: int) -> int | None:
        """The sender that a receiver belongs to: `a1.h2` for `a1.h2.q`; None for `logits`."""
        node = self.receivers[receiver]
        return self._sender.get(str(Node(node.kind, node.layer, node.head)))

    def on_paths(self, mask: Tensor) -> Tensor:
        """The edges of a mask that lie on a path from `embed` to `logits`, without dead ends.

        With tokens [sender, receiver, token], q of a head at a token leads to what it sends there, k and v to what it
        sends at all tokens.
        """
        mask_SVT = mask if mask.ndim == 3 else mask[..., None]
        owners = [self.writer(r) for r in range(len(self.receivers))]
        reached_ST = mask_SVT.new_zeros(len(self.senders), mask_SVT.shape[2])
        reached_ST[0] = True  # from the embedding, in the order of the forward
        for r, owner in enumerate(owners):
            if owner is not None:
                reached_ST[owner] |= self._leads(r, (mask_SVT[:, r] & reached_ST).any(0))
        useful_VT = mask_SVT.new_zeros(len(self.receivers), mask_SVT.shape[2])
        useful_VT[-1] = True  # leads to the readout, in reverse order
        for r, owner in reversed(list(enumerate(owners))):
            if owner is not None:
                useful_VT[r] = self._leads(r, (mask_SVT[owner] & useful_VT).any(0))
        return (mask_SVT & reached_ST[:, None] & useful_VT).view_as(mask)

    def _leads(self, receiver: int, at_T: Tensor) -> Tensor:
        """From tokens of a receiver to those of its sender, or back."""
        return at_T.any().expand_as(at_T) if self.receivers[receiver].side in ("k", "v") else at_T


def _index(name: str, known: dict[str, int], what: str) -> int:
    if name not in known:
        raise PrismaError(f"this model has no {what} {name!r}; the nearest are {nearest(name, known)}")
    return known[name]


def names(nodes: Sequence[Node]) -> list[str]:
    """The names of these nodes."""
    return [str(node) for node in nodes]


def picture_labels(metadata: Mapping[str, Any]) -> dict[str, Sequence[str]]:
    """Labels of the senders and receivers of a result in a picture: their names, or layers if there are too many."""
    senders, receivers = metadata["senders"], metadata["receivers"]
    return {
        "sender": senders if len(senders) <= MOST_ROWS else by_layer(senders),
        "receiver": receivers if len("".join(receivers)) <= MOST_LETTERS else by_layer(receivers),
    }


def by_layer(names: Sequence[str]) -> list[str]:
    """One label per layer: each attention's name in the middle of its heads, the first and last names, else nothing."""
    labels = list[str]()
    for stem, group in groupby(name.split(".")[0] for name in names):
        heads = len(list(group))
        labels += ["" if stem.startswith("m") or i != heads // 2 else stem for i in range(heads)]
    return labels


def largest(values_SV: Tensor, metadata: Mapping[str, Any], n: int) -> list[tuple[Edge, float]]:
    """The n values of the largest size, with the names of their edges."""
    senders, receivers = metadata["senders"], metadata["receivers"]
    return [((senders[s], receivers[v]), value) for s, v, value in largest_places(values_SV, n)]


def largest_places(values_SV: Tensor, n: int) -> list[tuple[int, int, float]]:
    """(sender, receiver, value) of the n values of the largest size, by index."""
    order = values_SV.abs().flatten().argsort(descending=True, stable=True)[:n].tolist()
    at = [divmod(i, values_SV.shape[1]) for i in order]
    return [(s, v, values_SV[s, v].item()) for s, v in at]
