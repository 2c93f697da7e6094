"""Attention perturbation: tokens one at a time, rows by hand, edits of a run, and the sprites mouse."""

import pytest
import torch

import prisma
from prisma import PrismaError, record, run
from prisma.analysis.class_space.attention_perturbation import SelfOnly, attention_edits, attention_perturbation
from prisma.data import task
from tests.variants import images_of, model_of


@pytest.mark.parametrize(
    "variant", ["base", "registers", "rotary", "score_bias", "pool_mean", "norm_post", "no_class_token"]
)
def test_self_only_is_running_patches_one_at_a_time(variant: str) -> None:
    model = model_of(variant)
    images, n = images_of(model), model.config.n_prefix
    last = "blocks.1.resid_post"
    found = record(model, images, last, attention_edits(model))[1][last]
    x = model.embed(images)
    for token in range(n, model.config.n_tokens):
        alone = x[:, token]
        for block in model.blocks:  # a token that attends to itself alone: its own value goes through W_O
            read = block.read("attn", alone[:, None])
            qkv = block.attn.qkv(read).unflatten(-1, block.attn.split)
            middle = block.after("attn", alone[:, None] + block.scale("attn", block.attn.write(qkv[:, :, 2])))
            alone = block.mlp_half(middle, alone[:, None])[:, 0]
        torch.testing.assert_close(found[:, token], alone)


@pytest.mark.parametrize("renormalise", [False, True])
def test_rows_without_the_class_token_by_hand(renormalise: bool) -> None:
    model = model_of("registers")
    images = images_of(model)
    site, n = "blocks.1.attn.pattern", model.config.n_prefix
    edits = attention_edits(model, "no_cls", renormalise=renormalise, layers=[1])
    before, after = (record(model, images, site, edit)[1][site] for edit in (None, edits))
    assert torch.equal(after[:, :, :n], before[:, :, :n])
    expected = before[:, :, n:].clone()
    expected[..., 0] = 0
    if renormalise:
        expected = expected / expected.sum(-1, keepdim=True)
    torch.testing.assert_close(after[:, :, n:], expected)


def test_a_distillation_token_is_read_as_a_class_token_and_cut_with_it() -> None:
    model = model_of("pool_distilled")
    images, site, n = images_of(model), "blocks.0.attn.pattern", model.config.n_prefix
    before, after = (record(model, images, site, e)[1][site] for e in (None, attention_edits(model, "no_cls")))
    assert n == 2 and (after[:, :, n:, :2] == 0).all()
    assert torch.equal(after[:, :, n:, 2:], before[:, :, n:, 2:]) and torch.equal(after[:, :, :n], before[:, :, :n])


def test_layers_are_named_once_and_as_published_the_class_token_counts_once() -> None:
    model, labels = model_of("base"), torch.tensor([0, 3, 1])
    images = images_of(model, 3)
    found = attention_perturbation(model, images, labels, layers=[1, 1], compat="vilas2023")
    assert found.metadata["layers"] == [1]
    both = [attention_perturbation(model, images, labels, layers=[1], with_class_token=w) for w in (False, True)]
    assert torch.equal(found.rate, both[1].rate) and torch.equal(found.clean_rate, both[0].clean_rate)


def test_the_result_is_that_of_runs_with_these_edits() -> None:
    model = model_of("base")
    images, labels = images_of(model, 3), torch.tensor([0, 3, 1])
    for kind, layers in (("self_only", [1]), ("no_cls", None)):
        found = attention_perturbation(model, images, labels, kind=kind, layers=layers, batch=2)
        edits = attention_edits(model, kind, layers=layers)
        assert found.correct.tolist() == (run(model, images, edits).argmax(-1) == labels).float().tolist()
        assert found.clean_correct.tolist() == (model(images).argmax(-1) == labels).float().tolist()
        x = record(model, images, "blocks.1.resid_post", edits)[1]["blocks.1.resid_post"]
        logits = prisma.analysis.class_space.project(model, x)
        expected = (logits.argmax(-1) == labels[:, None])[:, 1:].double().mean(1)
        torch.testing.assert_close(found.rate.double(), expected)
        found = attention_perturbation(model, images, labels, kind=kind, layers=layers, with_class_token=True)
        torch.testing.assert_close(found.rate.double(), (logits.argmax(-1) == labels[:, None]).double().mean(1))
    assert SelfOnly() == SelfOnly() and SelfOnly().at(query=1) != SelfOnly().at(query=2)


def test_on_the_mouse_the_class_comes_from_other_patches_and_not_from_the_class_token() -> None:
    images, labels = task("sprites").inputs("test", 100)
    mouse = prisma.load("mice/sprites").model
    alone = attention_perturbation(mouse, images, labels, kind="self_only")
    assert alone.interval("rate")[1] < alone.interval("clean_rate")[0] / 4
    assert alone.interval("correct_change")[1] < 0
    for renormalise in (False, True):
        found = attention_perturbation(mouse, images, labels, kind="no_cls", renormalise=renormalise)
        assert abs(found.figures()["rate"][1] - found.figures()["rate"][0]) < 0.15
        assert found.interval("rate")[0] > alone.interval("rate")[1]


def test_what_it_refuses() -> None:
    model = model_of("base")
    images, labels = images_of(model), torch.tensor([0, 1])
    calls = {
        "expected kind to be self_only or no_cls; found 'none'": {"kind": "none"},
        r"expected layers from 0 to 1; found \[2\]": {"layers": [2]},
        r"expected layers from 0 to 1; found \[\]": {"layers": []},
    }
    for message, options in calls.items():
        with pytest.raises(PrismaError, match=message):
            attention_perturbation(model, images, labels, **options)
    with pytest.raises(PrismaError, match="expected a model with a class token"):
        attention_edits(model_of("no_class_token"), "no_cls")
    with pytest.raises(PrismaError, match="found attention='divided'"):
        attention_edits(model_of("divided"))
