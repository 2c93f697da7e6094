"""Rows of a coder and its baselines."""

import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch

import prisma
from prisma.errors import PrismaError
from prisma.sparse.activations import source_of, split_images
from prisma.sparse.coders import Coder
from prisma.sparse.evaluation import evaluate, measure
from prisma.sparse.training import train
from tests.variants import images_of, model_of

SITE = "blocks.0.resid_post"


@pytest.fixture(scope="module")
def model() -> prisma.ViT:
    return model_of("registers", torch.float32)


@pytest.fixture(scope="module")
def images(model: prisma.ViT) -> torch.Tensor:
    return images_of(model, 40)


@pytest.fixture(scope="module")
def coder(model: prisma.ViT, images: torch.Tensor) -> Coder:
    return train(model, images, site=SITE, width=24, k=4, kind="batchtopk", steps=60, batch=128, lr=5e-3)


def test_numbers_are_of_the_other_half_and_baselines_are_always_rows(
    model: prisma.ViT, images: torch.Tensor, coder: Coder
) -> None:
    labels, factors = torch.arange(40) % 3, (torch.arange(40)[None] % torch.tensor([2, 3])[:, None] == 0).double()
    rows = evaluate(coder, model, images, labels=labels, factors=factors, baseline_steps=5, legacy=True)
    assert [row["coder"] for row in rows if row["tokens"] == "all"] == [
        "coder",
        "random decoder",
        "random encoder",
        "pca",
        "neurons",
    ]
    assert [row["tokens"] for row in rows if row["coder"] == "coder"] == ["all", "class", "registers", "patches"]
    first = rows[0]
    assert first["tpp"] == pytest.approx(first["tpp_intended"] - first["tpp_unintended"]) and -1 <= first["tpp"] <= 1
    x = prisma.record(model, images[split_images(40, 0.5, 0)[1]], SITE)[1][SITE]
    for row, part in zip(rows[:4], (x, x[:, :1], x[:, 1:4], x[:, 4:]), strict=True):
        tokens = part.flatten(0, 1)
        fvu = (tokens - coder(tokens)).square().sum() / (tokens - tokens.mean(0)).square().sum()
        assert row["fvu"] == pytest.approx(fvu.item(), rel=1e-4) and row["n_tokens"] == len(tokens)
        assert row["l0"] == pytest.approx((coder.encode(tokens) != 0).sum().item() / len(tokens))
    assert first["l0_trained"] == pytest.approx(4) and first["l0"] != first["l0_trained"]  # both are reported
    assert {"probe_1", "probe_5", "mcc", "uniqueness", "kl_spliced", "ce_clean", "decoder_cosine", "legacy_ev"} <= set(
        first
    )
    assert all(row["mcc"] >= 0 and row["fvu"] > 0 for row in rows if row["tokens"] == "all")


def test_a_coder_of_another_model_or_site_is_refused_or_said(
    model: prisma.ViT, images: torch.Tensor, coder: Coder
) -> None:
    other = model_of("registers", torch.float32, seed=3)
    with pytest.raises(PrismaError, match="expected the model that this coder was trained on, with the weights"):
        evaluate(coder, other, images, baseline_steps=0)
    moved = Coder(replace(coder.config, sites=("blocks.1.mlp_out",)), coder.metadata)
    moved.load_state_dict(coder.state_dict())
    with (
        pytest.warns(UserWarning, match=r"claims 4\.0 active latents per token; found "),
        pytest.warns(UserWarning, match=r"reconstructs worse than the mean does \(fvu .*is it of blocks.1.mlp_out"),
    ):
        evaluate(moved, model, images, baseline_steps=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert evaluate(coder, other, images, baseline_steps=0, other_model=True)[0]["fvu"] > 0


def test_a_coder_that_was_read_as_another_kind_is_seen_by_its_active_latents(
    model: prisma.ViT, images: torch.Tensor, coder: Coder
) -> None:
    """A topk coder that is loaded as a relu one has many times as many (SAELens #553)."""
    relu = Coder(replace(coder.config, kind="standard"), coder.metadata)
    relu.load_state_dict({name: x for name, x in coder.state_dict().items() if name != "threshold"})
    with pytest.warns(UserWarning, match=r"claims 4\.\d active latents per token; found "):
        evaluate(relu, model, images, baseline_steps=0)


def test_a_coder_of_another_library_is_given_its_site(model: prisma.ViT, images: torch.Tensor, coder: Coder) -> None:
    named = Coder(replace(coder.config, sites=("layers.0",)), coder.metadata)
    named.load_state_dict(coder.state_dict())
    found = evaluate(named, model, images, baseline_steps=0, site="blocks.0.hook_resid_post")
    assert found[0]["fvu"] == evaluate(coder, model, images, baseline_steps=0)[0]["fvu"]
    with pytest.raises(PrismaError, match=r"no site of this model matches 'layers\.0'"):
        evaluate(named, model, images, baseline_steps=0)


def test_transcoders_and_crosscoders_are_measured_too(model: prisma.ViT, images: torch.Tensor) -> None:
    across = train(
        model, images, site="blocks.0.ln2.normalized", target="blocks.0.mlp_out", width=16, k=3, steps=60, lr=5e-3
    )
    rows = evaluate(across, model, images, baseline_steps=2)
    assert {row["coder"] for row in rows} == {"coder", "random decoder", "random encoder"} and rows[0]["kl_spliced"] > 0
    cross = train(model, images, site=(SITE, "blocks.1.resid_post"), width=16, k=3, steps=20, lr=5e-3)
    found = measure(cross, source_of(model, images, cross.config.sites))
    _, acts = prisma.record(model, images, list(cross.config.sites))
    x = torch.cat([acts[site] for site in cross.config.sites], -1).flatten(0, 1)
    assert found[0]["fvu"] == pytest.approx(
        ((x - cross(x)).square().sum() / (x - x.mean(0)).square().sum()).item(), rel=1e-4
    )


def test_a_coder_that_reconstructs_worse_than_it_claims_is_seen(
    model: prisma.ViT, images: torch.Tensor, coder: Coder
) -> None:
    record = {**coder.metadata["training"], "fvu_held_out": 0.01}
    boasting = Coder(coder.config, {**coder.metadata, "training": record})
    boasting.load_state_dict(coder.state_dict())
    with pytest.warns(UserWarning, match=r"claims an fvu of 0\.010; found 0\.\d+: are these images like those"):
        evaluate(boasting, model, images, baseline_steps=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"labels": torch.zeros(3).long()},
            r"expected labels \[40\], whole numbers, of the images; found \[3\] of torch",
        ),
        ({"labels": torch.arange(40.0)}, r"whole numbers, of the images; found \[40\] of torch.float32"),
        ({"labels": [0] * 40}, r"expected labels \[40\], whole numbers, of the images; found \[0, 0"),
        ({"labels": torch.arange(40) - 1}, "expected labels from 0 to 4; found -1 to 38"),
        ({"labels": torch.arange(40) % 6}, "expected labels from 0 to 4; found 0 to 5"),
        ({"factors": torch.zeros(2, 3)}, r"expected factors \[value, 40\], finite numbers, .*; found \[2, 3\]"),
        ({"factors": torch.full((1, 40), torch.nan)}, "expected factors"),
        ({"factors": torch.zeros(0, 40)}, "expected factors"),
        ({"images": [1, 2]}, "expected images as a tensor .*; found a list"),
        ({"images": torch.rand(1, 3, 16, 16)}, "expected at least 2 images, one half for the probes .*; found 1"),
        ({"coder": 3}, "expected a sparse coder; found a int"),
        ({"site": 5}, "expected site to be text; found 5"),
        ({"seed": -1}, "expected the seed of the order to be from 0 to 4,294,967,295; found -1"),
        ({"seed": "a"}, "expected the seed of the order to be a whole number; found 'a'"),
        ({"model": {"a": None, "b": None}}, "expected a prisma.ViT"),
    ],
)
def test_what_cannot_be_evaluated_is_said(
    arguments: dict[str, Any], message: str, model: prisma.ViT, images: torch.Tensor, coder: Coder
) -> None:
    with pytest.raises(PrismaError, match=message):
        evaluate(**{"coder": coder, "model": model, "images": images, "baseline_steps": 0, **arguments})


def test_models_by_name_and_a_target_that_is_read_too(model: prisma.ViT, images: torch.Tensor, coder: Coder) -> None:
    alone = evaluate(coder, model, images, baseline_steps=0)[0]
    named = evaluate(coder, {"a": model}, images, baseline_steps=0)[0]
    assert named["fvu"] == alone["fvu"] and "kl_spliced" not in named
    with pytest.raises(PrismaError, match=f"of this coder, of one model; found {SITE}@a, {SITE}@b"):
        evaluate(coder, {"a": model, "b": model}, images, baseline_steps=0)
    same = Coder(replace(coder.config, target=SITE, centred=False))
    same.load_state_dict(coder.state_dict())
    same.b_enc.data -= coder.b_dec @ coder.W_enc
    found = evaluate(same, model, images, labels=torch.arange(40) % 3, baseline_steps=0)[0]
    assert found["fvu"] == pytest.approx(alone["fvu"], rel=1e-4) and found["kl_spliced"] == pytest.approx(
        alone["kl_spliced"], rel=1e-3
    )
