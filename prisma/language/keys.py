"""Keys of an MLP: what the linear map that writes into the stream reads at the last token of a subject.

Every key is a mean over contexts: the bare prompt, and the prompt after texts that the model itself writes. One key is
used everywhere in an edit. ROME's code uses the mean in one place and the bare prompt's in another, and where the two
disagree its edits explode (2403.07175).
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prisma.language.anatomy import Anatomy
from prisma.language.prompts import answer_ids, locate
from prisma.language.restored_runs import by_row, recorded

LENGTHS = ((5, 10), (10, 10))
"""(tokens, how many) of the texts that stand before a prompt, as in ROME."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Texts as rows of tokens, padded on the right."""

    ids: Tensor  # [row, token]
    mask: Tensor  # [row, token]: 1 where there is a token
    last: Tensor  # [row]: the index of the last token

    @classmethod
    def of(cls, rows: Sequence[Tensor], device: torch.device) -> "Batch":
        lengths = torch.tensor([len(row) for row in rows])
        ids = nn.utils.rnn.pad_sequence([row.cpu() for row in rows], batch_first=True)
        mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
        return cls(ids.to(device), mask.to(device), (lengths - 1).to(device))

    def logits(self, model: nn.Module) -> Tensor:
        """[row, token, word]."""
        return model(input_ids=self.ids, attention_mask=self.mask, use_cache=False).logits


@torch.no_grad()
def written_contexts(
    parts: Anatomy, tokenizer: Any, lengths: Sequence[tuple[int, int]] = LENGTHS, seed: int = 0, top_k: int = 5
) -> list[str]:
    """Templates in which a prompt stands alone, and after short texts that the model writes: "{}", "... . {}"."""
    generator = torch.Generator().manual_seed(seed)
    start = getattr(tokenizer, "bos_token_id", None)
    found = ["{}"]
    for length, count in lengths:
        ids = torch.full((count, 1), 0 if start is None else start, device=parts.device)
        ids = continued(parts.model, ids, length, generator, top_k)[:, 1:]
        texts = (str(tokenizer.decode(row, skip_special_tokens=True)).strip().rstrip(".") for row in ids)
        found += [text.strip().replace("{", "").replace("}", "") + ". {}" for text in texts if text.strip()]
    return found


@torch.no_grad()
def continued(
    model: nn.Module, ids: Tensor, length: int, generator: torch.Generator | None = None, top_k: int = 5
) -> Tensor:
    """Rows of equal length with `length` more tokens, each drawn from the `top_k` likeliest; 1 is the likeliest."""
    for _ in range(length):
        logits = model(input_ids=ids, use_cache=False).logits[:, -1].float()
        values, words = logits.topk(min(top_k, logits.shape[-1]))
        pick = torch.multinomial(values.softmax(-1).cpu(), 1, generator=generator).to(ids.device)
        ids = torch.cat([ids, words.gather(1, pick)], dim=1)
    return ids


def in_contexts(
    tokenizer: Any, contexts: Sequence[str], prompt: str, subject: str, answer: str | None = None
) -> tuple[list[Tensor], Tensor, list[Tensor]]:
    """A prompt (and its answer) as tokens in each context, where the subject's last token is, and the answers.

    Raises:
        PrismaError: as `locate` and `answer_ids`.
    """
    rows, lookup, answers = [], [], []
    for context in contexts:
        place = locate(tokenizer, prompt, subject, context)
        target = place.ids[:0] if answer is None else answer_ids(tokenizer, place.text, answer)
        rows.append(torch.cat([place.ids, target]))
        lookup.append(place.last)
        answers.append(target)
    return rows, torch.tensor(lookup), answers


@contextmanager
def recorded_inputs(parts: Anatomy, layers: Sequence[int], rows: int) -> Iterator[dict[int, Tensor]]:
    """Layer -> what the last linear map of its MLP reads [row, token, d_mlp] in the run inside."""
    inputs: dict[int, Tensor] = {}

    def note(layer: int) -> Any:
        return lambda module, args: inputs.__setitem__(layer, by_row(args[0], rows))

    with ExitStack() as stack:
        for layer in layers:
            stack.callback(parts.mlp_out[layer].register_forward_pre_hook(note(layer)).remove)
        yield inputs


@torch.no_grad()
def keys_at(parts: Anatomy, layers: Sequence[int], rows: Sequence[Tensor], lookup: Tensor) -> dict[int, Tensor]:
    """Layer -> keys [row, d_mlp] at one token of each row."""
    batch = Batch.of(rows, parts.device)
    with recorded_inputs(parts, layers, len(rows)) as inputs:
        batch.logits(parts.model)
    at = torch.arange(len(rows), device=parts.device), lookup.to(parts.device)
    return {layer: x[at] for layer, x in inputs.items()}


@torch.no_grad()
def streams_at(parts: Anatomy, layer: int, rows: Sequence[Tensor], lookup: Tensor) -> Tensor:
    """The stream after a block [row, d_model] at one token of each row."""
    batch = Batch.of(rows, parts.device)
    with recorded([parts.blocks[layer]], len(rows)) as outputs:
        batch.logits(parts.model)
    return outputs[parts.blocks[layer]][torch.arange(len(rows), device=parts.device), lookup.to(parts.device)]
