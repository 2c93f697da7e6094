"""Places: what is read there is what `record` reads, and a changed run is a whole run with that edit."""

from typing import Any

import pytest
import torch

import prisma
from prisma import PrismaError, Set
from prisma.analysis.directions.places import Place, PlacedRuns
from tests.variants import images_of, model_of

CASES: list[tuple[str, str, str | int, int | None, dict[str, Any]]] = [
    ("base", "embed", "patches", None, {"token": slice(1, None)}),
    ("base", "blocks.0.resid_pre", "class", None, {"token": [0]}),
    ("base", "blocks.1.resid_post", 3, None, {"token": [3]}),
    ("base", "blocks.1.attn.z", "all", 1, {"head": 1}),
    ("base", "blocks.0.mlp.post", "class", None, {"token": [0]}),
    ("registers", "blocks.1.resid_mid", "registers", None, {"token": [1, 2, 3]}),
    ("base", "ln_final", "patches", None, {"token": slice(1, None)}),
    ("base", "pooled", "class", None, {}),
    ("pool_attention", "pool.mlp.post", "all", None, {}),
    ("divided", "blocks.1.time.z", "patches", 0, {"head": 0}),
]


@pytest.mark.parametrize(("variant", "site", "where", "head", "at"), CASES)
def test_a_changed_run_is_a_whole_run(variant: str, site: str, where: Any, head: int | None, at: Any) -> None:
    model = model_of(variant).requires_grad_(False)
    images = images_of(model, 3)
    runs = PlacedRuns(model, images, Place.of(model, site, where, head), batch=2)
    torch.testing.assert_close(runs.all_logits(runs.values), prisma.run(model, images))
    new = runs.values.flip(0) * 0.5
    written = (
        new
        if len(runs.values.shape) == prisma.record(model, images, site)[1][site].ndim or head is not None
        else new[:, 0]
    )
    expected = prisma.run(model, images, {site: Set(written).at(**at)})
    torch.testing.assert_close(runs.all_logits(new), expected)


def test_a_hook_on_the_model_is_kept_by_whole_runs() -> None:
    model = model_of("base").requires_grad_(False)
    images = images_of(model, 2)
    model.blocks[0].register_forward_hook(lambda m, a, y: 1.3 * y)
    model.register_forward_hook(lambda m, a, y: y + 1)
    runs = PlacedRuns(model, images, Place.of(model, "blocks.1.mlp_out", "class", None))
    expected = prisma.run(model, images, {"blocks.1.mlp_out": Set(runs.values.flip(0)).at(token=[0])})
    torch.testing.assert_close(runs.all_logits(runs.values.flip(0)), expected)


def test_gradients_go_to_the_values() -> None:
    model = model_of("base").requires_grad_(False)
    runs = PlacedRuns(model, images_of(model, 2), Place.of(model, "blocks.0.resid_post", "class", None))
    values = runs.values.clone().requires_grad_()
    (slope,) = torch.autograd.grad(runs.logits(values)[:, 0].sum(), values)
    step = 1e-6 * torch.randn_like(slope)
    moved = (runs.all_logits(runs.values + step) - runs.all_logits(runs.values))[:, 0].sum()
    torch.testing.assert_close(moved, (slope * step).sum(), rtol=1e-3, atol=1e-12)


@pytest.mark.parametrize(
    ("site", "where", "head", "message"),
    [
        ("blocks.*.resid_post", "class", None, "expected the name of one site; found .* which means 2"),
        ("blocks.9.resid_post", "class", None, "no site of this model matches"),
        ("blocks.0.attn.z", "class", None, "a head where it has heads; found blocks.0.attn.z"),
        ("blocks.0.attn.pattern", "class", None, "expected a site of features"),
        ("blocks.0.resid_post", "registers", None, "of which the model has none"),
        ("blocks.0.resid_post", 99, None, "expected a position of blocks.0.resid_post below 10; found 99"),
        ("blocks.0.resid_post", "tail", None, "expected a role of tokens"),
    ],
)
def test_what_is_no_place_is_one_sentence(site: str, where: Any, head: int | None, message: str) -> None:
    model = model_of("base")
    with pytest.raises(PrismaError, match=message):
        PlacedRuns(model, images_of(model, 2), Place.of(model, site, where, head))
