"""A folder that is not one whole model is told what was found in it, and what to load instead."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import prisma
from prisma.errors import PrismaError, UnsupportedModelError
from prisma.pretrained.folders import expect_model, library_of


def write(path: Path, content: object = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content or {}))


def trainer(folder: Path) -> None:
    for step in (500, 1000):
        write(folder / f"checkpoint-{step}/config.json")


CASES: dict[str, tuple[Callable[[Path], object], str]] = {
    "adapter": (
        lambda f: write(f / "adapter_config.json", {"base_model_name_or_path": "google/vit"}),
        "found a PEFT adapter of google/vit: load both in PEFT, and save what model.merge_and_unload",
    ),
    "trainer": (trainer, r"found none, and models in its folders: load one of them, such as .*checkpoint-1000"),
    "unfinished run": (lambda f: write(f / "checkpoints/step-000128/config.json"), "such as .*step-000128"),
    "one level above": (lambda f: write(f / "vit/config.json"), r"such as .*vit$"),
    "folder hub": (
        lambda f: write(f / "models--lab--tiny/refs/main", "0"),
        r"found a folder hub in .*: write prisma.load\(OWNER/NAME, hub=...\)",
    ),
    "pipeline": (lambda f: write(f / "model_index.json"), "found a pipeline of diffusers"),
    "pointer": (
        lambda f: write(f / "config.json", "version https://git-lfs.github.com/spec/v1\n"),
        "expected JSON in .*config.json; found a Git LFS pointer",
    ),
    "parts of sentence-transformers": (
        lambda f: (write(f / "modules.json"), write(f / "0_CLIPModel/config.json")),
        r"found a model of sentence-transformers, .*: load the part that .* \(parts: 0_CLIPModel\)",
    ),
    "weights alone": (lambda f: write(f / "a.safetensors"), "found none, and a.safetensors: weights alone do not tell"),
    "weights of others": (
        lambda f: (write(f / "onnx/model.onnx"), write(f / "model.gguf"), write(f / "tf_model.h5")),
        r"found none, and model.gguf \(GGUF\), tf_model.h5 \(TensorFlow\), onnx/model.onnx \(ONNX\): weights alone",
    ),
    "a tokenizer": (lambda f: write(f / "tokenizer.json"), "found none, but tokenizer.json$"),
    "nothing": (lambda f: None, "found none: the folder is empty"),
    "another config": (
        lambda f: write(f / "config.json", {"lr": 1, "epochs": 3}),
        r"found JSON without model_type and architecture \(lr, epochs\)",
    ),
}


@pytest.mark.parametrize(("make", "sentence"), CASES.values(), ids=CASES)
def test_a_folder_is_told_what_it_is(make: Callable[[Path], object], sentence: str, tmp_path: Path) -> None:
    make(tmp_path)
    for call in (expect_model, prisma.load):
        with pytest.raises(PrismaError, match=sentence):
            call(tmp_path)


def test_the_hubs_cache_of_one_model(tmp_path: Path) -> None:
    write(tmp_path / "models--lab--tiny/snapshots/abc/config.json")
    with pytest.raises(PrismaError, match=r"the Hub's cache of lab/tiny: load one of .*snapshots \(commits: abc\)"):
        prisma.load(tmp_path / "models--lab--tiny")


def test_quantised_weights_are_refused_before_they_are_read(tmp_path: Path) -> None:
    write(tmp_path / "config.json", {"model_type": "vit", "quantization_config": {"quant_method": "bitsandbytes"}})
    with pytest.raises(UnsupportedModelError, match=r"not quantised in .*quantization_config \(bitsandbytes\)"):
        prisma.load(tmp_path)


def test_a_file_is_told_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({}, tmp_path / "vit.pt")
    for ref in (tmp_path / "vit.pt", str(tmp_path / "vit.pt"), "vit.pt"):
        with pytest.raises(
            PrismaError, match=r"found a file \(a zip archive, .*\): weights alone do not tell the arch"
        ):
            prisma.load(ref)
    write(tmp_path / "saved/config.json")
    write(tmp_path / "saved/model.safetensors", "x")
    with pytest.raises(PrismaError, match=r"found a file: load its folder, saved$"):
        prisma.load("saved/model.safetensors")


def test_whole_models_pass(run: Path) -> None:
    expect_model(run)
    assert library_of(run) is None


@pytest.mark.parametrize("below", ["", "checkpoints/"])
def test_the_last_checkpoint_of_a_trainer_is_the_one_with_the_largest_number(tmp_path: Path, below: str) -> None:
    for step in (1000, 500, 1500, 90):  # copied in another order than they were made
        (tmp_path / f"{below}checkpoint-{step}").mkdir(parents=True)
        (tmp_path / f"{below}checkpoint-{step}" / "config.json").write_text("{}")
    with pytest.raises(PrismaError, match=r"load one of them, such as .*checkpoint-1500$"):
        expect_model(tmp_path)
