"""The mice of dSprites have the published sizes and settings, and ours no more steps."""

from dataclasses import replace

import pytest

from prisma.outline import outline
from prisma.recipes import RECIPES, TABLES, recipe
from prisma.recipes.dsprites import OURS, PUBLISHED
from prisma.train.optimizer import learning_rate

ACCURACIES = {  # as ViT-Prisma's README has them: attention and MLP, attention only
    "tiny": (1, 0.535, 0.459),
    "base": (2, 0.996, 0.685),
    "small": (3, 1.000, 0.774),
    "medium": (4, 1.000, 0.991),
}


@pytest.mark.parametrize("size", ACCURACIES)
@pytest.mark.parametrize("kind", ["full", "attn"])
def test_a_published_recipe_is_the_published_one(size: str, kind: str) -> None:
    layers, *accuracies = ACCURACIES[size]
    chosen = recipe(f"dsprites-{size}-{kind}")
    m, t = chosen.model, chosen.training
    assert (m.image_size, m.patch_size, m.channels, m.n_tokens, m.n_classes) == (64, 8, 1, 65, 3)
    assert (m.n_layers, m.d_model, m.n_heads, m.d_mlp) == (layers, 512, 8, 2048 if kind == "full" else 0)
    assert (m.norm, m.qkv_bias, m.head_bias, m.activation, m.pool) == ("none", False, True, "gelu", "class")
    assert (t.lr, t.weight_decay, t.decay_all, t.batch_size, t.clip) == (1e-4, 0.01, True, 512, 1.0)
    assert (t.steps, t.warmup, t.checkpoint_every, t.init) == (10 * 552_960 // 512, 10, 50, "kaiming")
    assert (t.init_seed, t.order_seed, t.precision, t.shift, t.turn) == (0, 0, "float32", 0, 0)
    assert [learning_rate(t, step) for step in (199, 200, 399, 1080)] == pytest.approx(
        [1e-4, 0.8e-4, 0.8e-4, 0.8**5 * 1e-4]
    )
    assert sum(learning_rate(t, step) for step in range(t.steps)) / t.lr == pytest.approx(1000, abs=10)
    assert chosen.published_accuracy == chosen.expected_accuracy == accuracies[kind == "attn"]


def test_the_first_weights_of_one_layer_are_counted() -> None:
    """Patches, class token, positions, q, k, v, output, MLP, head."""
    tokens, attention = 64 * 512 + 512 + 512 + 64 * 512, 4 * 512**2 + 512
    mlp, head = 2 * 512 * 2048 + 2048 + 512, 3 * 512 + 3
    for kind, own in (("full", mlp), ("attn", 0)):
        model = outline(recipe(f"dsprites-tiny-{kind}").model)
        assert sum(p.numel() for p in model.parameters()) == tokens + attention + own + head


def test_ours_differ_in_norms_and_schedule_and_take_fewer_steps() -> None:
    assert TABLES["dsprites"] == OURS and len(OURS) == len(PUBLISHED) == 8
    known = {name for name in RECIPES if name.startswith("dsprites")}
    assert {one.name for one in (*OURS, *PUBLISHED)} == known - {"dsprites-all"}
    for ours, theirs in zip(OURS, PUBLISHED, strict=True):
        assert ours.name == f"{theirs.name}-cosine"
        assert replace(ours.model, norm="none") == theirs.model
        assert ours.training.steps < theirs.training.steps
        assert ours.training.batch_size == theirs.training.batch_size
        assert ours.published_accuracy == theirs.published_accuracy
