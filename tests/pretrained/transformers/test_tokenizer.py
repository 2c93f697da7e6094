"""Tokenizers of transformers' image-text pairs, and the similarity of whole pairs."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers
from torch import nn

from prisma import PrismaError
from prisma.pretrained.families import family_of, text_family_of
from prisma.pretrained.parity import randomise
from prisma.pretrained.rules import convert
from prisma.pretrained.source import Text
from prisma.pretrained.transformers.clip import model_inputs
from prisma.pretrained.transformers.tokenizer import text_side
from tests.pretrained.transformers.cases_clip import CASES, PAIRS, whole
from tests.pretrained.transformers.test_clip import images_for

WORDS = ("<pad>", "<start>", "<end>", "<unk>", "a</w>", "cat</w>", "dog</w>", "photo</w>", "of</w>")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tokenizer of CLIP's kind that knows five words."""
    letters = sorted({letter for word in WORDS[4:] for letter in word.removesuffix("</w>")})
    merges, pieces = [], []
    for word in (w.removesuffix("</w>") for w in WORDS[4:]):
        parts = [*word[:-1], f"{word[-1]}</w>"]
        while len(parts) > 1:
            merges.append((parts[0], parts[1]))
            parts = [parts[0] + parts[1], *parts[2:]]
            pieces.append(parts[0])
    tokens = dict.fromkeys((*WORDS, *letters, *(f"{letter}</w>" for letter in letters), *pieces))
    folder = tmp_path_factory.mktemp("tokenizer")
    transformers.CLIPTokenizer(
        vocab={token: i for i, token in enumerate(tokens)},
        merges=list(dict.fromkeys(merges)),
        unk_token="<unk>", bos_token="<start>", eos_token="<end>", pad_token="<pad>",
    ).save_pretrained(folder)  # fmt: skip
    return folder


def text_of(module: nn.Module, tokenizer: Path | None) -> Text:
    side, rest = text_side(module, tokenizer)
    assert side is module
    family = text_family_of(side)
    return Text(convert(family.read(side), side.state_dict(), family.name), **rest)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", PAIRS)
def test_similarity_is_that_of_the_pair(name: str, tokenizer: Path) -> None:
    sizes = {"vocab_size": 60, "eos_token_id": 2}
    module = whole(f"{name}Model", name, texts=sizes).double()
    randomise(module)
    text, family, images = text_of(module, tokenizer), family_of(module), images_for(module).double()
    ours = convert(family.read(module), module.state_dict(), family.name)
    prompts = ["a cat", "a photo of a dog"]
    ids = transformers.AutoTokenizer.from_pretrained(tokenizer)(prompts, padding="max_length", max_length=9)[
        "input_ids"
    ]
    trunk: Any = module.vision_model
    inputs = {k: v for k, v in model_inputs(trunk, images).items() if k != "interpolate_pos_encoding"}
    with torch.no_grad():
        expected = module(input_ids=torch.tensor(ids), **inputs).logits_per_image
        torch.testing.assert_close(text.similarity(ours(images), prompts), expected, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(text("a cat"), F.normalize(text.model(torch.tensor(ids[:1])), dim=-1))


def test_prompts_are_padded_to_the_context(tokenizer: Path) -> None:
    tokenize = text_side(CASES["CLIPModel"](), tokenizer)[1]["tokenize"]
    ids = tokenize(["a cat", "a photo of a dog"])
    assert ids.tolist() == [[1, 4, 5, 2, 0, 0, 0, 0, 0], [1, 4, 7, 8, 4, 6, 2, 0, 0]]
    assert tokenize([]).shape == (0, 9)


def test_a_prompt_that_is_too_long_is_refused(tokenizer: Path) -> None:
    tokenize = text_side(CASES["CLIPModel"](), tokenizer)[1]["tokenize"]
    assert tokenize(["a " * 7]).shape == (1, 9)
    with pytest.raises(PrismaError, match="expected a prompt of at most 9 tokens; found 10 in 'a a a a a a a a'"):
        tokenize(["a cat", "a a a a a a a a"])


def test_a_pair_without_a_tokenizer_says_so_when_asked(tmp_path: Path) -> None:
    for source, reason in (
        (None, "a module without one"),
        (tmp_path, "the tokenizer of .* could not be loaded"),
    ):
        tokenize = text_side(CASES["SiglipModel"](), source)[1]["tokenize"]
        with pytest.raises(PrismaError, match=reason):
            tokenize(["a cat"])


def test_a_tokenizer_that_pads_on_the_left_is_refused(tokenizer: Path) -> None:
    tokenize = text_side(CASES["CLIPModel"](), tokenizer, padding_side="left")[1]["tokenize"]
    with pytest.raises(PrismaError, match="pads on the right; found one that pads on the left"):
        tokenize(["a cat"])


def test_one_side_is_no_pair() -> None:
    assert text_side(CASES["CLIPVisionModel"](), None) == (None, {})
    assert text_side(CASES["CLIPForImageClassification"](), None) == (None, {})
