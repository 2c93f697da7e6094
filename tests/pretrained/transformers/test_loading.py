"""Loading transformers' models: saved folders, the Hub's cache, live modules, other image sizes, and every failure."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import prisma
from prisma import PrismaError
from prisma.errors import UnsupportedModelError
from prisma.pretrained.families import family_of
from prisma.pretrained.loading import check
from prisma.pretrained.parity import compare, randomise
from prisma.pretrained.rules import convert
from prisma.pretrained.source import SourceModel
from prisma.pretrained.transformers.loading import describe, load_folder, load_module, load_name
from tests.pretrained.transformers.cases_clip import CASES as PAIRS
from tests.pretrained.transformers.cases_images import CASES, build

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAMES = ["cat", "dog", "newt", "owl", "elk"]
WEIGHTS = "model.safetensors"


def saved(module: Any, folder: Path, processor: Any = None) -> Path:
    """As transformers saves a model, with labels."""
    randomise(module)
    module.config.id2label = dict(enumerate(NAMES))
    module.save_pretrained(folder)
    if processor is not None:
        processor.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    processor = transformers.ViTImageProcessor(size={"height": 12, "width": 12}, resample=3)  # type: ignore[no-untyped-call]
    return saved(build("ViTForImageClassification", "ViT"), tmp_path / "saved", processor)


def answer(source: SourceModel, images: Tensor) -> Tensor:
    family = family_of(source.module)
    return convert(family.read(source.module), source.module.state_dict(), family.name)(images)


def error_of(call: Callable[[], object]) -> str:
    """The one sentence of a failure."""
    with pytest.raises(PrismaError) as error:
        call()
    assert "\n" not in str(error.value)
    return str(error.value)


# what opens


@torch.no_grad()
def test_a_saved_folder(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    capfd.readouterr()
    source = load_folder(folder)
    assert capfd.readouterr() == ("", "")
    images = torch.randn(2, 3, 12, 12)
    theirs = transformers.ViTForImageClassification.from_pretrained(folder)
    torch.testing.assert_close(answer(source, images), theirs(images).logits, rtol=0, atol=1e-5)
    assert source.labels == tuple(NAMES)
    assert not source.module.training
    assert source.text is None
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (31, 47, 3), dtype=np.uint8))
    processor = transformers.AutoImageProcessor.from_pretrained(folder)
    assert source.transform is not None
    found = processor(picture, return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(source.transform(picture), found, rtol=0, atol=2 * 2 / 255 + 1e-5)


def test_logs_and_progress_bars_of_transformers_are_unchanged_afterwards(folder: Path) -> None:
    before = transformers.logging.get_verbosity(), transformers.logging.is_progress_bar_enabled()
    load_folder(folder)
    error_of(lambda: load_folder(folder.parent))
    assert (transformers.logging.get_verbosity(), transformers.logging.is_progress_bar_enabled()) == before


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_precision_is_that_of_the_file(tmp_path: Path, dtype: torch.dtype) -> None:
    source = load_folder(saved(build("ViTModel", "ViT").to(dtype), tmp_path / "saved"))
    assert {x.dtype for x in source.module.parameters()} == {dtype}


def test_shards(folder: Path, tmp_path: Path) -> None:
    module = load_folder(folder).module
    module.save_pretrained(tmp_path / "shards", max_shard_size="10KB")  # type: ignore[operator]
    assert not (tmp_path / "shards" / WEIGHTS).exists()
    again = load_folder(tmp_path / "shards").module.state_dict()
    assert all(torch.equal(x, again[name]) for name, x in module.state_dict().items())


@pytest.mark.parametrize("name", ["vit", "dinov2", "mae_pretraining", "beit_class_token", "dinov3", "data2vec_classes"])
def test_every_kind_of_class(name: str, tmp_path: Path) -> None:
    module: Any = CASES[name]()
    source = load_folder(saved(module, tmp_path / "saved"))
    theirs, ours = module.state_dict(), source.module.state_dict()
    assert type(source.module) is type(module)
    assert all(torch.equal(x, ours[name]) for name, x in theirs.items())
    assert source.transform is None
    assert source.labels == (tuple(NAMES) if name == "data2vec_classes" else ())


def test_without_architectures_the_model_type_says_the_class(folder: Path) -> None:
    edit(folder, architectures=None)
    saved(build("ViTModel", "ViT"), folder)
    edit(folder, architectures=None)
    assert type(load_folder(folder).module).__name__ == "ViTModel"


def test_labels_are_in_the_order_of_the_logits(folder: Path) -> None:
    edit(folder, id2label={str(i): NAMES[i] for i in (4, 0, 3, 1, 2)}, label2id={NAMES[i]: i for i in range(5)})
    assert load_folder(folder).labels == tuple(NAMES)


def test_a_class_without_a_name_is_not_called_none(folder: Path) -> None:
    edit(folder, id2label={"0": None, "1": "crane", "2": "newt", "3": "crane", "4": 7}, label2id={})
    assert load_folder(folder).labels == ("LABEL_0", "crane", "newt", "crane (3)", "7")


def test_tensors_without_a_part_may_lack_or_be_too_many(folder: Path) -> None:
    change(folder, lambda tensors: tensors.update({"vit.pooler.dense.bias": torch.zeros(24)}))
    load_folder(folder)
    saved(build("ViTModel", "ViT"), folder)
    change(folder, lambda tensors: [tensors.pop(f"pooler.dense.{kind}") for kind in ("weight", "bias")])
    load_folder(folder)


def test_load_opens_them_all(folder: Path) -> None:
    images = 2 * torch.rand(2, 3, 12, 12) - 1
    loaded = prisma.load(folder)
    assert loaded.labels == tuple(NAMES)
    torch.testing.assert_close(loaded.model(images), answer(load_folder(folder), images))
    live = prisma.load(transformers.ViTForImageClassification.from_pretrained(folder))
    assert torch.equal(live.model(images), loaded.model(images))
    assert check(folder)["image"].largest <= 1e-5


# other image sizes


@pytest.mark.parametrize("size", [20, (8, 20)])
def test_another_image_size_is_resampled_as_transformers_does(folder: Path, size: int | tuple[int, int]) -> None:
    for source in (load_folder(folder, size), load_module(load_folder(folder).module, size)):
        images = torch.randn(2, 3, *((size, size) if isinstance(size, int) else size))
        assert compare(family_of(source.module), source.module, images).largest <= 1e-5
        theirs: Any = transformers.ViTForImageClassification.from_pretrained(folder)
        logits = theirs(images, interpolate_pos_encoding=True).logits
        torch.testing.assert_close(answer(source, images), logits, rtol=0, atol=1e-5)
        if source.transform is not None:
            assert source.transform.size == tuple(images.shape[-2:])


def test_a_class_that_resamples_unasked_has_the_size_of_its_pictures(tmp_path: Path) -> None:
    processor = transformers.BitImageProcessor(size={"shortest_edge": 10}, crop_size={"height": 8, "width": 8})  # type: ignore[no-untyped-call]
    dino = saved(build("Dinov2Model", "Dinov2", image_size=20), tmp_path / "dino", processor)
    source = load_folder(dino)
    assert source.transform is not None
    assert family_of(source.module).read(source.module).config.image_size == source.transform.size == (8, 8)  # type: ignore[union-attr]
    assert source.transform.shortest == 10
    larger = load_folder(dino, 16)
    assert larger.transform is not None
    assert (larger.transform.size, larger.transform.shortest) == ((16, 16), 20)
    vit = saved(build("ViTModel", "ViT"), tmp_path / "vit", processor)
    assert load_folder(vit).transform.size == (12, 12)  # type: ignore[union-attr]


def test_an_image_size_that_the_source_cannot_do_is_refused(tmp_path: Path) -> None:
    oblong = saved(CASES["vit_oblong"](), tmp_path / "saved")
    assert "image_size=(16, 16) is not supported: the source resamples positions only of square" in error_of(
        lambda: load_folder(oblong, (16, 16))
    )


@pytest.mark.parametrize("name", ["vit", "dinov2", "dinov3", "beit"])
def test_an_image_size_that_cannot_be_is_refused(name: str) -> None:
    assert "image_size" in error_of(lambda: load_module(CASES[name](), 3))
    assert "image_size" in error_of(lambda: load_module(CASES[name](), 2**60))


# live modules


def test_a_live_module_stays_as_it_is(folder: Path) -> None:
    module: Any = transformers.ViTForImageClassification.from_pretrained(folder).train()
    source = load_module(module, 20)
    assert module.training
    assert module.config.image_size == 12
    assert source.labels == tuple(NAMES)
    assert source.transform is not None
    assert all(a is b for a, b in zip(module.parameters(), source.module.parameters(), strict=True))


@pytest.mark.parametrize("name", ["vit_classes", "dinov2", "dinov3", "mae", "beit_everything", "aimv2_native"])
def test_a_live_modules_weights_are_copied(name: str) -> None:
    module = CASES[name]().train()
    random = torch.get_rng_state()
    loaded = prisma.load(module)
    assert torch.equal(torch.get_rng_state(), random)
    before = {tensor: x.clone() for tensor, x in loaded.model.state_dict().items()}
    randomise(module, seed=3)
    assert all(torch.equal(x, before[tensor]) for tensor, x in loaded.model.state_dict().items())


def test_a_module_from_nowhere_has_no_transform() -> None:
    module: Any = build("ViTForImageClassification", "ViT")
    assert load_module(module).transform is None
    assert describe(module, None) == (None, tuple(f"LABEL_{i}" for i in range(5)))
    module.name_or_path = "not an id / at all"
    assert load_module(module).transform is None


def test_a_pair_brings_its_text_side(tmp_path: Path) -> None:
    module = PAIRS["CLIPModel"]()
    randomise(module)
    module.save_pretrained(tmp_path)  # type: ignore[operator]
    source = load_folder(tmp_path)
    assert source.text is source.module
    assert set(source.pair) >= {"tokenize", "logit_scale"}
    change(tmp_path, lambda tensors: tensors.pop("text_model.final_layer_norm.weight"))
    assert "text_model.final_layer_norm.weight is missing" in error_of(lambda: load_folder(tmp_path))


# the Hub


@pytest.fixture
def cache(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The Hub's cache, holding lab/vit, without a network."""
    repo = tmp_path / "cache/models--lab--vit"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs/main").write_text(COMMIT)
    (repo / "snapshots").mkdir()
    folder.rename(repo / "snapshots" / COMMIT)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return repo / "snapshots" / COMMIT


def test_a_name_is_opened_from_the_cache(cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    capfd.readouterr()
    for source in (load_name("lab/vit"), load_name("lab/vit", "main"), load_name("lab/vit", COMMIT)):
        assert source.labels == tuple(NAMES)
        assert source.transform is not None
    assert load_name("lab/vit", image_size=20).transform.size == (20, 20)  # type: ignore[union-attr]
    assert capfd.readouterr() == ("", "")
    module: Any = build("ViTForImageClassification", "ViT")
    module.name_or_path = "lab/vit"
    assert load_module(module).transform is not None


def test_shards_are_opened_from_the_cache(cache: Path) -> None:
    module: Any = load_folder(cache).module
    (cache / WEIGHTS).unlink()
    module.save_pretrained(cache, max_shard_size="10KB")
    assert torch.equal(load_name("lab/vit").module.classifier.weight, module.classifier.weight)  # type: ignore[union-attr, arg-type]
    next(cache.glob("model-00001-of-*.safetensors")).unlink()
    assert "model-00001-of-" in error_of(lambda: load_name("lab/vit"))


@pytest.mark.parametrize(
    ("name", "revision", "sentence"),
    [
        ("lab/other", None, "lab/other is not in the Hub's cache (config.json), and HF_HUB_OFFLINE is set: unset it"),
        ("lab/vit", "v2", "lab/vit at v2 is not in the Hub's cache (config.json), and HF_HUB_OFFLINE is set: unset it"),
        ("lab/vit/deep", None, "found 'lab/vit/deep', which has 3 parts instead of two"),
        ("", None, "expected OWNER/NAME in letters, digits, '.', '_' and '-'; found '', which is empty"),
    ],
)
def test_names_that_are_not_in_the_cache(cache: Path, name: str, revision: str | None, sentence: str) -> None:
    assert sentence in error_of(lambda: load_name(name, revision))


def test_no_weights_are_downloaded_of_a_class_that_is_not_read(cache: Path) -> None:
    (cache / WEIGHTS).unlink()
    edit(cache, architectures=["ViTForMaskedImageModeling"])
    assert "found transformers.models.vit.modeling_vit.ViTForMaskedImageModeling" in error_of(
        lambda: load_name("lab/vit")
    )


# what does not open


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def change(folder: Path, how: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = load_file(folder / WEIGHTS)
    how(tensors)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def test_every_tensor_that_does_not_fit_is_listed(folder: Path) -> None:
    def damage(tensors: dict[str, Tensor]) -> None:
        tensors["classifier.weight"] = torch.zeros(4, 24)
        tensors["extra"] = torch.zeros(2)
        del tensors["vit.layernorm.weight"], tensors["classifier.bias"]

    change(folder, damage)
    assert error_of(lambda: load_folder(folder)).endswith(
        "do not fit its architecture: classifier.bias is missing; vit.layernorm.weight is missing; extra is not used; "
        "classifier.weight is [4, 24] instead of [5, 24]"
    )


def test_a_pickle_is_not_loaded(folder: Path) -> None:
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()
    sentence = "found pytorch_model.bin (PyTorch). Prisma opens no other format, because most of them are pickles"
    assert sentence in error_of(lambda: load_folder(folder))
    (folder / "pytorch_model.bin").unlink()
    assert "; found none. Prisma" in error_of(lambda: load_folder(folder))


def test_folders_that_are_no_model(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-100])
    assert "expected whole safetensors weights at" in error_of(lambda: load_folder(folder))
    (folder / "preprocessor_config.json").write_text("{")
    (folder / "config.json").write_text("{")
    assert "expected JSON in" in error_of(lambda: load_folder(folder))
    (folder / "config.json").write_text("[]")
    assert "expected a JSON object in" in error_of(lambda: load_folder(folder))
    (folder / "config.json").unlink()
    assert f"found none in {folder}" in error_of(lambda: load_folder(folder))
    assert "expected a folder with config.json" in error_of(lambda: load_folder(folder / "absent"))


def test_a_processor_that_is_none(folder: Path) -> None:
    (folder / "preprocessor_config.json").write_text("{")
    assert "the image processor of" in error_of(lambda: load_folder(folder))


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "nonsense": ({"hidden_size": "much"}, "expected hidden_size in"),
    "heads": ({"num_attention_heads": 0}, "expected num_attention_heads in"),
    "no class": (
        {"architectures": ["NoSuchClass"], "model_type": "x"},
        "expected a model that transformers has a class",
    ),
    "no type": ({"architectures": None, "model_type": None}, "expected a model that transformers has a class for"),
    "a config": ({"architectures": ["ViTConfig"], "model_type": "x"}, "expected a model that transformers has a class"),
    "a function": ({"architectures": ["pipeline"]}, "expected a model that transformers has a class for"),
    "words": ({"architectures": "ViTModel", "model_type": []}, "expected a model that transformers has a class for"),
    "another task": ({"architectures": ["ViTForMaskedImageModeling"]}, "ViTForMaskedImageModeling"),
    "precision": ({"dtype": "float12"}, "as a precision, such as 'float32'; found 'float12'"),
    "whole numbers": ({"torch_dtype": "int8"}, "expected torch_dtype in"),
    "activation": ({"hidden_act": "mish"}, "the activation MishActivation is not supported"),
}


@pytest.mark.parametrize("name", WRONG)
def test_configs_that_are_none(name: str, folder: Path) -> None:
    changes, sentence = WRONG[name]
    edit(folder, **changes)
    assert sentence in error_of(lambda: load_folder(folder))


def test_another_class_whose_config_is_none(folder: Path) -> None:
    edit(folder, architectures=["ViTForMaskedImageModeling"], initializer_range="much")
    assert "the ViTForMaskedImageModeling of" in error_of(lambda: load_folder(folder))


@pytest.mark.parametrize(
    ("kind", "changes", "properties"),
    [
        ("ResNet", {"depths": [1, 1], "hidden_sizes": [8, 16], "embedding_size": 8}, "batch norm and convolutions"),
        ("Swin", {"depths": [1, 1], "num_heads": [1, 2], "embed_dim": 8, "image_size": 32}, "attention within windows"),
    ],
)
def test_other_architectures_are_refused_by_their_properties(
    kind: str, changes: dict[str, Any], properties: str, tmp_path: Path
) -> None:
    module: nn.Module = getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**changes))
    module.save_pretrained(tmp_path)  # type: ignore[operator]
    with pytest.raises(UnsupportedModelError, match=properties):
        load_folder(tmp_path)
