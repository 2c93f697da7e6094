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


def token_ids(tokenizer: Any, text: str) -> list[int]:
    """A text's tokens, with those that the tokenizer puts before every text, and without those that it puts after it.

    What follows a prompt is the model's own; after a token that ends a text it would say something else.

    Raises:
        PrismaError: the text has no token.
    """
    ids, bare = list(tokenizer(text)["input_ids"]), list(tokenizer(text, add_special_tokens=False)["input_ids"])
    if not ids:
        raise PrismaError("expected a text with at least one token; found an empty one")
    first = next((i for i in range(len(ids)) if ids[i : i + len(bare)] == bare), None)
    return ids if first is None or not bare else ids[: first + len(bare)]


def locate(tokenizer: Any, prompt: str, subject: str, context: str = "{}") -> Prompt:
    """The tokens of a prompt, and those of its subject.

    Args:
        prompt: with `{}` in the place of the subject; or the text itself, in which the subject is where it stands for
            the first time, as a whole word if it does.
        context: what the prompt is put into: a text that ends with `{}`.

    Raises:
        PrismaError: the subject is empty, not in the prompt, or of words that the tokenizer does not know; `{}` is
            there twice; or the context does not end so.
    """
    if context.count("{}") != 1 or not context.endswith("{}"):
        raise PrismaError(
            f"expected contexts that end with {{}}, where the prompt is put, and have it nowhere else; found "
            f"{quoted(context, 200)}"
        )
    before, (inner, start, end) = context.removesuffix("{}"), _place(prompt, subject)
    text, start, end = before + inner, len(before) + start, len(before) + end
    ids = token_ids(tokenizer, text)
    fast = getattr(tokenizer, "is_fast", False)
    spans = tokenizer(text, return_offsets_mapping=True)["offset_mapping"] if fast else _spans(tokenizer, text, ids)
    spans = spans[: len(ids)]
    inside = [i for i, (a, b) in enumerate(spans) if a < end and b > start]
    if not inside:
        raise PrismaError(f"expected tokens for the subject {quoted(subject)} in the prompt; found none")
    _expect_words(tokenizer, [ids[i] for i in inside], "a subject", subject)
    words = tuple(text[a:b] or str(tokenizer.convert_ids_to_tokens(i)) for i, (a, b) in zip(ids, spans, strict=True))
    return Prompt(text, torch.tensor(ids), words, inside[0], inside[-1] + 1)


def _place(prompt: str, subject: str) -> tuple[str, int, int]:
    """The text of a prompt, and where its subject begins and ends."""
    name, text = subject.strip(), filled(prompt, subject)
    if prompt.count("{}") > 1:
        raise PrismaError(f"expected {{}} once in the prompt, in the place of the subject; found {quoted(prompt, 200)}")
    if name and "{}" in prompt:
        start = prompt.index("{}") + subject.index(name)
        return text, start, start + len(name)
    found = re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text) or re.search(re.escape(name), text)
    if not name or found is None:
        there = re.findall(r"\w+", text)
        raise PrismaError(
            f"expected the subject {quoted(subject)} in the prompt {quoted(text, 200)}; found no such text in it; "
            f"the nearest words: {nearest(name, there)}"
        )
    return text, found.start(), found.end()


def _spans(tokenizer: Any, text: str, ids: Sequence[int]) -> list[tuple[int, int]]:
    """Where each token is in the text, for tokenizers that do not say: by what the tokens so far decode to."""
    ends = [len(tokenizer.decode(ids[: n + 1], skip_special_tokens=True)) for n in range(len(ids))]
    ends = [min(end, len(text)) for end in ends]
    return list(zip([0, *ends[:-1]], ends, strict=True))


def answer_ids(tokenizer: Any, prompt: str, answer: str) -> Tensor:
    """The tokens with which an answer continues a prompt, after a space.

    Raises:
        PrismaError: the answer is empty, of words that the tokenizer does not know, or the tokenizer joins it with the
            end of the prompt.
    """
    before, whole = token_ids(tokenizer, prompt), token_ids(tokenizer, f"{prompt} {answer.strip()}")
    if not answer.strip() or whole[: len(before)] != before or len(whole) == len(before):
        raise PrismaError(
            f"expected an answer that adds tokens to the prompt {quoted(prompt, 200)}; found {quoted(answer)} "
            "(no space at the end of the prompt)"
        )
    _expect_words(tokenizer, whole[len(before) :], "an answer", answer)
    return torch.tensor(whole[len(before) :])


def _expect_words(tokenizer: Any, ids: Sequence[int], what: str, text: str) -> None:
    """Raise PrismaError if the tokenizer has no token for a word, and puts one that stands for all such words."""
    if getattr(tokenizer, "unk_token_id", None) in ids:
        raise PrismaError(f"expected {what} of words that the tokenizer knows; found {quoted(text)}")
