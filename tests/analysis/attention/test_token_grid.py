"""Which attentions a model has, which tokens they read, and what a head that has no preference looks at."""

import pytest
import torch

from prisma import PrismaError
from prisma.analysis.attention.token_grid import TokenGrid, attention_scopes, image_passes, uniform_attention
from prisma.runs import record
from prisma.vit import ViT
from tests.variants import ANALYSED, config_of, images_of, model_of


def test_roles_and_places() -> None:
    tokens = TokenGrid.of(config_of("pool_class_mean", image_size=(4, 6)))
    assert (tokens.n_prefix, tokens.n_patches, tokens.n_tokens) == (2, 6, 8)
    roles = {name: tokens.role(name).nonzero().flatten().tolist() for name in ("class", "registers", "patches", "all")}
    assert roles == {"class": [0], "registers": [1], "patches": [2, 3, 4, 5, 6, 7], "all": list(range(8))}
    time_T, row_T, column_T = tokens.places()
    assert time_T.tolist() == [-1, -1, 0, 0, 0, 0, 0, 0]
    assert row_T.tolist() == [-1, -1, 0, 0, 0, 1, 1, 1]
    assert column_T.tolist() == [-1, -1, 0, 1, 2, 0, 1, 2]
    with pytest.raises(PrismaError, match="expected a role of tokens, all, class, registers, patches; found 'cls'"):
        tokens.role("cls")


def test_attention_over_time_and_pooling_read_fewer_tokens() -> None:
    assert TokenGrid.of(config_of("divided"), "time") == TokenGrid(False, 0, (4, 2, 2))
    assert TokenGrid.of(config_of("pool_attention"), "pool") == TokenGrid(False, 0, (1, 3, 3))
    assert TokenGrid.of(config_of("pool_attention_prefix"), "pool") == TokenGrid(True, 1, (1, 3, 3))


def test_attentions_of_a_model() -> None:
    assert attention_scopes(config_of("base")) == ["blocks.0.attn", "blocks.1.attn"]
    assert attention_scopes(config_of("divided"), "time") == ["blocks.0.time", "blocks.1.time"]
    assert attention_scopes(config_of("siglip"), "pool") == ["pool"]
    with pytest.raises(PrismaError, match=r"expected an attention of this model \(attn, pool\); found 'time'"):
        attention_scopes(config_of("siglip"), "time")
    with pytest.raises(PrismaError, match=r"expected an attention of this model \(none\); found 'attn'"):
        attention_scopes(config_of("no_layers"))


@torch.no_grad()
def test_uniform_attention_is_what_a_model_of_zeros_does() -> None:
    compared = set()
    for variant in ANALYSED:
        model = model_of(variant)
        for parameter in model.parameters():
            parameter.zero_()
        for attention in ("attn", "time", "pool"):
            try:
                scopes = attention_scopes(model.config, attention)
            except PrismaError:
                continue
            _, acts = record(model, images_of(model, 1), [f"{scopes[0]}.pattern"])
            pattern = acts[f"{scopes[0]}.pattern"]
            expected = uniform_attention(model.config, attention).expand_as(pattern)
            assert (pattern - expected).abs().max() < 1e-12, f"{attention} of {variant}"
            compared.add(attention)
    assert compared == {"attn", "time", "pool"}


def test_passes_hold_all_images_in_order() -> None:
    model, images = model_of("base"), torch.arange(5)
    assert [part.tolist() for part in image_passes(model, images, 2)] == [[0, 1], [2, 3], [4]]
    assert [len(part) for part in image_passes(model, images, None)] == [5]
    large = ViT(config_of("base", image_size=64, n_layers=12, n_heads=12))  # 1025 tokens: 600 MB of patterns per image
    assert [len(part) for part in image_passes(large, images, None)] == [1] * 5
    middling = ViT(config_of("base", image_size=32, n_heads=12))  # 257 tokens: 6.3 MB of patterns per image
    assert [len(part) for part in image_passes(middling, torch.arange(50), None)] == [42, 8]
    assert [len(part) for part in image_passes(middling, torch.arange(50), None, copies=4)] == [10] * 5
    with pytest.raises(PrismaError, match="expected batch to be at least 1; found 0"):
        list(image_passes(model, images, 0))
    with pytest.raises(PrismaError, match="expected at least one image; found none"):
        list(image_passes(model, images[:0], 2))
