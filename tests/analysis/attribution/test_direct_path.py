"""The direct path: with the parts of a run it ends in that run's logits, and it is linear in them."""

import pytest
import torch
from torch import Tensor

from prisma.analysis.attribution.direct_path import (
    DirectPath,
    baseline_parts,
    part_contributions,
    path_memory,
    record_path,
    sites_on_path,
)
from prisma.inventory import site_names
from tests.variants import ANALYSED, config_of, images_of, model_of


class Given:
    """Remembers every part; one of them, or all, may be taken times a factor."""

    def __init__(self, factor: float = 1.0, only: str | None = None) -> None:
        self.factor, self.only, self.seen, self.tokens = factor, only, dict[str, Tensor](), dict[str, slice | None]()

    def __call__(self, name: str, value: Tensor, tokens: slice | None) -> Tensor:
        assert name not in self.seen
        self.seen[name], self.tokens[name] = value, tokens
        return value * self.factor if self.only in (None, name) else value


@pytest.mark.parametrize("variant", ANALYSED)
@torch.no_grad()
def test_it_ends_in_the_logits(variant: str) -> None:
    model = model_of(variant)
    logits, acts = record_path(model, images_of(model), sources=False)
    for frozen in (True, False):
        found = DirectPath(model, acts, Given(), frozen=frozen).logits()
        torch.testing.assert_close(found, logits, rtol=1e-12, atol=1e-11)


def test_it_needs_sites_that_the_model_has() -> None:
    for variant in ANALYSED:
        config = config_of(variant)
        assert set(sites_on_path(config)) <= set(site_names(config)), variant


@pytest.mark.parametrize("variant", ANALYSED)
@torch.no_grad()
def test_parts_are_written_to_the_tokens_they_say(variant: str) -> None:
    model = model_of(variant)
    parts, n = Given(), model.config.n_tokens
    DirectPath(model, record_path(model, images_of(model), sources=False)[1], parts).logits()
    pooled = False
    for name, tokens in parts.tokens.items():
        assert (tokens is not None) is not pooled or tokens is None, f"{name} comes back to the stream"
        pooled = tokens is None
        assert tokens is None or parts.seen[name].shape[1] == len(range(n)[tokens])


def block(layer: int, *names: str) -> list[str]:
    return [f"blocks.{layer}.{name}" for name in names]


PLAIN = ("attn", "attn.out.bias", "mlp", "mlp.out.bias")
ENDS = ["readout.ln_final.bias", "readout.head.bias"]
EMBED = ["embed.patch", "embed.patch.bias", "embed.positions", "embed.prefix"]
POOL = [f"readout.attention_pool.{name}" for name in ("v.bias", "out.bias", "mlp", "mlp.out.bias")]
POST = ("attn", "attn.out.bias", "ln1.bias", "mlp", "mlp.out.bias", "ln2.bias")
SUB = ("attn", "attn.ln.bias", "attn.out.bias", "mlp", "mlp.ln.bias", "mlp.out.bias")
TIME = ("time", "time.out.bias", *PLAIN)
NAMES = {
    "base": [*EMBED, *block(0, *PLAIN), *block(1, *PLAIN), *ENDS],
    "no_layers": [*EMBED, *ENDS],
    "no_head": [*EMBED, *block(0, *PLAIN), *block(1, *PLAIN), "readout.ln_final.bias"],
    "attention_only": [*EMBED, *block(0, *PLAIN[:2]), *block(1, *PLAIN[:2]), *ENDS],
    "no_class_token": [*EMBED[:3], *block(0, *PLAIN), *block(1, *PLAIN), *ENDS],
    "norm_post": [*EMBED, *block(0, *POST), *block(1, *POST), "readout.head.bias"],
    "norm_res_post": [*EMBED, *block(0, *POST), *block(1, *POST), *ENDS],
    "norm_embed": [*EMBED, "embed.ln_pre.bias", *block(0, *PLAIN), *block(1, *PLAIN), *ENDS],
    "norm_patches": ["embed.patch", "embed.positions", *block(0, *PLAIN), *block(1, *PLAIN), "readout.head.bias"],
    "sub_norms": [*EMBED, *block(0, *SUB), *block(1, *SUB), *ENDS],
    "divided": [*EMBED, *block(0, *TIME), *block(1, *TIME), *ENDS],
    "pool_attention": [*EMBED, *block(0, *PLAIN), *block(1, *PLAIN), ENDS[0], *POOL, ENDS[1]],
    "pool_attention_gated": [*EMBED, *block(0, *PLAIN), *block(1, *PLAIN), *POOL, *ENDS],  # norm_pooled
}


@pytest.mark.parametrize("variant", NAMES)
def test_what_comes_in_and_in_which_order(variant: str) -> None:
    model = model_of(variant)
    parts = Given()
    DirectPath(model, record_path(model, images_of(model), sources=False)[1], parts).logits()
    assert list(parts.seen) == NAMES[variant]


def test_the_bias_of_a_layer_norm_of_the_patches_is_a_part() -> None:
    model = model_of("norm_patches", norm_kind="layer")
    parts = Given()
    DirectPath(model, record_path(model, images_of(model), sources=False)[1], parts).logits()
    assert list(parts.seen)[:3] == ["embed.patch", "embed.ln_patch.bias", "embed.positions"]


@torch.no_grad()
def test_live_norms_change_with_a_part_and_a_scaled_stream_is_the_same_stream() -> None:
    model = model_of("base", norm_eps=1e-12, n_layers=1)
    logits, acts = record_path(model, images_of(model), sources=False)

    class Stream(Given):
        def __call__(self, name: str, value: Tensor, tokens: slice | None) -> Tensor:
            scaled = super().__call__(name, value, tokens)
            return value if name in ENDS else scaled

    torch.testing.assert_close(DirectPath(model, acts, Stream(3), frozen=False).logits(), logits)
    louder = DirectPath(model, acts, Given(3, "blocks.0.attn"), frozen=False).logits()
    assert not torch.allclose(louder, logits, rtol=1e-2)


@pytest.mark.parametrize("variant", ["base", "everything_post", "pool_attention", "divided"])
def test_baseline_parts_are_means_of_parts(variant: str) -> None:
    model = model_of(variant)
    images = images_of(model, n=3)
    parts = Given()
    DirectPath(model, record_path(model, images, sources=False)[1], parts).logits()
    found = baseline_parts(model, images, batch=2)
    assert list(found) == list(parts.seen)
    for name, mean in found.items():
        torch.testing.assert_close(mean, parts.seen[name].mean(0, keepdim=True))


@torch.no_grad()
def test_the_baseline_is_the_readout_of_the_mean_parts() -> None:
    model = model_of("pool_mean")
    images = images_of(model, n=3)
    logits, acts = record_path(model, images, sources=False)
    start = baseline_parts(model, images, batch=3)
    found = part_contributions(model, acts, torch.ones_like(logits), start, steps=4)
    x = sum(start[n] if n.startswith("embed") else 0 for n in EMBED[:3])
    assert isinstance(x, Tensor)
    x = torch.cat([start["embed.prefix"], x], dim=1)
    for layer in range(2):
        attn, mlp = (model.blocks[layer].get_submodule(name) for name in ("attn.out", "mlp.out"))
        x = x + attn(start[f"blocks.{layer}.attn"].flatten(2)) + mlp(start[f"blocks.{layer}.mlp"])
    torch.testing.assert_close(found.baseline, model.readout(x).sum(1).expand(3))


def test_half_precision_is_computed_in_float32() -> None:
    model = model_of("base", torch.bfloat16)
    logits, acts = record_path(model, images_of(model), sources=True)
    assert {x.dtype for x in acts.values()} == {logits.dtype} == {torch.float32}
    found = DirectPath(model, acts, Given()).logits()
    torch.testing.assert_close(found, logits, rtol=0, atol=0.05 * logits.abs().max().item())


@pytest.mark.parametrize("sources", [False, True])
def test_memory_is_that_of_what_is_recorded(sources: bool) -> None:
    for variant in ANALYSED:
        model = model_of(variant)
        _, acts = record_path(model, images_of(model, n=1), sources)
        expected = sum(x.numel() * x.element_size() for x in acts.values())
        assert path_memory(model, sources) == expected, variant
