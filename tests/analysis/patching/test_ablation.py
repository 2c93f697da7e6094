"""Ablation: every cell equals a forward of its own, with the edit that says the same."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import prisma
from prisma import LogitDiff, Mean, PrismaError, Probability, Resample, Set, Zero, record, run
from prisma.analysis.patching.ablation import Ablation, ablation
from prisma.analysis.patching.corruptions import derangement
from prisma.attention import Attention
from prisma.data import task
from prisma.edits import Edit
from prisma.inventory import site_names
from prisma.runs import Model
from prisma.sites import axes_of
from tests.counting import counting
from tests.variants import ids_of, images_of, model_of, tower_of

METRIC = LogitDiff([0, 1, 2, 3, 4], 1)


def one_forward_each(model: Model, images: Tensor, site: str, axis: str, edit_of: Any, metric: Any = METRIC) -> Tensor:
    """The slow twin [image, layer, unit]: `edit_of(site)` at one index of the axis, or everywhere for a component."""
    _, acts = record(model, images, f"blocks.*.{site}")
    rows = []
    for name, value in acts.items():
        edit: Edit = edit_of(name)
        units = 1 if axis == "component" else value.shape[axes_of(name).index(axis)]
        edits = [edit] if axis == "component" else [edit.at(**{axis: unit}) for unit in range(units)]
        rows.append(torch.stack([metric(run(model, images, {name: e})) for e in edits], dim=1))
    return torch.stack(rows, dim=1)


CELLS = [
    ("base", "attn.z", "head"),
    ("base", "attn.z", "token"),
    ("base", "attn.q", "head"),
    ("base", "attn.pattern", "head"),
    ("base", "resid_post", "token"),
    ("base", "mlp_out", "component"),
    ("base", "mlp.post", "d_mlp"),
    ("attention_only", "attn_out", "component"),
    ("norm_post", "attn_out", "token"),
    ("siglip", "attn.z", "head"),
    ("parallel", "mlp_out", "component"),
    ("pool_distilled", "mlp.post", "d_mlp"),
    ("video", "attn.z", "head"),
    ("divided", "time.z", "head"),
    ("divided_everything", "attn.z", "head"),
    ("gated_silu", "mlp.pre_linear", "d_mlp"),
]


WAYS = [
    *((*cell, by) for cell in CELLS for by in ("zero", "mean", "resample")),
    *((*cell, "mean of tokens") for cell in CELLS if cell[1] != "attn.pattern"),
]


@pytest.mark.parametrize(("variant", "site", "axis", "by"), WAYS)
def test_one_forward_for_each_unit(variant: str, site: str, axis: str, by: str) -> None:
    model = model_of(variant)
    images = images_of(model, 5)
    over = ("batch", axes_of(f"blocks.0.{site}")[1]) if by == "mean of tokens" else ("batch",)
    edits = {"zero": Zero(), "resample": Resample(tuple(derangement(5, 3).tolist()))}
    edit = edits.get(by, Mean(over))
    found = ablation(model, images, site, METRIC, by=by.split()[0], over=over, axis=axis, seed=3, batch=4)
    with torch.no_grad():
        expected = one_forward_each(model, images, site, axis, lambda _: edit)
        clean = METRIC(model(images))
    torch.testing.assert_close(found.values, expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found.clean, clean, rtol=1e-10, atol=1e-10)
    changes = expected - clean[:, None, None]
    torch.testing.assert_close(found.effect, changes.mean(0))
    torch.testing.assert_close(found.stderr, changes.std(0) / 5**0.5)
    assert changes.abs().max() > 1e-6


@pytest.mark.parametrize("over", [("batch",), ("batch", "token")])
def test_a_mean_of_other_images(over: tuple[str, ...]) -> None:
    model = model_of("base")
    images, reference = images_of(model, 5), images_of(model, 7, seed=9)
    found = ablation(model, images, "attn.z", METRIC, by="mean", reference=reference, over=over, batch=3)
    with torch.no_grad():
        acts = record(model, reference, "blocks.*.attn.z")[1]
        dims = (0, 1) if len(over) > 1 else 0
        means = {site: x.mean(dims, keepdim=True).expand(5, -1, -1, -1) for site, x in acts.items()}
        expected = one_forward_each(model, images, "attn.z", "head", lambda site: Set(means[site]))
    torch.testing.assert_close(found.values, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("n", [2, 8])
def test_values_of_other_images(n: int) -> None:
    """Fewer reference images than images are used again and again, each as often as the others."""
    model = model_of("base")
    images, reference = images_of(model, 5), images_of(model, n, seed=9)
    found = ablation(model, images, "mlp_out", METRIC, by="resample", reference=reference, axis="component", seed=1)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(1)).repeat(3)[:5]
    with torch.no_grad():
        acts = record(model, reference[order], "blocks.*.mlp_out")[1]
        expected = one_forward_each(model, images, "mlp_out", "component", lambda site: Set(acts[site]))
    torch.testing.assert_close(found.values, expected, rtol=1e-10, atol=1e-10)


def test_groups_of_neurons() -> None:
    model = model_of("base")
    images = images_of(model, 5)
    found = ablation(model, images, "mlp.post", METRIC, axis="d_mlp", groups=[[0, 9], [1, 2, 3]])
    with torch.no_grad():
        for layer in range(2):
            for unit, group in enumerate(([0, 9], [1, 2, 3])):
                edit = {f"blocks.{layer}.mlp.post": Zero().at(d_mlp=group)}
                torch.testing.assert_close(found.values[:, layer, unit], METRIC(run(model, images, edit)))


def test_a_text_tower() -> None:
    tower = tower_of("base")
    ids = ids_of(tower, 4)
    metric = LogitDiff(0, 1)
    found = ablation(tower, ids, "attn.z", metric, by="mean")
    with torch.no_grad():
        expected = one_forward_each(tower, ids, "attn.z", "head", lambda _: Mean(), metric)
    torch.testing.assert_close(found.values, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("by", ["zero", "mean", "resample"])
def test_half_precision(by: str) -> None:
    model = model_of("base", dtype=torch.bfloat16)
    images = images_of(model, 5)
    found = ablation(model, images, "attn.z", METRIC, by=by)
    exact = ablation(model_of("base", dtype=torch.bfloat16).double(), images.double(), "attn.z", METRIC, by=by)
    torch.testing.assert_close(found.values.double(), exact.values, rtol=0.05, atol=0.15)


def test_an_idle_head_has_no_effect_and_the_only_one_has_all() -> None:
    model = model_of("attention_only")
    with torch.no_grad():
        for block in model.blocks:
            block.attn.out.weight.view(12, 3, 4)[:, 1:] = 0
    images = images_of(model, 5)
    found = ablation(model, images, "attn.z", METRIC)
    assert found.effect[:, 1:].abs().max() < 1e-12
    whole = ablation(model, images, "attn.z", METRIC, axis="component")
    torch.testing.assert_close(found.values[..., :1], whole.values)


def test_no_more_blocks_than_needed() -> None:
    """Attention of L layers for the run itself, and for each head those of the later layers; the mean costs L more."""
    model = model_of("base", n_layers=4)
    images = images_of(model, 5)
    site_names(model.config)
    for by, before in (("zero", 0), ("mean", 4), ("resample", 4)):
        with counting(Attention, "heads") as rows:
            ablation(model, images, "attn.z", METRIC, by=by)
        assert sum(rows) == 5 * (4 + before + 3 * (3 + 2 + 1))


@pytest.mark.parametrize("by", ["zero", "mean", "resample"])
def test_the_induction_mouse_needs_its_attention(by: str) -> None:
    """One layer, attention only: without what it says of this image, one of four answers is a guess."""
    mouse = prisma.load("mice/induction").model
    images, labels = (x[::8] for x in task("induction").inputs("test"))
    found = ablation(mouse, images, "attn_out", Probability(labels), by=by, axis="component")
    assert found.clean.mean() > 0.9
    left = found.clean.mean() + found.effect
    assert (left < 0.5).all()
    heads = ablation(mouse, images, "attn.z", Probability(labels), by=by)
    assert (heads.effect > found.effect).all()


def test_result_survives_a_file(tmp_path: Path) -> None:
    model = model_of("base")
    found = ablation(model, images_of(model, 5), "attn.z", METRIC, by="resample")
    again = Ablation.from_npz(found.to_npz(tmp_path / "ablation.npz"))
    assert again.metadata == found.metadata
    torch.testing.assert_close(again.effect, found.effect)
    assert again.plot().axes[0].get_xlabel() == "head"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"by": "noise"}, "expected by to be zero, mean or resample; found 'noise'"),
        ({"by": "zero", "reference": torch.ones(3, 2, 6, 6).double()}, "expected no reference images with by='zero'"),
        ({"by": "mean", "reference": torch.ones(3, 2, 6, 5)}, r"found \[5, 2, 6, 6\] and \[3, 2, 6, 5\]"),
        ({"by": "mean", "reference": torch.ones(1, 2, 6, 6).double()}, "at least 2 images; found .* and 1 images"),
        ({"by": "resample", "reference": torch.ones(0, 2, 6, 6)}, "expected images, and reference images"),
        ({"by": "mean", "over": ("token",)}, "expected a mean over batch, and possibly token, head, d_head"),
        ({"by": "mean", "over": ("batch", "query")}, "expected a mean over batch"),
        ({"by": "mean", "over": ("batch", "batch")}, "expected a mean over batch"),
        (
            {"by": "resample", "images": torch.ones(1, 2, 6, 6).double()},
            "at least 2 images, so that each can get another one; found 1",
        ),
        ({"images": torch.ones(0, 2, 6, 6).double()}, "expected images"),
        ({"site": "attn.w"}, "no site of this model matches"),
        ({"axis": "query"}, "found 'query'"),
        ({"groups": 9}, "expected 1 to 3 groups of head"),
        ({"batch": 0}, "expected batch to be at least 1"),
        ({"metric": lambda x: x}, "one number per image"),
    ],
)
def test_what_cannot_be_done_is_said(options: dict[str, Any], message: str) -> None:
    model = model_of("base")
    options = {"images": images_of(model, 5), "site": "attn.z", "metric": METRIC, **options}
    with pytest.raises(PrismaError, match=message):
        ablation(model, **options)
