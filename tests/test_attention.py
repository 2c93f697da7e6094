"""Attention and rotations: fused and materialised agree, and each equals an obvious slow computation."""

import cmath
import math
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import prisma
from prisma.attention import attend, axial_rotation, real_device, rotate
from prisma.sites import Tap, no_tap
from tests.twin import softmax_attention
from tests.variants import config_of, images_of, largest, model_of

WANTS_SCORES = {"scores": frozenset({"scores"}), "pattern": frozenset({"pattern"}), "neither": frozenset()}


def heads(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# attend

BIASES = {
    "no bias": None,
    "of each head": heads(2, 5, 5, seed=3),
    "of all heads": heads(5, 5, seed=4),
    "causal": torch.full((5, 5), -torch.inf, dtype=torch.float64).triu(1),
}


@pytest.mark.parametrize("read", WANTS_SCORES.values(), ids=WANTS_SCORES)
@pytest.mark.parametrize("bias", BIASES.values(), ids=BIASES)
def test_attention_equals_one_query_after_the_other(bias: Tensor | None, read: frozenset[str]) -> None:
    q, k, v = (heads(3, 5, 2, 4, seed=seed) for seed in range(3))
    tap = Tap(read, {})
    found = attend(q, k, v, tap, bias)
    assert set(tap.tensors) == read
    for image, head in product(range(3), range(2)):
        added = None if bias is None else bias.expand(2, 5, 5)[head]
        slow = softmax_attention(q[image, :, head], k[image, :, head], v[image, :, head], added)
        torch.testing.assert_close(found[image, :, head], slow, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("bias", BIASES.values(), ids=BIASES)
def test_scores_contain_the_bias_and_the_pattern_sums_to_one(bias: Tensor | None) -> None:
    q, k, v = (heads(3, 5, 2, 4, seed=seed) for seed in range(3))
    tap = Tap(frozenset({"scores", "pattern"}), {})
    attend(q, k, v, tap, bias)
    scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / 2 + (0 if bias is None else bias)
    torch.testing.assert_close(tap.tensors["scores"], scores)
    torch.testing.assert_close(tap.tensors["pattern"].sum(-1), torch.ones(3, 2, 5, dtype=torch.float64))


def test_another_number_of_queries_than_of_keys() -> None:
    q, k, v = heads(1, 1, 2, 4), heads(1, 6, 2, 4, seed=1), heads(1, 6, 2, 4, seed=2)
    torch.testing.assert_close(attend(q, k, v, no_tap), attend(q, k, v, Tap(frozenset({"pattern"}), {})))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize(
    "variant",
    ["base", "qk_norm", "rotary", "rotary_table", "rotary_head_table", "score_bias", "video_rotary", "siglip", "large"],
)
def test_fused_and_materialised_attention_agree(variant: str, dtype: torch.dtype, tolerance: float) -> None:
    model = model_of(variant, dtype)
    images = images_of(model)
    with torch.no_grad():
        fused = model(images)
        for read in ("*.pattern", "*.scores", "*attn.result", "*"):
            assert largest(prisma.record(model, images, read)[0] - fused) <= tolerance * largest(fused), read


def test_low_precision_attention_is_materialised_in_float32() -> None:
    q, k, v = (torch.randn(1, 5, 2, 8).bfloat16() for _ in range(3))
    tap = Tap(frozenset({"scores", "pattern"}), {})
    materialised = attend(q, k, v, tap)
    assert {x.dtype for x in tap.tensors.values()} == {torch.float32}
    assert materialised.dtype == torch.bfloat16
    assert largest(materialised - attend(q, k, v, no_tap)) <= 2e-2


def test_scores_are_exact_under_autocast() -> None:
    model = model_of("base", dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        _, acts = prisma.record(model, images_of(model), ["blocks.0.attn.scores", "blocks.0.attn.pattern"])
    assert {x.dtype for x in acts.values()} == {torch.float32}


# rotations

GRIDS = {
    "square": {"image_size": 8, "patch_size": 2, "d_model": 24, "n_heads": 3},
    "not square": {"image_size": (4, 10), "patch_size": (2, 2), "d_model": 16, "n_heads": 2, "rotary_base": 10},
    "video": {"image_size": 4, "patch_size": 2, "frames": 6, "tubelet": 2, "d_model": 24, "n_heads": 2},
}


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_axial_rotation_equals_the_formula_patch_by_patch(grid: dict[str, int]) -> None:
    config = config_of("base", rotary="axial", **grid)
    cos, sin = axial_rotation(config)[:, :, 0].double()
    sides = config.grid[-config.n_axes :]
    d_axis = config.d_head // len(sides)
    for patch, place in enumerate(product(*map(range, sides))):
        angles = []
        for index, n in zip(place, sides, strict=True):
            centre = -1 + (2 * index + 1) / n  # the image goes from -1 to 1 along each axis
            angles += [2 * math.pi * centre / config.rotary_base ** (2 * i / d_axis) for i in range(d_axis // 2)]
        for pair, angle in enumerate(angles):
            for place_in_head in (pair, pair + config.d_head // 2):
                assert cos[patch, place_in_head] == pytest.approx(math.cos(angle), abs=1e-6)
                assert sin[patch, place_in_head] == pytest.approx(math.sin(angle), abs=1e-6)


def table(angles: Tensor) -> Tensor:
    """[2, patch, 1 or head, d_head] of angles [patch, 1 or head, d_head / 2], the halves alike."""
    both = torch.cat([angles, angles], dim=-1)
    return torch.stack([both.cos(), both.sin()])


@pytest.mark.parametrize("n_heads", [1, 2])
def test_a_table_whose_halves_agree_turns_each_pair(n_heads: int) -> None:
    angles = heads(4, n_heads, 3, seed=1)
    x = heads(2, 6, 2, 6)
    turned = rotate(x, table(angles))
    assert torch.equal(turned[:, :2], x[:, :2])  # prefix tokens
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    for image, patch, head, pair in product(range(2), range(4), range(2), range(3)):
        a, b = x[image, patch + 2, head, [pair, pair + 3]].tolist()
        expected = complex(a, b) * cmath.exp(1j * angles[patch, head % n_heads, pair].item())
        found = complex(*turned[image, patch + 2, head, [pair, pair + 3]].tolist())
        assert cmath.isclose(found, expected, abs_tol=1e-12)
    torch.testing.assert_close(rotate(turned, table(-angles)), x)


def test_a_rotation_that_grows_with_the_place_sees_distances_only() -> None:
    places = torch.arange(5, dtype=torch.float64)[:, None, None]
    q, k = heads(1, 1, 1, 6).expand(1, 5, 1, 6), heads(1, 1, 1, 6, seed=1).expand(1, 5, 1, 6)
    rotation = table(places * torch.tensor([1.0, 0.3, 0.1], dtype=torch.float64))
    scores = torch.einsum("bqhd,bkhd->qk", rotate(q, rotation), rotate(k, rotation))
    for offset in range(-4, 5):
        diagonal = scores.diagonal(offset)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal))
    assert largest(scores[0] - scores[0, 0]) > 1e-3


# constants of a model whose weights are still to come


def test_the_real_device_is_never_meta() -> None:
    assert real_device() == torch.get_default_device()
    with torch.device("meta"):
        assert real_device() == torch.device("cpu")


def test_attention_without_a_bias_calls_the_fused_kernel_with_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mask, even of zeros, would keep the fastest kernels away."""
    fused, masks = F.scaled_dot_product_attention, []

    def noted(*x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        masks.append(attn_mask)
        return fused(*x, attn_mask=attn_mask)

    monkeypatch.setattr(F, "scaled_dot_product_attention", noted)
    model = model_of("base")
    model(images_of(model))
    assert masks == [None, None]
