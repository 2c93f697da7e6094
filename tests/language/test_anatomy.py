"""The parts of a language model are found by what they do, for every family, and what is not found is named."""

import pytest
import torch
import transformers
from torch import nn

from prisma.errors import UnsupportedModelError
from prisma.language.anatomy import anatomy, is_linear, sizes
from prisma.language.restored_runs import changed, recorded
from tests.language.families import COMMON, FAMILIES, GATED, tiny

TOKENS = torch.tensor([[0, 5, 7, 3, 9, 2]])


@pytest.mark.parametrize("family", FAMILIES)
def test_block_is_the_stream_plus_what_its_sublayers_write(family: str) -> None:
    model = tiny(family)
    found = anatomy(model)
    assert len(found.blocks) == 3 and found.d_model == 16 and found.starts_late
    assert all(is_linear(part) and sizes(part) == (found.d_mlp, 16) for part in found.mlp_out)
    assert not model.training and all("forward" not in vars(block) for block in found.blocks)
    silent = [(part, torch.zeros_like) for part in (*found.attention_out, *found.mlp_out)]
    with torch.no_grad(), recorded(found.blocks, 1) as outputs, changed(silent, 1):
        model(input_ids=TOKENS, use_cache=False)
    first, *_, last = (outputs[block] for block in found.blocks)
    torch.testing.assert_close(last, first)  # without what they write, blocks hand the stream on


@pytest.mark.parametrize("family", ["GPT2", "Falcon", "OPT", "Gemma2"])
def test_a_run_that_starts_late_is_the_run(family: str) -> None:
    model = tiny(family)
    found = anatomy(model)
    with torch.no_grad(), recorded(found.blocks, 1) as outputs:
        logits = model(input_ids=TOKENS, use_cache=False).logits
    for start in (1, 2, 3):
        with torch.no_grad(), found.from_block(start, outputs[found.blocks[start - 1]]):
            torch.testing.assert_close(model(input_ids=TOKENS, use_cache=False).logits, logits)


def test_mode_of_the_model_stays() -> None:
    model = tiny("GPT2").train()
    anatomy(model)
    assert model.training and model.transformer.h[0].mlp.training  # type: ignore[union-attr, index]
    assert anatomy(found := anatomy(model)) is found


def test_what_is_not_found_is_named() -> None:
    with pytest.raises(UnsupportedModelError, match=r"with get_input_embeddings\(\); found Linear"):
        anatomy(nn.Linear(2, 2))
    mixture = transformers.MixtralForCausalLM(transformers.MixtralConfig(**GATED, num_local_experts=2))
    with pytest.raises(UnsupportedModelError, match=r"found a mixture of experts .*experts.* in block 0"):
        anatomy(mixture)
    shared = transformers.Qwen2MoeForCausalLM(
        transformers.Qwen2MoeConfig(
            **GATED, num_experts=2, num_experts_per_tok=2, moe_intermediate_size=8, shared_expert_intermediate_size=8
        )
    )
    with pytest.raises(UnsupportedModelError, match="found a mixture of experts"):
        anatomy(shared)
    recurrent = transformers.RwkvForCausalLM(transformers.RwkvConfig(**{**COMMON, "attention_hidden_size": 16}))
    recurrent.rwkv.blocks = nn.ModuleList([])
    with pytest.raises(UnsupportedModelError, match="expected a list of blocks"):
        anatomy(recurrent)
