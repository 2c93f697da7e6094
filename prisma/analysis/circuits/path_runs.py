"""How path patching shares work: one walk over the stages of a run, with a stream for every sender that is replaced.

In the stream of sender u every other message is that of this run and u's is the donor's. A message is added to all of
them at once. At each stage they are what its receivers read when they hear u as it was; only from there on is anything
run, and only for the receiver that was changed.

Shapes: S sender, N cell (a sender and a receiver), B pair, T token, M d_model, H head, D d_head.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor

from prisma.analysis.circuits.branches import Heads, Messages, Neurons, branch_of, messages
from prisma.analysis.circuits.graph import SIDES, Graph, Stage
from prisma.analysis.patching.sweeping import directed, donor_of
from prisma.batching import measure_rows
from prisma.edits import Set
from prisma.metrics import Metric, measure
from prisma.runs import finish
from prisma.sites import Tap
from prisma.vit import ViT

Cell = tuple[int, int]
"""(sender, receiver), by their places in what was asked for."""


@dataclass(frozen=True)
class Group:
    """Receivers that are patched together: some sides of one head, an MLP, or the readout."""

    stage: int  # of the graph; as many as there are for the readout
    head: int | None = None
    sides: tuple[str, ...] = ()


def group_of(graph: Graph, name: str) -> Group:
    """A receiver, or q, k and v of a head. Raises PrismaError if there is none of that name."""
    whole = {str(node) for node in graph.senders if node.head is not None}
    at = [graph.receiver(f"{name}.{side}") for side in SIDES] if name in whole else [graph.receiver(name)]
    nodes = [graph.receivers[v] for v in at]
    stage = next((i for i, s in enumerate(graph.stages) if at[0] < s.receivers.stop), len(graph.stages))
    return Group(stage, nodes[0].head, tuple(node.side for node in nodes if node.side is not None))


@dataclass(frozen=True)
class Streams:
    """Residual streams before a stage."""

    own: Tensor  # [pair, token, d_model]
    moved: Tensor  # [sender, pair, token, d_model]: of the first senders asked for, in the order of the forward


class PathRuns:
    """All paths between some senders and some receivers."""

    def __init__(self, model: ViT, graph: Graph, senders: Sequence[int], groups: Sequence[Group], size: int) -> None:
        self.model, self.graph, self.groups, self.size = model, graph, groups, size
        self.senders = sorted(set(senders))
        self.places = [self.senders.index(sender) for sender in senders]

    def values(self, clean: Tensor, corrupt: Tensor, metric: Metric, into: str) -> tuple[Tensor, dict[str, Tensor]]:
        """[image, sender, receiver] of every patched run, and [image] of the clean and the corrupt run.

        Raises:
            PrismaError: shapes differ, `into` is neither, or the metric is not one finite number per pair.
        """
        target, donor = directed(clean, corrupt, into)
        values, logits = [], []
        step = max(self.size // len(self.senders), 1)
        for rows in (slice(i, i + step) for i in range(0, len(target), step)):
            own_logits, own = messages(self.model, target[rows])
            donor_logits, donated = messages(self.model, donor[rows])
            shape = (-1, len(self.senders), len(self.groups))
            values.append(measure_rows(metric, own_logits, rows, len(target))[:, None, None].expand(shape).clone())
            for (sender, group), of_cell in self._patched(target[rows], own, donated):
                values[-1][:, sender, group] = measure_rows(metric, of_cell, rows, len(target))
            logits.append((own_logits, donor_logits))
        runs = [measure(metric, torch.cat(parts)) for parts in zip(*logits, strict=True)]
        ends = dict(zip((into, donor_of(into)), runs, strict=True))
        return torch.cat(values)[:, self.places], ends

    def _patched(self, images: Tensor, own: Messages, donor: Messages) -> Iterator[tuple[Cell, Tensor]]:
        """Every path, and the logits [pair, class] of its run."""
        moved = donor.embed[None] if self.senders[0] == 0 else own.embed.new_empty(0, *own.embed.shape)
        before = now = Streams(own.embed, moved)
        start = own.embed
        for i, (stage, sent, donated) in enumerate(zip(self.graph.stages, own.sent, donor.sent, strict=True)):
            start = now.own if i == 0 or stage.layer > self.graph.stages[i - 1].layer else start
            read = before if stage.reads < stage.senders.start else now
            branch = branch_of(self.model, stage)
            groups = [g for g, group in enumerate(self.groups) if group.stage == i]
            if len(read.moved) and groups:
                if isinstance(branch, Heads):
                    yield from self._into_heads(images, stage, branch, start, sent, read, groups)
                else:
                    yield from self._into_neurons(images, stage, branch, now.own, read, groups)
            before, now = now, self._after(stage, branch, now, sent, donated)
        groups = [g for g, group in enumerate(self.groups) if group.stage == len(self.graph.stages)]
        yield from self._each(groups, now.moved, self.model.readout)

    def _after(self, stage: Stage, branch: Heads | Neurons, x: Streams, sent: Tensor, donated: Tensor) -> Streams:
        """The streams after a stage, with those in which a message of this stage is replaced."""
        share = branch.share(sent)
        here = [s - stage.senders.start for s in self.senders if stage.senders.start <= s < stage.senders.stop]
        moved = [branch.join(x.moved, share)]
        for some in _parts(here, self._per(sent)):
            replaced = torch.where(_heads(some, sent), donated, sent) if isinstance(branch, Heads) else donated[None]
            shares = branch.share(replaced.flatten(0, 1)).unflatten(0, (len(some), -1))
            moved.append(branch.join(x.own, shares))
        return Streams(branch.join(x.own, share), torch.cat(moved))

    def _into_heads(
        self, images: Tensor, stage: Stage, branch: Heads, start: Tensor, sent: Tensor, x: Streams, groups: list[int]
    ) -> Iterator[tuple[Cell, Tensor]]:
        """z of a head whose q, k or v hear a sender as it was, in place of the head's own; then the rest of the run."""
        own = branch.attention.project(branch.read(x.own))
        by_sides: dict[tuple[str, ...], list[int]] = {}
        for group in groups:
            by_sides.setdefault(self.groups[group].sides, []).append(group)
        for some in _parts(range(len(x.moved)), self._per(sent)):
            moved = branch.attention.project(branch.read(x.moved[some].flatten(0, 1)))
            for sides, members in by_sides.items():
                q, k, v = (
                    theirs if side in sides else _again(ours, len(some))
                    for side, theirs, ours in zip(SIDES, moved, own, strict=True)
                )
                z_SBTHD = branch.mix(q, k, v).unflatten(0, (len(some), -1))
                for cells in _parts(list(product(range(len(some)), members)), self._per(sent)):
                    heads = [self.groups[group].head for _, group in cells]
                    z_NBTHD = torch.where(_heads(heads, sent), z_SBTHD[[s for s, _ in cells]], sent)
                    logits = self._finish(images, stage, branch, start, z_NBTHD)
                    yield from (((some[s], g), of_cell) for (s, g), of_cell in zip(cells, logits, strict=True))

    def _finish(self, images: Tensor, stage: Stage, branch: Heads, start: Tensor, z_NBTHD: Tensor) -> Tensor:
        """Logits [cell, pair, class] of the run from before the block on, with this z."""
        cells, z = len(z_NBTHD), z_NBTHD.flatten(0, 1)
        edit, given = ({}, {branch.site: z}) if stage.kind == "attn" else ({branch.site: (Set(z),)}, {})
        tap = Tap(frozenset(), edit, given)
        logits = finish(self.model, _again(start, cells), _again(images, cells), start=stage.layer, tap=tap)
        return logits.unflatten(0, (cells, -1))

    def _into_neurons(
        self, images: Tensor, stage: Stage, branch: Neurons, middle: Tensor, x: Streams, groups: list[int]
    ) -> Iterator[tuple[Cell, Tensor]]:
        """The MLP of a stream, added to the run's own; then the rest of the run."""

        def logits(moved: Tensor) -> Tensor:
            times = len(moved) // len(middle)
            after = branch.join(_again(middle, times), branch.send(moved[:, :, None]))
            return finish(self.model, after, _again(images, times), start=stage.layer + 1)

        yield from self._each(groups, x.moved, logits)

    def _each(self, groups: list[int], moved: Tensor, run: Callable[[Tensor], Tensor]) -> Iterator[tuple[Cell, Tensor]]:
        """What `run` makes of each sender's stream."""
        if not groups:
            return
        for some in _parts(range(len(moved)), self._per(moved[0] if len(moved) else moved)):
            logits = run(moved[some].flatten(0, 1)).unflatten(0, (len(some), -1))
            yield from (((s, group), of_cell) for s, of_cell in zip(some, logits, strict=True) for group in groups)

    def _per(self, pairs: Tensor) -> int:
        """How many runs on these pairs go into one pass."""
        return max(self.size // max(len(pairs), 1), 1)


def _again(x: Tensor, times: int) -> Tensor:
    """All rows, so many times over."""
    return x.repeat(times, *[1] * (x.ndim - 1))


def _parts(items: Sequence[Any], size: int) -> Iterator[list[Any]]:
    return (list(items[i : i + size]) for i in range(0, len(items), size))


def _heads(chosen: Sequence[int | None], z_BTHD: Tensor) -> Tensor:
    """[chosen, 1, 1, head, 1]: True at one head each."""
    here = torch.tensor(chosen, device=z_BTHD.device)[:, None] == torch.arange(z_BTHD.shape[2], device=z_BTHD.device)
    return here[:, None, None, :, None]
