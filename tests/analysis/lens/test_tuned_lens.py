"""The tuned lens: it starts as the logit lens, learns what a linear map can, and survives the disk."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

import prisma
from prisma import PrismaError
from prisma.analysis.lens.logit_lens import logit_lens
from prisma.analysis.lens.tuned_lens import CONFIG, WEIGHTS, TunedLens, read_tuned_lens, train_tuned_lens, tuned_lens
from prisma.checkpoint import weights_hash
from prisma.data import task
from tests.variants import WITH_CLASSES, WITH_LAYERS, images_of, model_of


def lens_of(variant: str = "base", **changes: Any) -> TunedLens:
    model = model_of(variant)
    return train_tuned_lens(model, images_of(model, n=6), **{"steps": 3, "batch": 4, "lr": 0.01, **changes})


@pytest.mark.parametrize("variant", [name for name in WITH_CLASSES if name in WITH_LAYERS])
def test_every_form_of_model_can_be_translated(variant: str) -> None:
    model = model_of(variant)
    images = images_of(model)
    lens = train_tuned_lens(model, images, steps=2, batch=2, lr=1e-3)
    found, logits = tuned_lens(model, lens, images), model(images)
    assert found.readout.shape == (2, model.config.n_layers + 1, model.config.n_classes)
    assert torch.equal(found.readout[:, -1], logits)
    assert not torch.equal(found.readout[:, 0], logit_lens(model, images).readout[:, 0])
    before = logit_lens(model, images, tokens=False).divergence.mean(0)[:-1]
    torch.testing.assert_close(lens.losses[0], before, rtol=1e-10, atol=1e-12)  # it starts at the identity
    assert lens.losses[-1].sum() < lens.losses[0].sum()


def test_a_step_is_that_of_adamw_on_the_kl() -> None:
    """The obvious twin: modules, one loss, `backward`."""
    model, lr, decay = model_of("norm_pooled_mean"), 0.02, 0.1
    images = images_of(model, n=5)
    lens = train_tuned_lens(model, images, steps=2, batch=5, lr=lr, weight_decay=decay)
    matrices = [torch.nn.Linear(12, 12, dtype=torch.float64) for _ in range(2)]
    for matrix in matrices:
        torch.nn.init.zeros_(matrix.weight)
        torch.nn.init.zeros_(matrix.bias)
    groups = [
        {"params": [getattr(m, name) for m in matrices], "weight_decay": wd}
        for name, wd in (("weight", decay), ("bias", 0))
    ]
    optimizer = torch.optim.AdamW(groups, lr=lr)
    for step in range(2):
        for group in optimizer.param_groups:
            group["lr"] = lr * (1 - step / 2)
        optimizer.zero_grad()
        x, total = model.embed(images), torch.zeros((), dtype=torch.float64)
        for layer, matrix in enumerate(matrices):
            said = model.readout(x.detach() + matrix(x.detach())).log_softmax(-1)
            total = total + F.kl_div(said, model(images).softmax(-1).detach(), reduction="batchmean")
            x = model.encode(x, layer, layer + 1)
        total.backward()
        optimizer.step()
    for stage, matrix in enumerate(matrices):
        torch.testing.assert_close(lens.weight[stage], matrix.weight.detach(), rtol=1e-8, atol=1e-10)
        torch.testing.assert_close(lens.bias[stage], matrix.bias.detach(), rtol=1e-8, atol=1e-10)


def test_on_the_digits_mouse_it_says_more_at_every_earlier_stage() -> None:
    mouse, digits = prisma.load("mice/digits").model, task("digits")
    (images, _), (unseen, _) = digits.inputs("train"), digits.inputs("test")
    lens = train_tuned_lens(mouse, images, steps=40, batch=32)
    assert (lens.losses[-10:].mean(0) < lens.losses[:10].mean(0)).all()
    plain, tuned = (found.divergence.mean(0) for found in (logit_lens(mouse, unseen), tuned_lens(mouse, lens, unseen)))
    assert (tuned[:-1] < plain[:-1]).all()
    assert tuned[1] < 0.7 * plain[1]
    assert tuned[-1] == plain[-1] == 0


def test_a_planted_turn_is_undone() -> None:
    """The last block adds a fixed matrix of the stream: the lens of the stage before it can learn just that."""
    model = model_of("attention_only_norm_none", n_layers=1, pool="mean", n_heads=1)
    with torch.no_grad():
        for name, parameter in model.blocks[0].named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
        model.blocks[0].get_parameter("attn.qkv.weight")[:24] = 0  # attention looks everywhere alike
    lens = train_tuned_lens(model, images_of(model, n=256), steps=200, batch=32, lr=0.05, weight_decay=0)
    unseen = images_of(model, n=20, seed=9)
    assert (
        tuned_lens(model, lens, unseen).divergence[:, 0].mean()
        < 0.02 * logit_lens(model, unseen).divergence[:, 0].mean()
    )


def test_the_seed_decides_the_order_and_nothing_else_does() -> None:
    model = model_of("base")
    one, state = train(model, steps=3, batch=1), torch.get_rng_state()
    torch.manual_seed(12)
    again = train(model, steps=3, batch=1)
    assert torch.equal(one.weight, again.weight)
    assert not torch.equal(one.weight, train(model, steps=3, batch=1, seed=3).weight)
    torch.set_rng_state(state)
    train(model, steps=3)
    assert torch.equal(torch.get_rng_state(), state)


def test_it_goes_on_from_another_lens() -> None:
    model = model_of("base")
    images = images_of(model, n=6)
    first = train_tuned_lens(model, images, steps=5, batch=6)
    kept = first.weight.clone()
    second = train_tuned_lens(model, images, steps=1, batch=6, start=first)
    expected = tuned_lens(model, first, images).divergence.mean(0)[:-1]
    torch.testing.assert_close(second.losses[0], expected)
    assert torch.equal(first.weight, kept)


def test_nothing_is_left_on_the_model() -> None:
    model = model_of("base").train()
    before = {name: p.clone() for name, p in model.state_dict().items()}
    with torch.no_grad():
        train_tuned_lens(model, images_of(model), steps=2)
        assert not torch.is_grad_enabled()
    with torch.inference_mode():
        train_tuned_lens(model, images_of(model), steps=2)
    assert model.training
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert all(torch.equal(p, before[name]) for name, p in model.state_dict().items())


def test_half_precision_is_translated_in_float32() -> None:
    model = model_of("base", torch.bfloat16)
    lens = train_tuned_lens(model, images_of(model), steps=2)
    assert lens.weight.dtype == lens.losses.dtype == torch.float32
    assert tuned_lens(model, lens, images_of(model)).readout.dtype == torch.float32


def test_a_folder_holds_all_of_it(tmp_path: Path) -> None:
    lens = lens_of()
    lens.write(tmp_path / "deep" / "lens")
    again = read_tuned_lens(f"{tmp_path}/deep/lens")
    assert again.metadata == lens.metadata
    assert {name: x.tolist() for name, x in again.arrays.items()} == {
        name: x.tolist() for name, x in lens.arrays.items()
    }
    assert sorted(p.name for p in (tmp_path / "deep").rglob("*")) == ["lens", CONFIG, WEIGHTS]
    assert [line.get_label() for line in lens.plot().axes[0].lines] == ["stage 0", "stage 1"]
    assert lens.plot("bias").axes[0].images[0].get_array().tolist() == lens.bias.tolist()
    with pytest.raises(PrismaError, match="expected a new or empty folder"):
        lens.write(tmp_path / "deep" / "lens")


def spoil(folder: Path, name: str, change: Callable[[bytes], bytes | None]) -> None:
    new = change((folder / name).read_bytes())
    (folder / name).unlink() if new is None else (folder / name).write_bytes(new)


SPOILED: dict[str, tuple[str, Callable[[bytes], bytes | None], str]] = {
    "no config": (CONFIG, lambda data: None, "expected a tuned lens with"),
    "no JSON": (CONFIG, lambda data: data[:-20], "expected a tuned lens with"),
    "other JSON": (CONFIG, lambda data: b"[]", "found none .expected a JSON object"),
    "other type": (CONFIG, lambda data: data.replace(b"prisma-tuned-lens", b"prisma-vit"), "found something else"),
    "no metadata": (
        CONFIG,
        lambda data: json.dumps({"model_type": "prisma-tuned-lens"}).encode(),
        "found something else",
    ),
    "no weights": (WEIGHTS, lambda data: None, "found no such file"),
    "truncated": (WEIGHTS, lambda data: data[:-20], "truncated"),
}


@pytest.mark.parametrize("case", SPOILED)
def test_other_files_are_refused(case: str, tmp_path: Path) -> None:
    name, change, message = SPOILED[case]
    lens_of().write(tmp_path / "lens")
    spoil(tmp_path / "lens", name, change)
    with pytest.raises(PrismaError, match=message):
        read_tuned_lens(tmp_path / "lens")


@pytest.mark.parametrize(
    "change",
    [
        lambda x: {**x, "bias": x["bias"][:, :-1]},
        lambda x: {**x, "losses": x["losses"][:0]},
        lambda x: {**x, "losses": x["losses"][:, :-1]},
        lambda x: {**x, "weight": x["weight"].int()},
        lambda x: {**x, "bias": x["bias"][0]},
    ],
)
def test_arrays_that_do_not_belong_together_are_refused(
    change: Callable[[dict[str, Tensor]], dict[str, Tensor]], tmp_path: Path
) -> None:
    lens_of().write(tmp_path / "lens")
    arrays = change(load_file(tmp_path / "lens" / WEIGHTS))
    save_file({name: x.contiguous() for name, x in arrays.items()}, tmp_path / "lens" / WEIGHTS)
    with pytest.raises(PrismaError, match=r"expected floats, weight \[stage, d_model, d_model\], .*; found \{'bias'"):
        read_tuned_lens(tmp_path / "lens")


def test_a_lens_of_another_model_is_refused() -> None:
    other = model_of("rotary")
    for use in (lambda: tuned_lens(other, lens_of(), images_of(other)), lambda: train(other, start=lens_of())):
        with pytest.raises(PrismaError, match=r"for 2 layers and d_model 16; found \(2, 12\)"):
            use()


def test_a_lens_of_other_weights_of_the_same_shape_is_refused() -> None:
    model, other = model_of("base"), model_of("base")
    lens, images = train(model), images_of(model)
    assert torch.equal(
        tuned_lens(other, lens, images).readout, tuned_lens(model, lens, images).readout
    )  # equal weights
    with torch.no_grad():
        other.readout.head.bias.add_(1)
    sentence = r"trained on this model, whose weights are [0-9a-f]{12}; found one of a model with.*other_model=True"
    for use in (lambda **o: tuned_lens(other, lens, images, **o), lambda **o: train(other, start=lens, **o)):
        with pytest.raises(PrismaError, match=sentence):
            use()
        assert use(other_model=True)
    assert tuned_lens(model, lens, images).metadata["model"] == weights_hash(model.state_dict())


def test_a_lens_of_an_earlier_version_says_that_its_model_is_not_known() -> None:
    model = model_of("base")
    lens = train(model)
    old = replace(lens, metadata={k: v for k, v in lens.metadata.items() if k != "model"})
    with pytest.warns(UserWarning, match="does not say which model it was trained on"):
        found = tuned_lens(model, old, images_of(model))
    assert torch.equal(found.readout, tuned_lens(model, lens, images_of(model)).readout)


def train(model: prisma.ViT, images: Tensor | None = None, **options: Any) -> TunedLens:
    return train_tuned_lens(model, images_of(model) if images is None else images, **options)


def test_what_training_refuses() -> None:
    for model, message in ((model_of("no_layers"), "n_layers=0"), (model_of("no_head"), "n_classes=0")):
        with pytest.raises(PrismaError, match=message):
            train(model)
    model = model_of("base")
    for options in ({"steps": 0}, {"batch": 0}, {"lr": 0.0}, {"weight_decay": -1}, {"images": images_of(model)[:0]}):
        with pytest.raises(PrismaError, match="expected images, and steps, batch and lr above 0"):
            train(model, **options)  # type: ignore[arg-type]
    with pytest.raises(PrismaError, match="expected finite losses"):
        train(model, lr=1e300, steps=3)
