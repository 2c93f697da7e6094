"""How path patching shares work: one pass over the stages of a run, with a residual stream for every replaced sender.

In the stream of sender u, u's message comes from the source run and every other message from the target run. A message
is added to all streams at once. At each stage, the stream of u is what a receiver reads when only its path from u is
patched; the model is run from there on, for that receiver alone.

Shapes: S sender, N cell (a sender and a receiver), B pair, T token, M d_model, H head, D d_head.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor

from prisma.analysis.circuits.branches import Branch, Messages, branch_of, messages
from prisma.analysis.circuits.graph import SIDES, Graph, Stage
from prisma.analysis.patching.pairs import source_of, target_and_source
from prisma.batching import measure_rows
from prisma.metrics import Metric, measure
from prisma.runs import check_pixels, finish, resume
from prisma.vit import ViT

Cell = tuple[int, int]
"""(sender, receiver), as indices into the senders and receivers that were asked for."""


@dataclass(frozen=True)
class Group:
    """Receivers that are patched together: some sides of one head, an MLP, or the readout."""

    stage: int  # index into the graph's stages; their number for the readout
    head: int | None = None
    sides: tuple[str, ...] = ()


def group_of(graph: Graph, name: str) -> Group:
    """A receiver by name, or q, k and v of a head together. Raises PrismaError if no receiver has this name."""
    whole = {str(node) for node in graph.senders if node.head is not None}
    at = [graph.receiver(f"{name}.{side}") for side in SIDES] if name in whole else [graph.receiver(name)]
    nodes = [graph.receivers[v] for v in at]
    stage = next((i for i, s in enumerate(graph.stages) if at[0] < s.receivers.stop), len(graph.stages))
    return Group(stage, nodes[0].head, tuple(node.side for node in nodes if node.side is not None))


@dataclass(frozen=True)
class Streams:
    """Residual streams before a stage."""

    own: Tensor  # [pair, token, d_model]
    moved: Tensor  # [sender, pair, token, d_model]: for the senders so far, in the order of the forward


class PathRuns:
    """Runs with one patched path each, for all paths between some senders and some receivers.

    Args:
        mlps_follow: MLPs between the sender and the receiver are computed anew from the sender's stream.
    """

    def __init__(
        self,
        model: ViT,
        graph: Graph,
        senders: Sequence[int],
        groups: Sequence[Group],
        size: int,
        mlps_follow: bool = False,
    ) -> None:
        self.model, self.graph, self.groups, self.size, self.mlps_follow = model, graph, groups, size, mlps_follow
        self.senders = sorted(set(senders))
        self.places = [self.senders.index(sender) for sender in senders]

    def values(self, clean: Tensor, corrupt: Tensor, metric: Metric, into: str) -> tuple[Tensor, dict[str, Tensor]]:
        """The metric of every patched run [image, sender, receiver], and of the clean and the corrupt run [image].

        Raises:
            PrismaError: shapes differ, `into` is neither clean nor corrupt, or the metric is not one number per pair.
        """
        target, source = target_and_source(clean, corrupt, into)
        check_pixels(self.model, clean)
        values, logits = [], []
        step = max(self.size // len(self.senders), 1)
        for rows in (slice(i, i + step) for i in range(0, len(target), step)):
            own_logits, own = messages(self.model, target[rows])
            source_logits, new = messages(self.model, source[rows])
            shape = (-1, len(self.senders), len(self.groups))
            values.append(measure_rows(metric, own_logits, rows, len(target))[:, None, None].expand(shape).clone())
            for (sender, group), of_cell in self._patched(target[rows], own, new):
                values[-1][:, sender, group] = measure_rows(metric, of_cell, rows, len(target))
            logits.append((own_logits, source_logits))
        runs = [measure(metric, torch.cat(parts)) for parts in zip(*logits, strict=True)]
        ends = dict(zip((into, source_of(into)), runs, strict=True))
        return torch.cat(values)[:, self.places], ends

    def _patched(self, images: Tensor, own: Messages, source: Messages) -> Iterator[tuple[Cell, Tensor]]:
        """Every path, and the logits [pair, class] of its run."""
        moved = source.embed[None] if self.senders[0] == 0 else own.embed.new_empty(0, *own.embed.shape)
        before = now = Streams(own.embed, moved)
        for i, (stage, message, new) in enumerate(zip(self.graph.stages, own.stages, source.stages, strict=True)):
            read = before if stage.reads < stage.senders.start else now
            branch = branch_of(self.model, stage)
            groups = [g for g, group in enumerate(self.groups) if group.stage == i]
            if len(read.moved) and groups:
                if branch.is_mlp:
                    yield from self._into_mlp(images, branch, now.own, read, groups)
                else:
                    yield from self._into_heads(images, branch, message, read, groups)
            before, now = now, self._after(stage, branch, now, read.moved, message, new)
        groups = [g for g, group in enumerate(self.groups) if group.stage == len(self.graph.stages)]
        yield from self._each(groups, now.moved, self.model.readout)

    def _after(self, stage: Stage, branch: Branch, x: Streams, read: Tensor, message: Tensor, new: Tensor) -> Streams:
        """The streams after a stage, with those in which a message of this stage is replaced.

        Args:
            read: what the branch reads in the moved streams, of the senders before it.
        """
        written = branch.write(message)
        here = [s - stage.senders.start for s in self.senders if stage.senders.start <= s < stage.senders.stop]
        follow = read if branch.is_mlp and self.mlps_follow else read[:0]
        moved = [branch.add(x.moved[some], self._sent(branch, follow[some])) for some in self._passes(follow)]
        moved.append(branch.add(x.moved[len(follow) :], written))
        for some in _parts(here, self._runs_per_pass(message)):
            replaced = new[None] if branch.is_mlp else torch.where(_heads(some, message), new, message)
            of_each = branch.write(replaced.flatten(0, 1)).unflatten(0, (len(some), -1))
            moved.append(branch.add(x.own, of_each))
        return Streams(branch.add(x.own, written), torch.cat(moved))

    def _sent(self, branch: Branch, moved: Tensor) -> Tensor:
        """What an MLP writes in each of some moved streams [sender, pair, token, d_model]."""
        return branch.send(moved.flatten(0, 1)[:, :, None]).view_as(moved)

    def _into_heads(
        self, images: Tensor, branch: Branch, message: Tensor, x: Streams, groups: list[int]
    ) -> Iterator[tuple[Cell, Tensor]]:
        """Replace z of a head by what it is when its q, k or v reads a moved stream; then the rest of the run."""
        attention = branch.attention
        own = attention.project(branch.read(x.own))
        by_sides: dict[tuple[str, ...], list[int]] = {}
        for group in groups:
            by_sides.setdefault(self.groups[group].sides, []).append(group)
        for some in _parts(range(len(x.moved)), self._runs_per_pass(message)):
            moved = attention.project(branch.read(x.moved[some].flatten(0, 1)))
            for sides, members in by_sides.items():
                q, k, v = (
                    theirs if side in sides else _repeated(ours, len(some))
                    for side, theirs, ours in zip(SIDES, moved, own, strict=True)
                )
                z_SBTHD = attention.mix(q, k, v).unflatten(0, (len(some), -1))
                for cells in _parts(list(product(range(len(some)), members)), self._runs_per_pass(message)):
                    heads = [self.groups[group].head for _, group in cells]
                    z_NBTHD = torch.where(_heads(heads, message), z_SBTHD[[s for s, _ in cells]], message)
                    logits = self._finish(images, branch, x.own, z_NBTHD)
                    yield from (((some[s], g), of_cell) for (s, g), of_cell in zip(cells, logits, strict=True))

    def _finish(self, images: Tensor, branch: Branch, x: Tensor, z_NBTHD: Tensor) -> Tensor:
        """Logits [cell, pair, class] of the run that continues from this z; `x` is the stream that the heads add to."""
        cells, z = len(z_NBTHD), z_NBTHD.flatten(0, 1)
        stream, site, value = _repeated(x, cells), "attn.z", z
        if branch.kind == "time":
            site, value = "resid_time", branch.add(stream, branch.write(z))
        logits = resume(self.model, _repeated(images, cells), branch.layer, site, value, stream)
        return logits.unflatten(0, (cells, -1))

    def _into_mlp(
        self, images: Tensor, branch: Branch, resid_mid: Tensor, x: Streams, groups: list[int]
    ) -> Iterator[tuple[Cell, Tensor]]:
        """Replace the MLP's output by what it is when the MLP reads a moved stream; then the rest of the run."""

        def logits(moved: Tensor) -> Tensor:
            times = len(moved) // len(resid_mid)
            after = branch.add(_repeated(resid_mid, times), branch.send(moved[:, :, None]))
            return finish(self.model, after, _repeated(images, times), start=branch.layer + 1)

        yield from self._each(groups, x.moved, logits)

    def _each(self, groups: list[int], moved: Tensor, run: Callable[[Tensor], Tensor]) -> Iterator[tuple[Cell, Tensor]]:
        """The logits that `run` computes from each sender's stream."""
        if not groups:
            return
        for some in self._passes(moved):
            logits = run(moved[some].flatten(0, 1)).unflatten(0, (len(some), -1))
            yield from (((s, group), of_cell) for s, of_cell in zip(some, logits, strict=True) for group in groups)

    def _passes(self, moved: Tensor) -> Iterator[list[int]]:
        """The indices of moved streams [sender, pair, ...] that go into one pass after another."""
        return _parts(range(len(moved)), self._runs_per_pass(moved[0] if len(moved) else moved))

    def _runs_per_pass(self, pairs: Tensor) -> int:
        """How many runs on these pairs go into one pass."""
        return max(self.size // max(len(pairs), 1), 1)


def _repeated(x: Tensor, times: int) -> Tensor:
    """All rows, repeated."""
    return x.repeat(times, *[1] * (x.ndim - 1))


def _parts(items: Sequence[Any], size: int) -> Iterator[list[Any]]:
    return (list(items[i : i + size]) for i in range(0, len(items), size))


def _heads(chosen: Sequence[int | None], z_BTHD: Tensor) -> Tensor:
    """[chosen, 1, 1, head, 1]: True at one head per row."""
    here = torch.tensor(chosen, device=z_BTHD.device)[:, None] == torch.arange(z_BTHD.shape[2], device=z_BTHD.device)
    return here[:, None, None, :, None]
