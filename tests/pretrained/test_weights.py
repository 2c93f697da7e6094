"""Which weights are loaded: one set of safetensors that Prisma chooses, whatever lies beside it; never a pickle."""

import contextlib
import json
import pickle
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import prisma
from prisma.errors import PrismaError
from prisma.pretrained.weights import weights_in
from tests.hubserver.running import serving
from tests.pretrained.test_loading import FOLDERS

LIBRARIES = list(FOLDERS)


class Bomb:
    """A pickle of it, when it is opened, raises: its code runs."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise AssertionError('a pickle was opened')",))


@pytest.fixture(autouse=True)
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What opens pickles: none of it may be called, by Prisma or by a library below it."""
    found: list[str] = []

    def refuse(name: str) -> Callable[..., object]:
        def called(*_: object, **__: object) -> object:
            found.append(name)
            raise AssertionError(name)

        return called

    for module, name in (
        (torch, "load"),
        (pickle, "load"),
        (pickle, "loads"),
        (pickle, "Unpickler"),
        (torch.jit, "load"),
    ):
        monkeypatch.setattr(module, name, refuse(f"{module.__name__}.{name}"))
    yield found
    assert found == []


def pickled(path: Path) -> None:
    with path.open("wb") as file:
        pickle.dump(Bomb(), file)


@pytest.fixture(params=LIBRARIES)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder as a library saves it, and pickles of every name beside its weights."""
    FOLDERS[request.param](tmp_path / "saved")
    for name in ("pytorch_model.bin", "open_clip_pytorch_model.bin", "model.pth", "a.pt", "training_args.bin"):
        pickled(tmp_path / "saved" / name)
    return tmp_path / "saved"


def weights_file(folder: Path) -> Path:
    return next(folder.glob("*.safetensors"))


def sharded(folder: Path, index: str = "model") -> list[Path]:
    """The folder with its weights in two shards and an index."""
    tensors = load_file(weights_file(folder))
    weights_file(folder).unlink()
    halves = [dict(sorted(tensors.items())[i::2]) for i in range(2)]
    names = [f"{index}-0000{i + 1}-of-00002.safetensors" for i in range(2)]
    for name, half in zip(names, halves, strict=True):
        save_file(half, folder / name, metadata={"format": "pt"})
    where = {key: name for name, half in zip(names, halves, strict=True) for key in half}
    (folder / f"{index}.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return [folder / name for name in names]


def same(one: prisma.Loaded, other: prisma.Loaded) -> bool:
    return all(torch.equal(x, other.model.state_dict()[name]) for name, x in one.model.state_dict().items())


def test_the_only_safetensors_are_loaded_whatever_their_name(folder: Path) -> None:
    expected = prisma.load(folder)
    weights_file(folder).rename(folder / "best.safetensors")
    assert same(prisma.load(folder), expected)


def test_the_librarys_own_name_comes_before_others(folder: Path) -> None:
    expected = prisma.load(folder)
    changed = {name: x + 1 for name, x in load_file(weights_file(folder)).items()}
    for name in ("aaa.safetensors", "zzz.safetensors"):
        save_file(changed, folder / name, metadata={"format": "pt"})
    assert same(prisma.load(folder), expected)


def test_all_shards_of_an_index_are_loaded(folder: Path) -> None:
    expected = prisma.load(folder)
    shards = sharded(folder)
    assert same(prisma.load(folder), expected)
    shards[1].unlink()
    with pytest.raises(PrismaError, match=r"expected the files that .*index.json names; found no model-00002-of-00002"):
        prisma.load(folder)


def test_several_sets_are_refused_by_name(folder: Path) -> None:
    weights = weights_file(folder)
    (folder / "a.safetensors").write_bytes(weights.read_bytes())
    weights.rename(folder / "b.safetensors")
    with pytest.raises(
        PrismaError, match=r"expected one set of weights in .*; found a.safetensors, b.safetensors: keep"
    ):
        prisma.load(folder)


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "a pickle only": (Path.unlink, r"expected safetensors weights .*found a.pt \(PyTorch\), .*Prisma opens no other"),
    "a pickle under the name": (pickled, r"expected .*safetensors.* found .*a pickle"),
    "another name": (lambda path: path.rename(path.with_name("weights.bin")), r"weights.bin, which are safetensors"),
    "of other libraries": (
        lambda path: (path.unlink(), *(path.with_name(n).write_bytes(b"x") for n in ("a.gguf", "b.onnx", "c.h5"))),
        r"found a.gguf \(GGUF\), a.pt \(PyTorch\), b.onnx \(ONNX\) and \d more. Prisma opens no other format",
    ),
    "a Git LFS pointer": (
        lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
        "found .*a Git LFS pointer instead of the file itself: run `git lfs pull`",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "sentence"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_safetensors_is_refused(folder: Path, change: Callable[[Path], object], sentence: str) -> None:
    change(weights_file(folder))
    with pytest.raises(PrismaError, match=sentence):
        prisma.load(folder)


INDEXES: dict[str, Any] = {
    "outside": {"weight_map": {"x": "../x.safetensors"}},
    "a pickle": {"weight_map": {"x": "pytorch_model.bin"}},
    "no map": {},
    "empty": {"weight_map": {}},
    "a list": [],
}


@pytest.mark.parametrize("content", INDEXES.values(), ids=INDEXES)
def test_an_index_names_safetensors_beside_it(content: Any, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(content))
    with pytest.raises(PrismaError, match=r"expected a weight_map with names of safetensors beside it"):
        weights_in(tmp_path, ["model.safetensors"])


def test_shards_that_lack_a_tensor_or_have_one_twice_are_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"x": "a.safetensors", "y": "b.safetensors"}})
    )
    one = {"x": torch.ones(2)}
    save_file(one, tmp_path / "a.safetensors")
    save_file(one, tmp_path / "b.safetensors")
    with pytest.raises(PrismaError, match=r"every tensor in one file; found x in .*b.safetensors and in another shard"):
        weights_in(tmp_path, ["model.safetensors"]).tensors()
    save_file({"z": torch.ones(2)}, tmp_path / "b.safetensors")
    with pytest.raises(PrismaError, match=r"index.json names; found no y in its files"):
        weights_in(tmp_path, ["model.safetensors"]).tensors()


REPOSITORIES = {
    "hf/lab/d": ("lab/d", "transformers"),
    "open_clip/lab/d": ("lab/d", "open_clip"),
    "timm/vit_tiny_patch16_224": ("timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k", "timm"),
}


@pytest.mark.parametrize("ref", REPOSITORIES)
def test_no_pickle_of_a_repository_is_even_downloaded(
    ref: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repo, library = REPOSITORIES[ref]
    FOLDERS[library](tmp_path / "saved")
    weights_file(tmp_path / "saved").unlink()
    for name in ("pytorch_model.bin", "open_clip_pytorch_model.bin"):
        pickled(tmp_path / "saved" / name)
    with serving(monkeypatch, tmp_path, {repo: tmp_path / "saved"}) as hub:
        with pytest.raises(PrismaError, match=f"safetensors in {repo}; found none of them on the Hub. Prisma opens no"):
            prisma.load(ref)
        assert hub.asked("resolve")
        assert not any(row["path"].endswith(".bin") for row in hub.requests)


def test_a_repository_in_shards_is_loaded_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FOLDERS["transformers"](tmp_path / "saved")
    expected = prisma.load(tmp_path / "saved")
    sharded(tmp_path / "saved")
    with serving(monkeypatch, tmp_path, {"lab/d": tmp_path / "saved"}):
        assert same(prisma.load("hf/lab/d"), expected)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert same(prisma.load("hf/lab/d"), expected)


CODE: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "arguments": ("timm", "config.json", {"model_args": {"checkpoint_path": "model.pth"}}, "model_args that describe"),
    "not strict": ("timm", "config.json", {"model_args": {"pretrained_strict": False}}, "found pretrained_strict"),
    "quantised": ("transformers", "config.json", {"quantization_config": {"quant_method": "bitsandbytes"}},
                  "not quantised in .*bitsandbytes"),
}  # fmt: skip


@pytest.mark.parametrize("case", CODE)
def test_code_and_other_files_that_a_configuration_names_are_not_used(case: str, tmp_path: Path) -> None:
    library, file, changes, sentence = CODE[case]
    FOLDERS[library](tmp_path)
    (tmp_path / "bomb.py").write_text("raise AssertionError('code of a folder ran')")
    path = tmp_path / file
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**known, **changes}))
    with pytest.raises(PrismaError, match=sentence) as error:
        prisma.load(tmp_path)
    assert "ran" not in str(error.value)


def test_an_image_processor_with_code_of_its_own_is_not_run(tmp_path: Path) -> None:
    FOLDERS["transformers"](tmp_path)
    code = {"auto_map": {"AutoImageProcessor": "bomb.Bomb"}, "image_processor_type": "Bomb"}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(code))
    (tmp_path / "bomb.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with contextlib.suppress(PrismaError):
        prisma.load(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_a_tokenizer_with_code_of_its_own_is_refused(tmp_path: Path) -> None:
    FOLDERS["open_clip"](tmp_path)
    path = tmp_path / "open_clip_config.json"
    config = json.loads(path.read_text())
    config["model_cfg"]["text_cfg"]["tokenizer_kwargs"] = {"trust_remote_code": True}
    path.write_text(json.dumps(config))
    with pytest.raises(PrismaError, match="a tokenizer without code of its own"):
        prisma.load(tmp_path)


def test_a_head_that_the_weights_do_not_have_is_refused(tmp_path: Path) -> None:
    FOLDERS["timm"](tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["model_args"]["num_classes"] = 7  # timm would draw a random head
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(PrismaError, match=r"expected weights of 7 classes in .*; found num_classes=5"):
        prisma.load(tmp_path)


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.", "module._orig_mod."])
@pytest.mark.parametrize("in_shards", [False, True])
def test_a_wrapper_leaves_the_weights_as_they_are(folder: Path, wrapper: str, in_shards: bool) -> None:
    expected = prisma.load(folder)
    tensors = {wrapper + name: x for name, x in load_file(weights_file(folder)).items()}
    save_file(tensors, weights_file(folder), metadata={"format": "pt"})
    if in_shards:
        sharded(folder)
    assert same(prisma.load(folder), expected)


def test_a_wrapper_around_some_weights_is_none(folder: Path) -> None:
    """Only timm, which renames every tensor by itself, loads such a folder."""
    expected = prisma.load(folder)
    tensors = load_file(weights_file(folder))
    name = next(iter(tensors))
    tensors[f"module.{name}"] = tensors.pop(name)
    save_file(tensors, weights_file(folder), metadata={"format": "pt"})
    if (folder / "open_clip_config.json").exists() or "model_type" in (folder / "config.json").read_text():
        with pytest.raises(PrismaError, match=re.escape(name)):
            prisma.load(folder)
    else:
        assert same(prisma.load(folder), expected)
