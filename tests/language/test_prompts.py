"""Where a subject is in a prompt, for tokenizers of words and of bytes, and the groups of tokens around it."""

from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from prisma.errors import PrismaError
from prisma.language.causal_trace import causal_trace
from prisma.language.mouse import word_tokenizer
from prisma.language.prompts import GROUPS, answer_ids, filled, locate, token_ids
from tests.language.conftest import WORDS
from tests.language.families import tiny


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


def test_the_place_of_the_braces_is_where_the_subject_is(words: Any, letters: Any) -> None:
    place = locate(words, "Ada is a city . {} was born in", "Ada")
    assert (place.start, place.end) == (6, 7) and place.words[6] == "Ada"
    place = locate(letters, "Rome, {}e is", " Rom")  # not the whole word that comes first
    assert (place.text, letters.decode(place.ids[place.start : place.end])) == ("Rome,  Rome is", "Rom")
    assert place.start == len("Rome,  ")
    place = locate(words, "{} was born in", "Ada", context="the city of Ada . {}")
    assert (place.start, place.end, place.last) == (6, 7, 6)
    for prompt in ("{} and {} was", "{}{}"):
        with pytest.raises(PrismaError, match=r"expected \{\} once in the prompt"):
            locate(words, prompt, "Ada")


@pytest.fixture(scope="module")
def closing() -> Any:
    """A tokenizer that ends every text with two tokens, as some models of text do."""
    tokenizer = word_tokenizer(WORDS)
    inner = tokenizer.backend_tokenizer
    inner.post_processor = processors.TemplateProcessing(
        single="<bos> $A <pad> <unk>", special_tokens=[("<bos>", 0), ("<pad>", 1), ("<unk>", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<bos>", eos_token="<pad>", pad_token="<pad>", unk_token="<unk>"
    )


def test_what_a_tokenizer_puts_after_a_text_is_left_out(words: Any, closing: Any) -> None:
    assert closing("Ada was")["input_ids"][-2:] == [1, 2]
    assert token_ids(closing, "Ada was") == token_ids(words, "Ada was") == words("Ada was")["input_ids"]
    assert token_ids(closing, "Ada was <pad>")[-1] == 1  # what the text itself says stays
    ours, theirs = (locate(tokenizer, "{} was born in", "Ada Brook", "who is. {}") for tokenizer in (words, closing))
    assert torch.equal(ours.ids, theirs.ids) and ours.groups() == theirs.groups() and ours.words == theirs.words
    assert torch.equal(answer_ids(words, "Ada was", "Rome city"), answer_ids(closing, "Ada was", "Rome city"))
    model, asked = tiny("GPT2"), {"sigma": 0.5, "samples": 2}
    first, second = (causal_trace(model, x, "{} was born in", "Ada Brook", **asked) for x in (words, closing))
    assert torch.equal(first.restored, second.restored) and first.metadata["answer"] == second.metadata["answer"]
    with pytest.raises(PrismaError, match="at least one token"):
        token_ids(lambda text, **options: {"input_ids": []}, "")


def test_a_slow_tokenizer_is_read_by_what_it_decodes_to(letters: Any) -> None:
    class Slow:
        is_fast = False

        def __call__(self, text: str, **options: Any) -> dict[str, Any]:
            return {"input_ids": letters(text, **options)["input_ids"]}

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


def test_words_that_the_tokenizer_does_not_know_are_said(words: Any) -> None:
    with pytest.raises(PrismaError, match="a subject of words that the tokenizer knows; found 'Ada Zulu'"):
        locate(words, "{} was born in", "Ada Zulu")
    with pytest.raises(PrismaError, match="an answer of words that the tokenizer knows; found 'Lima'"):
        answer_ids(words, "Ada was born in", "Lima")
    assert locate(words, "{} zebra", "Ada").words[-1] == "zebra"  # elsewhere they may be


def test_no_subject(words: Any) -> None:
    for subject in ("Oslo", "", " "):
        with pytest.raises(PrismaError, match=r"expected the subject .* in the prompt"):
            locate(words, "Ada was born in", subject)
    assert torch.equal(locate(words, "Ada was", "Ada").ids, torch.tensor(words("Ada was")["input_ids"]))
