"""A prompt as tokens: where its subject is, and which tokens an answer has."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from prisma.errors import PrismaError, nearest, quoted

GROUPS = (
    "first subject token",
    "middle subject tokens",
    "last subject token",
    "first subsequent token",
    "further tokens",
    "last token",
)
"""The groups of tokens over which effects are averaged, as in ROME."""


@dataclass(frozen=True, eq=False)
class Prompt:
    """The tokens of a prompt, of which those from `start` to before `end` are its subject."""

    text: str
    ids: Tensor  # [token]
    words: tuple[str, ...]  # what each token shows
    start: int
    end: int

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def last(self) -> int:
        """The index of the subject's last token."""
        return self.end - 1

    def groups(self) -> dict[str, list[int]]:
        """Group -> its tokens. A subject of one token counts as its last; tokens before the subject are in no group."""
        end, last = self.end, len(self) - 1
        of = (
            range(self.start, min(self.start + 1, end - 1)),
            range(self.start + 1, end - 1),
            range(end - 1, end),
            range(end, min(end + 1, last)),
            range(end + 1, last),
            range(max(last, end), last + 1),
        )
        return {name: list(tokens) for name, tokens in zip(GROUPS, of, strict=True)}


def filled(template: str, subject: str) -> str:
    """A prompt from a template with `{}` in the place of the subject, or from a text that has the subject in it."""
    return template.replace("{}", subject) if "{}" in template else template


def locate(tokenizer: Any, prompt: str, subject: str) -> Prompt:
    """The tokens of a prompt, and those of the first place where its subject is, as a whole word if there is one.

    Raises:
        PrismaError: the subject is empty or not in the prompt.
    """
    text = filled(prompt, subject)
    name = subject.strip()
    found = re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text) or re.search(re.escape(name), text)
    if not name or found is None:
        there = re.findall(r"\w+", text)
        raise PrismaError(
            f"expected the subject {quoted(subject)} in the prompt {quoted(text, 200)}; found no such text in it; "
            f"the nearest words: {nearest(name, there)}"
        )
    encoded = tokenizer(text, return_offsets_mapping=True) if getattr(tokenizer, "is_fast", False) else tokenizer(text)
    ids = list(encoded["input_ids"])
    spans = encoded.get("offset_mapping") or _spans(tokenizer, text, ids)
    inside = [i for i, (start, end) in enumerate(spans) if start < found.end() and end > found.start()]
    if not inside:
        raise PrismaError(f"expected tokens for the subject {quoted(subject)} in the prompt; found none")
    words = tuple(
        text[start:end] or str(tokenizer.convert_ids_to_tokens(i)) for i, (start, end) in zip(ids, spans, strict=True)
    )
    return Prompt(text, torch.tensor(ids), words, inside[0], inside[-1] + 1)


def _spans(tokenizer: Any, text: str, ids: Sequence[int]) -> list[tuple[int, int]]:
    """Where each token is in the text, for tokenizers that do not say: by what the tokens so far decode to."""
    ends = [len(tokenizer.decode(ids[: n + 1], skip_special_tokens=True)) for n in range(len(ids))]
    ends = [min(end, len(text)) for end in ends]
    return list(zip([0, *ends[:-1]], ends, strict=True))


def answer_ids(tokenizer: Any, prompt: str, answer: str) -> Tensor:
    """The tokens with which an answer continues a prompt, after a space.

    Raises:
        PrismaError: the answer is empty, or the tokenizer joins it with the end of the prompt.
    """
    before = list(tokenizer(prompt)["input_ids"])
    whole = list(tokenizer(f"{prompt} {answer.strip()}")["input_ids"])
    if before and whole and before[-1] == whole[-1] == getattr(tokenizer, "eos_token_id", None):
        before = before[:-1]
    if not answer.strip() or whole[: len(before)] != before or len(whole) == len(before):
        raise PrismaError(
            f"expected an answer that adds tokens to the prompt {quoted(prompt, 200)}; found {quoted(answer)} "
            "(no space at the end of the prompt)"
        )
    return torch.tensor(whole[len(before) :])
