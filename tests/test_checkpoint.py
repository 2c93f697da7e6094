"""A checkpoint folder: what was written comes back to the bit, and anything else is refused in one sentence."""

import json
import os
from collections.abc import Callable
from io import BufferedReader
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from prisma import PrismaError, checkpoint
from prisma.checkpoint import (
    CONFIG,
    DTYPES,
    WEIGHTS,
    names_in,
    read_checkpoint,
    read_tensors,
    to_safetensors,
    weights_hash,
    wrapper_of,
    write_checkpoint,
)
from tests.test_files import everything, failing
from tests.variants import VARIANTS, images_of, model_of

EXTRAS: dict[str, Any] = {
    "labels": ("ant", "bee", "cat", "dog", "elk"),
    "transform": {"size": [6, 6], "mean": [0.5], "std": [0.25]},
    "header": {"step": "128", "run": "r1"},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_checkpoint(tmp_path / "checkpoint", model_of("base", torch.float32), **EXTRAS)
    return tmp_path / "checkpoint"


FORMS_IN_TYPES = [
    *((variant, torch.float32) for variant in VARIANTS),
    *product(["base", "rotary_table", "divided_everything"], [torch.float64, torch.bfloat16]),
]


def test_round_trip_to_the_bit(tmp_path: Path) -> None:
    """Every form, and other types for a few: a tensor is written as its bytes, whichever form it belongs to."""
    for variant, dtype in FORMS_IN_TYPES:
        case, folder = f"{variant} in {dtype}", tmp_path / f"{variant}-{dtype}"
        model = model_of(variant, torch.float32).to(dtype)
        extras = EXTRAS if model.config.n_classes else {**EXTRAS, "labels": ()}
        write_checkpoint(folder, model, **extras)
        found = read_checkpoint(folder)
        assert found.model.config == model.config, case
        assert {"labels": found.labels, "transform": found.transform, "header": found.header} == extras, case
        assert not found.model.training and not any(p.requires_grad for p in found.model.parameters()), case
        weights = model.state_dict()
        assert found.model.state_dict().keys() == weights.keys(), case
        for name, x in found.model.state_dict().items():
            assert x.dtype == dtype and torch.equal(x, weights[name]), f"{case}: {name}"
        if dtype == torch.float32:
            images = images_of(model)
            assert torch.equal(found.model(images), model(images)), case


def test_same_arguments_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_checkpoint(tmp_path / name, model_of("base"), **EXTRAS)
    assert everything(tmp_path / "a") == everything(tmp_path / "b")
    assert set(everything(tmp_path / "a")) == {CONFIG, WEIGHTS}


def test_reading_draws_no_random_number(folder: Path) -> None:
    before = torch.get_rng_state()
    read_checkpoint(folder)
    assert torch.equal(before, torch.get_rng_state())


def test_a_read_model_does_not_depend_on_the_file(folder: Path) -> None:
    model = read_checkpoint(folder).model
    before = model.embed.patch.weight.clone()
    (folder / WEIGHTS).write_bytes(bytes((folder / WEIGHTS).stat().st_size))
    assert torch.equal(model.embed.patch.weight, before)


def while_it_is_read(monkeypatch: pytest.MonkeyPatch, change: Callable[[], object]) -> None:
    """Make a change to the file after its header was read, and before its tensors are."""

    def changing(file: BufferedReader) -> Any:
        found = read_header(file)
        change()
        return found

    read_header = checkpoint._read_header
    monkeypatch.setattr(checkpoint, "_read_header", changing)


def test_a_file_that_is_replaced_while_it_is_read_comes_back_as_it_was(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, _ = read_tensors(folder / WEIGHTS)
    while_it_is_read(monkeypatch, lambda: write_checkpoint(folder, model_of("base", torch.float32, seed=7), **EXTRAS))
    found, _ = read_tensors(folder / WEIGHTS)
    assert not torch.equal(load_file(folder / WEIGHTS)["embed.patch.weight"], before["embed.patch.weight"])
    assert found.keys() == before.keys()
    assert all(torch.equal(x, before[name]) for name, x in found.items())


def test_a_file_that_becomes_shorter_while_it_is_read_is_noticed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    while_it_is_read(monkeypatch, lambda: os.truncate(folder / WEIGHTS, (folder / WEIGHTS).stat().st_size - 1))
    with pytest.raises(PrismaError, match=r"truncated or foreign file .*became shorter while it was read"):
        read_tensors(folder / WEIGHTS)


def change_config(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        config = json.loads((folder / CONFIG).read_text())
        config = change(config) or config
        (folder / CONFIG).write_text(json.dumps(config))

    return apply


def change_weights(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / WEIGHTS)

    return apply


def cut(name: str, keep: int) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:keep]) and None


def architecture(**fields: Any) -> Callable[[Path], None]:
    return change_config(lambda config: config["architecture"].update(fields))


BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no config": (lambda f: (f / CONFIG).unlink(), "expected a checkpoint folder with config.json at .*; found none"),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), "expected safetensors weights at .*; found no such file"),
    "cut config": (cut(CONFIG, 50), "expected JSON in .*config.json; found something else"),
    "empty config": (cut(CONFIG, 0), "expected JSON in .*config.json; found something else"),
    "binary config": (lambda f: (f / CONFIG).write_bytes(b"\xff\xfe\x00"), "expected text in UTF-8 in"),
    "list as config": (change_config(lambda c: [c]), "expected a JSON object in .*; found list"),
    "foreign config": (change_config(lambda c: {"model_type": "vit"}), "expected model_type 'prisma-vit'.*found 'vit'"),
    "no architecture": (change_config(lambda c: c.pop("architecture") and None), "'architecture' .* a JSON dict"),
    "labels of no list": (change_config(lambda c: c.update(labels="cat")), "'labels' .* a JSON list; found 'cat'"),
    "old field": (architecture(head_dim="3"), "expected d_head to be a whole number"),
    "no transform": (change_config(lambda c: c.update(transform=None)), "'transform' .* a JSON dict; found None"),
    "unknown field": (architecture(n_layer=3), "unknown field 'n_layer'; the nearest known: n_layers"),
    "missing field": (change_config(lambda c: c["architecture"].pop("d_mlp") and None), "lacks the field d_mlp"),
    "contradiction": (architecture(n_heads=5, d_head=0), "d_model=12 contradicts n_heads=5"),
    "wrong type": (architecture(n_heads="3"), "expected n_heads to be a whole number"),
    "cut weights": (cut(WEIGHTS, 3000), "expected whole safetensors weights at .*; found a truncated or foreign file"),
    "cut header": (cut(WEIGHTS, 20), "found a truncated or foreign file"),
    "empty weights": (cut(WEIGHTS, 0), "found a truncated or foreign file"),
    "pickled weights": (
        lambda f: torch.save({"x": torch.ones(1)}, f / WEIGHTS),
        "found a truncated or foreign file",
    ),
    "folder as weights": (lambda f: ((f / WEIGHTS).unlink(), (f / WEIGHTS).mkdir()), "found a folder"),
    "another shape": (architecture(d_mlp=11), r"blocks.0.mlp.pre.weight is \[10, 12\] instead of \[11, 12\]; blocks"),
    "another form": (architecture(layer_scale=True), "blocks.0.scale1.weight is missing; .*blocks.1.scale2.weight is"),
    "integers": (
        change_weights(lambda w: w.update({"readout.head.bias": torch.ones(5, dtype=torch.int64)})),
        "readout.head.bias is torch.int64, not floating point",
    ),
}


@pytest.mark.parametrize(("breaking", "sentence"), BROKEN.values(), ids=BROKEN)
def test_what_is_no_checkpoint_is_refused(breaking: Callable[[Path], Any], sentence: str, folder: Path) -> None:
    breaking(folder)
    with pytest.raises(PrismaError, match=sentence) as error:
        read_checkpoint(folder)
    assert str(folder) in str(error.value) or "contradicts" in sentence or "to be" in sentence
    assert "\n" not in str(error.value)


def test_every_wrong_tensor_is_named(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    del tensors["embed.prefix"], tensors["blocks.1.attn.out.bias"]
    tensors["readout.head.weight"] = torch.zeros(5, 13)
    tensors["cls_token"] = torch.zeros(1)
    save_file(tensors, folder / WEIGHTS)
    with pytest.raises(PrismaError) as error:
        read_checkpoint(folder)
    for name in ("embed.prefix", "blocks.1.attn.out.bias"):
        assert f"{name} is missing" in str(error.value)
    assert "cls_token is not part of this architecture" in str(error.value)
    assert "readout.head.weight is [5, 13] instead of [5, 12]" in str(error.value)


def test_truncation_anywhere_is_noticed(folder: Path) -> None:
    whole = (folder / WEIGHTS).read_bytes()
    for keep in range(0, len(whole), 509):
        (folder / WEIGHTS).write_bytes(whole[:keep])
        with pytest.raises(PrismaError, match="truncated or foreign"):
            read_tensors(folder / WEIGHTS)
    (folder / WEIGHTS).write_bytes(whole + b"\0")
    with pytest.raises(PrismaError, match="truncated or foreign"):
        read_tensors(folder / WEIGHTS)


def test_a_full_disk_leaves_the_old_checkpoint(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = everything(folder)
    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(PrismaError, match=r"could not write .*: No space left on device"):
        write_checkpoint(folder, model_of("base", seed=7))
    assert everything(folder) == before


@pytest.mark.parametrize("labels", [["cat"], [0, 1, 2, 3, 4]])
def test_labels_that_do_not_name_the_classes_are_refused(folder: Path, labels: list[Any]) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "labels": labels}))
    with pytest.raises(PrismaError, match="one word for each of the 5 classes"):
        read_checkpoint(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"d_model": 4 * 10**7},
        {"d_mlp": 10**30},
        {"d_model": 999_999, "n_heads": 1},
        {"image_size": 10**6, "patch_size": 1, "rotary": "axial", "n_heads": 1},
    ],
)
def test_a_config_of_an_impossible_size_is_one_sentence(folder: Path, changes: dict[str, int]) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["architecture"] |= changes
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(
        PrismaError,
        match=r"expected (d_model|d_mlp|image_size|the number of weights) to be|do not fit config.json",
    ):
        read_checkpoint(folder)


def test_tensors_that_share_memory_are_written_each(tmp_path: Path) -> None:
    """As the rotation of a pretrained model does, one table for all its layers."""
    model = model_of("rotary_table", torch.float32)
    model.blocks[1].attn.rotation = model.blocks[0].attn.rotation  # type: ignore[union-attr]
    write_checkpoint(tmp_path, model)
    read = read_checkpoint(tmp_path).model
    images = images_of(model)
    assert torch.equal(read(images), model(images))


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_every_type_is_read_as_the_library_reads_it(dtype: torch.dtype, tmp_path: Path) -> None:
    x = (
        torch.arange(48, dtype=torch.uint8).view(dtype).view(-1, 3, 2)
        if dtype.itemsize < 8
        else torch.ones(1).to(dtype)
    )
    tensors = {"b": x, "a": torch.zeros(0, 2, dtype=dtype), "c": torch.ones((), dtype=torch.uint8).to(dtype)}
    (tmp_path / "x").write_bytes(to_safetensors(tensors, {"step": "1"}))
    found, header = read_tensors(tmp_path / "x")
    assert header == {"step": "1"} and found.keys() == tensors.keys()
    for name, y in load_file(tmp_path / "x").items():
        assert (found[name].dtype, found[name].shape) == (y.dtype, y.shape)
        assert torch.equal(found[name].view(-1).view(torch.uint8), y.view(-1).view(torch.uint8))


HEADERS: dict[str, Any] = {
    "a gap": {"x": {"dtype": "U8", "shape": [1], "data_offsets": [1, 2]}},
    "an overlap": {f"x{i}": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]} for i in range(2)},
    "another size": {"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 2]}},
    "a negative side": {"x": {"dtype": "U8", "shape": [-1, -2], "data_offsets": [0, 2]}},
    "an unknown type": {"x": {"dtype": "U7", "shape": [2], "data_offsets": [0, 2]}},
    "bytes of nobody": {"x": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}},
    "no offsets": {"x": {"dtype": "U8", "shape": [2]}},
    "a text": {"x": "y"},
    "a list": [1],
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_a_header_that_does_not_describe_its_bytes_is_refused(header: Any, tmp_path: Path) -> None:
    text = json.dumps(header).encode()
    (tmp_path / "x").write_bytes(len(text).to_bytes(8, "little") + text + b"\0\0")
    with pytest.raises(PrismaError, match="found a truncated or foreign file") as error:
        read_tensors(tmp_path / "x")
    assert "\n" not in str(error.value)


def test_weights_hash_sees_names_values_shapes_and_types() -> None:
    x = torch.arange(4.0)
    different = [{"a": x}, {"b": x}, {"a": x + 1}, {"a": x.view(2, 2)}, {"a": x.int()}, {"a": x, "b": x}]
    assert len({weights_hash(tensors) for tensors in different}) == len(different)
    assert weights_hash({"a": x, "b": x}) == weights_hash({"b": x.clone(), "a": x})
    assert weights_hash({"a": torch.eye(3)[:, :2]}) == weights_hash({"a": torch.eye(3)[:, :2].contiguous()})


def test_what_no_weight_holds_is_not_left_out(tmp_path: Path) -> None:
    model = model_of("base")
    handle = model.blocks[0].ln1.register_forward_hook(lambda *_: None)
    with pytest.raises(PrismaError, match=r"a checkpoint.*: expected blocks\.0\.ln1 to .* found a forward hook"):
        write_checkpoint(tmp_path / "model", model)
    handle.remove()
    (tmp_path / "model").mkdir(exist_ok=True)
    write_checkpoint(tmp_path / "model", model)


@pytest.mark.parametrize(("value", "what"), [(torch.nan, "NaN"), (torch.inf, "infinity"), (-torch.inf, "infinity")])
def test_weights_that_are_not_finite_are_named(folder: Path, value: float, what: str) -> None:
    change_weights(lambda tensors: tensors["blocks.0.mlp.pre.bias"].fill_(value))(folder)
    with pytest.raises(PrismaError, match=f"finite weights in .*; found that blocks.0.mlp.pre.bias has {what}$"):
        read_checkpoint(folder)


def test_labels_differ(folder: Path) -> None:
    change_config(lambda config: config.update(labels=["ant", "bee", "ant", "dog", "elk"]))(folder)
    with pytest.raises(PrismaError, match=r"a different label for each class in .*; found 'ant' twice"):
        read_checkpoint(folder)


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.", "module._orig_mod."])
def test_a_wrapper_leaves_the_weights_as_they_are(folder: Path, wrapper: str) -> None:
    expected = read_checkpoint(folder).model.state_dict()
    tensors, _ = read_tensors(folder / WEIGHTS)
    assert names_in(folder / WEIGHTS) == list(tensors)
    (folder / WEIGHTS).write_bytes(to_safetensors({wrapper + name: x for name, x in tensors.items()}, {}))
    found = read_checkpoint(folder).model.state_dict()
    assert all(torch.equal(x, found[name]) for name, x in expected.items())


def test_a_wrapper_is_around_all_names() -> None:
    assert wrapper_of(["module.a", "module.module.b"]) == "module."
    assert wrapper_of(["module.a", "b"]) == wrapper_of([]) == ""
