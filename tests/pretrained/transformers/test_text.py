"""Text towers of transformers' pairs: equal to their source, no idle part, the right token pooled; what is refused."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from prisma.config import TextConfig
from prisma.errors import UnsupportedModelError
from prisma.pretrained.families import text_family_of
from prisma.pretrained.rules import convert
from prisma.pretrained.transformers.text import TEXT_FAMILIES
from tests.pretrained.proofs import expect_parity, idle_parameters
from tests.pretrained.transformers.cases_clip import REFUSED, TEXT, TEXT_CASES, text

CLASSES = {name for family in TEXT_FAMILIES for name in family.classes}
EXACT = [name for name in TEXT_CASES if name not in REFUSED]
OTHER_SIDE = ("vision_model.", "visual_projection.", "logit_scale", "logit_bias")


def prompts(n: int = 4) -> Tensor:
    """[n, context]: an end token (7) early, late or twice, a legacy end (2), and ids larger than both."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(8, TEXT["vocab_size"], (n, TEXT["max_position_embeddings"]), generator=generator)
    for row, places in enumerate(((3,), (8,), (2, 5), (1, 6))[:n]):
        ids[row, list(places)] = 7
    ids[:, 4] = 2
    return ids


@pytest.mark.parametrize("name", EXACT)
def test_equals_transformers(name: str) -> None:
    module = TEXT_CASES[name]()
    expect_parity(module, prompts(), text_family_of(module))


def test_every_class_is_here() -> None:
    built = {f"{type(build()).__module__}.{type(build()).__qualname__}" for build in TEXT_CASES.values()}
    assert built == CLASSES


@pytest.mark.parametrize("name", EXACT)
def test_every_parameter_has_its_part(name: str) -> None:
    """But for the image side, and biases of k: softmax cannot see them."""
    module = TEXT_CASES[name]()
    family, names = text_family_of(module), [name for name, _ in module.named_parameters()]
    unseen = {name for name in names if name.endswith("k_proj.bias") or name.startswith(OTHER_SIDE)}
    everything = torch.arange(TEXT["vocab_size"])[:27].view(3, 9)  # nearly each id, so that its row has a part
    rest = torch.cat([everything, torch.arange(21, 30)[None]])
    assert idle_parameters(module, rest, family) == unseen


@pytest.mark.parametrize(
    ("kind", "eos", "end"),
    [
        ("CLIP", 7, 7),
        ("CLIP", 2, None),
        ("MetaClip2", 2, 2),
        ("MetaClip2", 7, 7),
        ("OwlViT", 7, None),
        ("OwlViT", 2, None),
    ],
)
def test_the_token_at_which_a_prompt_is_pooled(kind: str, eos: int, end: int | None) -> None:
    """CLIP's legacy id 2 stands for the largest id of a prompt, and only CLIP's."""
    module = text(f"{kind}TextModel", kind, eos_token_id=eos)
    config = text_family_of(module).read(module).config
    assert isinstance(config, TextConfig)
    assert (config.pool, config.end, config.causal) == ("end", end, True)


def refused(module: nn.Module, reason: str) -> None:
    with pytest.raises(UnsupportedModelError, match=reason):
        text_family_of(module).read(module)


def test_what_is_not_exact_is_refused() -> None:
    refused(text("CLIPTextModel", "CLIP", hidden_act="mish"), "the activation Mish")
    refused(text("CLIPTextModel", "CLIP", num_hidden_layers=0), "at least one layer; found num_hidden_layers=0")
    refused(text("CLIPTextModel", "CLIP", eos_token_id=[7, 8]), r"eos_token_id as the id of one token; found \[7, 8\]")
    for name, reason in REFUSED.items():
        refused(TEXT_CASES[name](), reason)


def test_aimv2_is_refused_for_a_reason() -> None:
    """An early token of its text tower sees a later one if no prompt of the batch is padded, and only then."""
    module: Any = TEXT_CASES["Aimv2TextModel"]()
    assert module.config._attn_implementation == "sdpa"
    ids = prompts(1)
    changed = ids.clone()
    changed[:, 5] -= 1
    for padded in (False, True):
        mask = torch.ones_like(ids)
        mask[:, -1] = int(not padded)
        with torch.no_grad():
            one, other = (module(x, attention_mask=mask).last_hidden_state[:, :5] for x in (ids, changed))
        assert torch.equal(one, other) == padded


def test_padding_after_the_end_changes_nothing() -> None:
    """Of a causal tower, so a prompt may always be padded to the full context."""
    module = text("CLIPTextModel", "CLIP")
    family = text_family_of(module)
    ours = convert(family.read(module), module.state_dict(), family.name)
    ids = prompts(1)
    with torch.no_grad():
        short = module(ids[:, :4], attention_mask=torch.ones_like(ids[:, :4])).pooler_output
        torch.testing.assert_close(ours(ids), short)
