"""Divided attention: the fused path and the materialised one, and what its sites mean. The slow twin is in test_vit."""

import pytest
import torch

import prisma
from prisma import PrismaError, ViTConfig, Zero
from prisma.attention import Attention
from prisma.divided import DividedBlock
from prisma.inventory import site_names
from tests.variants import BASE, VARIANTS, config_of, images_of, largest, model_of

FRAMES, PLACES = 4, 4  # of the variants


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("variant", ["divided", "divided_everything"])
def test_fused_and_materialised_attention_agree(variant: str, dtype: torch.dtype, tolerance: float) -> None:
    model = model_of(variant, dtype)
    images = images_of(model)
    with torch.no_grad():
        fused = model(images)
        for read in ("*.attn.pattern", "*.attn.scores", "*.time.pattern", "*.time.scores", "*.result", "*"):
            assert largest(prisma.record(model, images, read)[0] - fused) <= tolerance * largest(fused), read


def test_sites_mean_what_they_say() -> None:
    model = model_of("divided")
    with torch.no_grad():
        _, acts = prisma.record(model, images_of(model), "*")
    at = lambda site: acts[f"blocks.1.{site}"]  # noqa: E731
    close = torch.testing.assert_close
    close(at("resid_time"), at("resid_pre") + at("time_out"))
    close(at("resid_mid"), at("resid_time") + at("attn_out"))
    assert not at("time_out")[:, 0].any()
    block = model.blocks[1]
    assert isinstance(block, DividedBlock)
    close(at("time_out")[:, 1:], at("time.result").sum(2) + block.time.out.bias)
    for name in ("time", "attn"):
        pattern = at(f"{name}.pattern")
        close(at(f"{name}.z"), torch.einsum("bhqk,bkhd->bqhd", pattern, at(f"{name}.v")))
        close(pattern.sum(-1), torch.ones_like(pattern[..., 0]))
        seen = at(f"{name}.scores").isfinite()
        scores = torch.einsum("bqhd,bkhd->bhqk", at(f"{name}.q"), at(f"{name}.k")) / model.config.d_head**0.5
        close(at(f"{name}.scores")[seen], scores[seen])


def test_who_reads_whom() -> None:
    """Over time, patches of one place; over space, the class token and patches of one frame; the class token all."""
    model = model_of("divided")
    _, acts = prisma.record(model, images_of(model, 1), "blocks.0.*.pattern")
    time, space = (acts[f"blocks.0.{name}.pattern"][0, 0] > 0 for name in ("time", "attn"))
    frame, place = torch.arange(FRAMES * PLACES) // PLACES, torch.arange(FRAMES * PLACES) % PLACES
    assert torch.equal(time, place[:, None] == place)
    assert torch.equal(space[1:, 1:], frame[:, None] == frame)
    assert space[0].all()
    assert space[:, 0].all()


def test_the_class_token_reads_each_frame_with_a_softmax_of_its_own() -> None:
    model = model_of("divided")
    _, acts = prisma.record(model, images_of(model), ["blocks.0.attn.scores", "blocks.0.attn.pattern"])
    scores, row = acts["blocks.0.attn.scores"][:, :, 0], acts["blocks.0.attn.pattern"][:, :, 0]
    for frame in range(FRAMES):
        own = slice(1 + frame * PLACES, 1 + (frame + 1) * PLACES)
        expected = torch.cat([scores[..., :1], scores[..., own]], dim=-1).softmax(-1)[..., 1:] / FRAMES
        torch.testing.assert_close(row[..., own], expected)


def test_a_head_over_time_can_be_patched() -> None:
    model = model_of("divided")
    images = images_of(model)
    with torch.no_grad():
        changed = prisma.run(model, images, {"blocks.0.time.z": Zero().at(head=1, patch=3)})
        effect = prisma.sweep(model, images[:1], images[1:], "time.z", prisma.LogitDiff(0, 1))
    assert largest(changed - model(images)) > 1e-6
    assert effect.shape == (2, 3)


def test_a_model_holds_no_table_of_all_pairs_of_tokens() -> None:
    """A long video has more pairs of tokens than weights."""
    model = model_of("divided")
    assert not [name for name, _ in model.named_buffers()]
    assert all(isinstance(block.get_submodule("attn"), Attention) for block in model.blocks)


def test_only_divided_models_have_the_sites_over_time() -> None:
    sites = {"ln_time.normalized", "time.q", "time.pattern", "time.result", "time_out", "resid_time"}
    names = {name.removeprefix("blocks.0.") for name in site_names(config_of("divided"))}
    assert sites <= names
    assert not [name for name in site_names(config_of("video")) if "time" in name]


def test_compiled_equals_eager() -> None:
    torch.compiler.reset()
    model = model_of("divided", n_layers=1)
    images = images_of(model)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        for read in ("blocks.0.resid_post", "*.pattern"):
            logits, acts = prisma.record(compiled, images, read)
            expected, wanted = prisma.record(model, images, read)
            torch.testing.assert_close(logits, expected)
            torch.testing.assert_close(dict(acts), dict(wanted))


@pytest.mark.parametrize(
    "changes",
    [
        {"frames": 1, "tubelet": 1},
        {"class_token": False, "pool": "mean"},
        {"registers": 1},
        {"norm": "post"},
        {"parallel": True},
        {"rotary": "table"},
        {"score_bias": True},
        {"norm_z": True},
    ],
)
def test_contradictions_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(PrismaError, match=rf"attention='divided' contradicts {next(iter(changes))}="):
        ViTConfig(**{**BASE, **VARIANTS["divided"], **changes})  # type: ignore[arg-type]
