"""A tiny model with random weights of each family of causal language models of transformers."""

from typing import Any

import torch
import transformers
from torch import nn

VOCABULARY = 23
COMMON = {"vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2}
GATED = {**COMMON, "intermediate_size": 24, "num_key_value_heads": 2, "max_position_embeddings": 32}
FAMILIES: dict[str, dict[str, Any]] = {
    "GPT2": {"vocab_size": VOCABULARY, "n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 32},
    "GPTNeo": {**COMMON, "num_heads": 2, "attention_types": [[["global", "local", "global"], 1]], "window_size": 4},
    "GPTNeoX": {**COMMON, "intermediate_size": 24},
    "GPTJ": {"vocab_size": VOCABULARY, "n_embd": 16, "n_layer": 3, "n_head": 2, "rotary_dim": 4, "n_positions": 32},
    "GPTBigCode": {"vocab_size": VOCABULARY, "n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 32},
    "Llama": GATED,
    "Mistral": {**GATED, "sliding_window": 4},
    "Qwen2": GATED,
    "Qwen3": {**GATED, "head_dim": 8},
    "Gemma": {**GATED, "head_dim": 8},
    "Gemma2": {**GATED, "head_dim": 8},
    "Olmo2": GATED,
    "Phi": {**COMMON, "intermediate_size": 24},
    "StableLm": GATED,
    "Falcon": COMMON,
    "Bloom": {"vocab_size": VOCABULARY, "hidden_size": 16, "n_layer": 3, "n_head": 2},
    "Mpt": {"vocab_size": VOCABULARY, "d_model": 16, "n_layers": 3, "n_heads": 2, "max_seq_len": 32},
    "OPT": {**COMMON, "ffn_dim": 24, "word_embed_proj_dim": 16, "max_position_embeddings": 32},
}  # fmt: skip
SPECIAL = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}


def tiny(family: str, seed: int = 0) -> nn.Module:
    """In float64, so that two ways to compute a number can be compared."""
    names = {"GPT2": "GPT2LMHeadModel"}
    settings = {**FAMILIES[family], **SPECIAL}
    config = getattr(transformers, f"{family}Config")(**settings)
    torch.manual_seed(seed)
    model = getattr(transformers, names.get(family, f"{family}ForCausalLM"))(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.double().eval()
