"""Attention rollout against a twin that walks the layers number by number, and on heads whose patterns are known."""

import pytest
import torch

from prisma import PrismaError, ViT
from prisma.analysis.attention.rollout import rollout
from prisma.runs import record
from tests.planted_heads import planted
from tests.variants import ANALYSED, images_of, model_of

FUSE = {"mean": lambda x: sum(x) / len(x), "max": max, "min": min}


def twin_map(model: ViT, image: torch.Tensor, heads: str, residual: float) -> list[list[float]]:
    n = model.config.n_tokens
    flow = [[float(q == k) for k in range(n)] for q in range(n)]
    for layer in range(model.config.n_layers):
        for kind in ("time", "attn") if model.config.attention == "divided" else ("attn",):
            _, acts = record(model, image[None], [f"blocks.{layer}.{kind}.pattern"])
            pattern = acts[f"blocks.{layer}.{kind}.pattern"][0].tolist()
            skipped = n - len(pattern[0])
            step = [[float(q == k) for k in range(n)] for q in range(n)]
            for q in range(skipped, n):
                fused = [FUSE[heads]([head[q - skipped][k] for head in pattern]) for k in range(n - skipped)]
                for k in range(skipped, n):
                    step[q][k] = residual * (q == k) + (1 - residual) * fused[k - skipped] / sum(fused)
            flow = [[sum(step[q][j] * flow[j][k] for j in range(n)) for k in range(n)] for q in range(n)]
    return flow


def twin_readout(model: ViT, image: torch.Tensor, flow: list[list[float]]) -> list[float]:
    c = model.config
    n, first = c.n_tokens, 0 if c.pool_prefix else c.n_prefix
    if c.pool == "attention":
        pattern = record(model, image[None], ["pool.pattern"])[1]["pool.pattern"][0, :, 0].mean(0).tolist()
        return [sum(weight * flow[first + j][k] for j, weight in enumerate(pattern)) for k in range(n)]
    mean = [sum(flow[q][k] for q in range(first, n)) / (n - first) for k in range(n)]
    return {
        "class": flow[0],
        "mean": mean,
        "class_mean": [(a + b) / 2 for a, b in zip(flow[0], mean, strict=True)],
        "distilled": [(a + b) / 2 for a, b in zip(flow[0], flow[1], strict=True)],
    }[c.pool]


@pytest.mark.parametrize("variant", ANALYSED)
def test_it_is_what_the_twin_finds(variant: str) -> None:
    model = model_of(variant)
    images = images_of(model)
    found = rollout(model, images, residual=0.3, batch=1)
    assert found.map is not None
    for i, image in enumerate(images):
        flow = twin_map(model, image, "mean", 0.3)
        torch.testing.assert_close(found.map[i], torch.tensor(flow, dtype=torch.float64), rtol=1e-10, atol=1e-12)
        readout = torch.tensor(twin_readout(model, image, flow), dtype=torch.float64)
        torch.testing.assert_close(found.readout[i], readout, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(found.patches[i].flatten(), readout[model.config.n_prefix :], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found.readout.sum(1), torch.ones(2, dtype=torch.float64))


@pytest.mark.parametrize("heads", ["max", "min"])
@pytest.mark.parametrize("variant", ["base", "divided"])
def test_heads_may_be_fused_otherwise(variant: str, heads: str) -> None:
    model = model_of(variant)
    images = images_of(model)
    found = rollout(model, images, heads=heads)
    assert found.map is not None
    expected = torch.tensor(twin_map(model, images[1], heads, 0.5), dtype=torch.float64)
    torch.testing.assert_close(found.map[1], expected, rtol=1e-10, atol=1e-12)


def test_two_layers_of_previous_patch_heads_look_two_patches_back() -> None:
    back = torch.eye(6).roll(1, 0)
    heads = {(layer, 0): back for layer in range(2)}
    model = planted(heads, n_heads=1, image_size=(2, 3), class_token=False, pool="mean")
    images = torch.zeros(1, 1, 2, 3, dtype=torch.float64)
    alone = rollout(model, images, residual=0.0).map
    with_stream = rollout(model, images).map
    assert alone is not None and with_stream is not None
    torch.testing.assert_close(alone[0], torch.eye(6).roll(2, 0).double())
    expected = (torch.eye(6) + 2 * back + torch.eye(6).roll(2, 0)) / 4
    torch.testing.assert_close(with_stream[0], expected.double())


def test_it_says_which_queries_the_map_of_patches_is_of() -> None:
    for variant, words in {"base": "the class token", "siglip": "the query of attention pooling"}.items():
        model = model_of(variant)
        assert rollout(model, images_of(model)).metadata["readout"] == words
    assert rollout(model_of("base"), images_of(model_of("base"))).plot().axes[0].get_ylabel() == "map"


def test_half_precision_gives_shares_in_float32() -> None:
    model = model_of("registers", dtype=torch.bfloat16)
    found = rollout(model, images_of(model))
    assert found.readout.dtype == torch.float32
    torch.testing.assert_close(found.readout.sum(1), torch.ones(2))


def test_bad_input_is_refused() -> None:
    model = model_of("base")
    with pytest.raises(PrismaError, match="expected heads to be one of"):
        rollout(model, images_of(model), heads="sum")
    with pytest.raises(PrismaError, match="expected images"):
        rollout(model, torch.zeros(1, 2, 8, 8, dtype=torch.float64))
