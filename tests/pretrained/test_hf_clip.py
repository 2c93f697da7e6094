"""The image side of transformers' image-text pairs: equal to its source, no idle part; tokenizers; what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers
from torch import Tensor, nn

from prisma import PrismaError
from prisma.pretrained import hf_clip
from prisma.pretrained.families import family_of, text_family_of
from prisma.pretrained.opened import Text
from prisma.pretrained.parity import randomise
from prisma.pretrained.rules import UnsupportedModelError, convert
from tests.pretrained.cases_hf_clip import CASES, PAIRS, vision, whole
from tests.pretrained.proofs import expect_parity, idle_parameters

CLASSES = {name for family in hf_clip.FAMILIES for name in family.classes}
TEXT_SIDE = ("text_model.", "text_projection.", "logit_scale", "logit_bias")
PASSED = ("vision_model.head.", "vision_model.post_layernorm.")


def images_for(module: nn.Module, n: int = 2) -> Tensor:
    config = family_of(module).read(module).config
    return torch.randn(n, *config.input_shape, generator=torch.Generator().manual_seed(1))  # type: ignore[union-attr]


@pytest.mark.parametrize("name", CASES)
def test_equals_transformers(name: str) -> None:
    module = CASES[name]()
    expect_parity(module, images_for(module))


def test_every_class_is_here() -> None:
    built = {f"{type(build()).__module__}.{type(build()).__qualname__}" for build in CASES.values()}
    assert built == CLASSES


@pytest.mark.parametrize("name", CASES)
def test_every_parameter_has_its_part(name: str) -> None:
    """But for the text side, what a classifier passes by, and biases of k: softmax cannot see them."""
    module = CASES[name]()
    names = [name for name, _ in module.named_parameters()]
    unseen = {name for name in names if name.endswith("k_proj.bias") or name.startswith(TEXT_SIDE)}
    if "Classification" in name:
        clip = "ig" not in name
        unseen |= {n for n in names if n.startswith(PASSED[clip])}
    assert idle_parameters(module, images_for(module)) == unseen


@pytest.mark.parametrize("size", [(16, 8), 20, (12, 12)], ids=str)
@pytest.mark.parametrize("name", ["CLIPVisionModel", "SiglipVisionModel", "OwlViTVisionModel", "Siglip2VisionModel"])
def test_positions_are_resampled_as_the_source_does(name: str, size: Any) -> None:
    module = CASES[name]()
    object.__setattr__(module.config, "image_size", size)
    inner = getattr(module, "vision_model", module)
    object.__setattr__(inner.config, "image_size", size)
    images = images_for(module)
    assert images.shape[-2:] == ((size, size) if isinstance(size, int) else size)
    expect_parity(module, images)


def refused(module: nn.Module, reason: str) -> None:
    with pytest.raises(UnsupportedModelError, match=reason):
        family_of(module).read(module)


def test_what_is_not_exact_is_refused() -> None:
    refused(vision("CLIPVisionModel", "CLIP", hidden_act="mish"), "the activation Mish")
    refused(vision("SiglipVisionModel", "Siglip", num_hidden_layers=0), "num_hidden_layers=0 is not supported")


# -- pairs ----------------------------------------------------------------------------------------------------------


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


def opened(module: nn.Module, tokenizer: Path | None) -> Text:
    side, rest = hf_clip.pair(module, tokenizer)
    assert side is module
    family = text_family_of(side)
    return Text(convert(family.read(side), side.state_dict(), family.name), **rest)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", PAIRS)
def test_similarity_is_that_of_the_pair(name: str, tokenizer: Path) -> None:
    sizes = {"vocab_size": 60, "eos_token_id": 2}
    module = whole(f"{name}Model", name, texts=sizes).double()
    randomise(module)
    text, family, images = opened(module, tokenizer), family_of(module), images_for(module).double()
    ours = convert(family.read(module), module.state_dict(), family.name)
    prompts = ["a cat", "a photo of a dog"]
    ids = transformers.AutoTokenizer.from_pretrained(tokenizer)(prompts, padding="max_length", max_length=9)[
        "input_ids"
    ]
    trunk: Any = module.vision_model
    inputs = {k: v for k, v in hf_clip._inputs(trunk, images).items() if k != "interpolate_pos_encoding"}
    with torch.no_grad():
        expected = module(input_ids=torch.tensor(ids), **inputs).logits_per_image
        torch.testing.assert_close(text.similarity(ours(images), prompts), expected, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(text("a cat"), F.normalize(text.model(torch.tensor(ids[:1])), dim=-1))


def test_prompts_are_padded_to_the_context(tokenizer: Path) -> None:
    tokenize = hf_clip.pair(CASES["CLIPModel"](), tokenizer)[1]["tokenize"]
    ids = tokenize(["a cat", "a photo of a dog"])
    assert ids.tolist() == [[1, 4, 5, 2, 0, 0, 0, 0, 0], [1, 4, 7, 8, 4, 6, 2, 0, 0]]
    assert tokenize([]).shape == (0, 9)


def test_a_prompt_that_is_too_long_is_refused(tokenizer: Path) -> None:
    tokenize = hf_clip.pair(CASES["CLIPModel"](), tokenizer)[1]["tokenize"]
    assert tokenize(["a " * 7]).shape == (1, 9)
    with pytest.raises(PrismaError, match="expected a prompt of at most 9 tokens, found 10 in 'a a a a a a a a'"):
        tokenize(["a cat", "a a a a a a a a"])


def test_a_pair_without_a_tokenizer_says_so_when_asked(tmp_path: Path) -> None:
    for source, reason in (
        (None, "a module that came without one"),
        (tmp_path, "the tokenizer of .* could not be loaded"),
    ):
        tokenize = hf_clip.pair(CASES["SiglipModel"](), source)[1]["tokenize"]
        with pytest.raises(PrismaError, match=reason):
            tokenize(["a cat"])


def test_a_tokenizer_that_pads_on_the_left_is_refused(tokenizer: Path) -> None:
    tokenize = hf_clip.pair(CASES["CLIPModel"](), tokenizer, padding_side="left")[1]["tokenize"]
    with pytest.raises(PrismaError, match="pads on the right, found one that pads on the left"):
        tokenize(["a cat"])


def test_one_side_is_no_pair() -> None:
    assert hf_clip.pair(CASES["CLIPVisionModel"](), None) == (None, {})
    assert hf_clip.pair(CASES["CLIPForImageClassification"](), None) == (None, {})


def test_patches_that_the_source_is_given_are_whole() -> None:
    module = CASES["Siglip2VisionModel"]()
    module.config.image_size = 14  # type: ignore[union-attr, assignment]
    refused(module, "takes whole patches of pixels")
