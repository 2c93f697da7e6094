"""Where a subject is in a prompt, for tokenizers of words and of bytes, and the groups of tokens around it."""

from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from prisma.errors import PrismaError
from prisma.language.prompts import GROUPS, answer_ids, filled, locate


@pytest.fixture(scope="module")
def letters() -> Any:
    """Every byte is a token, a space is written Ġ, as GPT-2 does."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={x: i for i, x in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def test_subject_is_found(words: Any, letters: Any) -> None:
    place = locate(words, "{} was born in", "Ada Brook")
    assert (place.text, place.start, place.end, place.last) == ("Ada Brook was born in", 1, 3, 2)
    assert place.words == ("<bos>", "Ada", "Brook", "was", "born", "in")
    place = locate(letters, "in Añada, Ada was born in", "Ada")  # the whole word, after one that has it inside
    assert "".join(place.words[place.start : place.end]).strip() == "Ada"
    assert letters.decode(place.ids[: place.end]) == "in Añada, Ada"
    assert filled("of {}", "Ada") == "of Ada" and filled("of Ada", "Ada") == "of Ada"


def test_a_slow_tokenizer_is_read_by_what_it_decodes_to(letters: Any) -> None:
    class Slow:
        is_fast = False

        def __call__(self, text: str) -> dict[str, Any]:
            return {"input_ids": letters(text)["input_ids"]}

        def __getattr__(self, name: str) -> Any:
            return getattr(letters, name)

    fast, slow = (locate(tokenizer, "the city of Ada is", "Ada") for tokenizer in (letters, Slow()))
    assert (slow.start, slow.end) == (fast.start, fast.end)


@pytest.mark.parametrize(
    ("prompt", "subject", "expected"),
    [
        ("the Ada Ben Brook was born in Rome", "Ada Ben Brook", ([2], [3], [4], [5], [6, 7], [8])),
        ("Ada Brook was born", "Ada Brook", ([1], [], [2], [3], [], [4])),
        ("Ada was", "Ada", ([], [], [1], [], [], [2])),
        ("the city of Ada Brook", "Ada Brook", ([4], [], [5], [], [], [])),
    ],
)
def test_groups(words: Any, prompt: str, subject: str, expected: tuple[list[int], ...]) -> None:
    assert tuple(locate(words, prompt, subject).groups().values()) == expected
    assert tuple(locate(words, prompt, subject).groups()) == GROUPS


def test_answers(words: Any) -> None:
    ids = words.convert_tokens_to_ids(["Rome", "city"])
    assert answer_ids(words, "Ada was born in", " Rome city ").tolist() == ids
    for answer in ("", "  "):
        with pytest.raises(PrismaError, match="expected an answer that adds tokens"):
            answer_ids(words, "Ada was born in", answer)


def test_no_subject(words: Any) -> None:
    for subject in ("Oslo", "", " "):
        with pytest.raises(PrismaError, match=r"expected the subject .* in the prompt"):
            locate(words, "Ada was born in", subject)
    assert torch.equal(locate(words, "Ada was", "Ada").ids, torch.tensor(words("Ada was")["input_ids"]))
