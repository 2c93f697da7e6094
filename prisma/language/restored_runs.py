"""Runs of a language model in which noise hides the subject, and one state after the other has its clean value.

What many runs share is computed once. Before the layer of the state that is restored, a run is the corrupt run: it
starts there. Tokens before the subject are the same in all runs: restoring them changes nothing, and no run is needed.
Runs of several states and all draws of the noise go through the model together.

Shapes: S draw of the noise, R row of a pass (a draw for a cell), T token, D d_model.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prisma.language.anatomy import Anatomy, replaced, stream
from prisma.language.prompts import Prompt

Change = Callable[[Tensor], Tensor]


def by_row(x: Tensor, rows: int) -> Tensor:
    """[row, token, ...], also where a model gives its linear maps the tokens of all rows one after the other (OPT)."""
    return x if x.ndim == 3 else x.unflatten(0, (rows, -1))


@contextmanager
def changed(changes: Sequence[tuple[nn.Module, Change]], rows: int) -> Iterator[None]:
    """Within, the outputs [row, token, ...] of these modules are what the functions make of them."""

    def hook(change: Change) -> Any:
        def put(module: nn.Module, inputs: Any, output: Any) -> Any:
            x = stream(output)
            return replaced(output, change(by_row(x, rows)).view_as(x))

        return put

    with ExitStack() as stack:
        for module, change in changes:
            stack.callback(module.register_forward_hook(hook(change)).remove)
        yield


@contextmanager
def recorded(modules: Sequence[nn.Module], rows: int) -> Iterator[dict[nn.Module, Tensor]]:
    """Module -> its output [row, token, ...] in the run inside."""
    outputs: dict[nn.Module, Tensor] = {}

    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        outputs[module] = by_row(stream(output), rows)

    with ExitStack() as stack:
        for module in modules:
            stack.callback(module.register_forward_hook(note).remove)
        yield outputs


def last_logits(model: nn.Module, ids: Tensor) -> Tensor:
    """Logits after the last token [row, word], and no others where the model can leave them out."""
    fewer = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
    return model(input_ids=ids, use_cache=False, **fewer).logits[:, -1]


@dataclass(frozen=True, eq=False)
class RestoredRuns:
    """The clean run, the corrupt runs, and what restored runs need of them."""

    parts: Anatomy
    prompt: Prompt
    kind: str
    sever: str | None
    noise: Tensor  # [draw, subject token, embedding]
    clean: list[Tensor]  # of each layer [token, D]: the states of this kind
    corrupt: list[Tensor]  # of each layer [draw, token, D]: what its block returns
    severed: list[Tensor]  # of each layer [draw, token, D]: what the severed sub-layer writes in the corrupt run
    clean_logits: Tensor  # [word]
    corrupt_logits: Tensor  # [draw, word]

    @classmethod
    def of(cls, parts: Anatomy, prompt: Prompt, kind: str, sever: str | None, noise: Tensor) -> "RestoredRuns":
        ids = prompt.ids.to(parts.device)[None]
        states, cut = parts.parts(kind), parts.parts(sever) if sever else ()
        with recorded(states, 1) as outputs:
            clean_logits = last_logits(parts.model, ids)[0]
        clean = [outputs[part][0] for part in states]
        n = len(noise)
        with changed([(parts.embedding, _noisy(prompt, noise))], n), recorded([*parts.blocks, *cut], n) as outputs:
            corrupt_logits = last_logits(parts.model, ids.expand(n, -1))
        corrupt, severed = ([outputs[part] for part in some] for some in (parts.blocks, cut))
        return cls(parts, prompt, kind, sever, noise, clean, corrupt, severed, clean_logits, corrupt_logits)

    def cells(self) -> list[tuple[int, int]]:
        """(layer, token) of all states whose restoring can change anything."""
        return [(layer, t) for layer in range(len(self.clean)) for t in range(self.prompt.start, len(self.prompt))]

    def logits(self, cells: Sequence[tuple[int, int]], window: int) -> Tensor:
        """Logits after the last token [cell, draw, word] where the states of a window around each cell are restored."""
        draws, n_layers = len(self.noise), len(self.clean)
        row = torch.arange(len(cells) * draws, device=self.parts.device).unflatten(0, (-1, draws))
        ranges = [_window(layer, window, n_layers) for layer, _ in cells]
        changes: list[tuple[nn.Module, Change]] = [
            (self.parts.embedding, _noisy(self.prompt, self.noise.repeat(len(cells), 1, 1)))
        ]
        for layer, part in enumerate(self.parts.parts(self.kind)):
            some = [(i, t) for i, ((_, t), layers) in enumerate(zip(cells, ranges, strict=True)) if layer in layers]
            if some:
                tokens = torch.tensor([t for _, t in some], device=row.device)
                values = self.clean[layer][tokens][:, None].expand(-1, draws, -1)
                changes.append((part, _at(row[[i for i, _ in some]], tokens[:, None].expand(-1, draws), values)))
        for layer, part in enumerate(self.parts.parts(self.sever) if self.sever else ()):
            some = [(i, t) for i, (of, t) in enumerate(cells) if layer > of]
            if some:
                tokens = torch.tensor([t for _, t in some], device=row.device)
                values = self.severed[layer][:, tokens].transpose(0, 1)
                changes.append((part, _at(row[[i for i, _ in some]], tokens[:, None].expand(-1, draws), values)))
        first = min(min(layers) for layers in ranges) + (self.kind == "hidden")
        start = first if self.parts.starts_late else 0
        before = self.corrupt[start - 1].repeat(len(cells), 1, 1) if start else None
        with self.parts.from_block(start, before), changed(changes, row.numel()):
            found = last_logits(self.parts.model, self.prompt.ids.to(row.device).expand(row.numel(), -1))
        return found.unflatten(0, (-1, draws))


def _window(layer: int, window: int, n_layers: int) -> range:
    """The layers of a window around a layer, as in ROME: one more before the layer than after it, where it is even."""
    return range(max(0, layer - window // 2), min(n_layers, layer + (window + 1) // 2))


def _noisy(prompt: Prompt, noise: Tensor) -> Change:
    def change(x: Tensor) -> Tensor:
        x = x.clone()
        x[:, prompt.start : prompt.end] += noise
        return x

    return change


def _at(rows: Tensor, tokens: Tensor, values: Tensor) -> Change:
    def change(x: Tensor) -> Tensor:
        x = x.clone()
        x[rows, tokens] = values.to(x)
        return x

    return change
