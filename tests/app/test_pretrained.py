"""A pretrained model in the app: one state, its own names, pictures that scikit-learn and scikit-image bring."""

from pathlib import Path
from typing import Any

import pytest
import skimage.data
import torch
from prisma_app.pictures import transform_of
from prisma_app.pretrained import PICTURES, PROMPTS, Pretrained
from sklearn.datasets import load_sample_images

import prisma
from prisma import Loaded, PrismaError
from prisma.checkpoint import write_checkpoint
from tests.app.conftest import ANIMALS
from tests.variants import model_of


@pytest.fixture(scope="module")
def vit(vit_folder: Path) -> Pretrained:
    return Pretrained(str(vit_folder))


@pytest.fixture(scope="module")
def clip(clip_folder: Path) -> Pretrained:
    return Pretrained(str(clip_folder))


def test_it_has_one_state_and_its_own_names(vit: Pretrained, vit_folder: Path) -> None:
    assert (vit.name, vit.steps, vit.labels) == ("small-vit", [0], ANIMALS)
    assert vit.at(0) is vit.at(None) is vit.final
    theirs = prisma.load(vit_folder).model.state_dict()
    assert all(torch.equal(x, theirs[name]) for name, x in vit.final.model.state_dict().items())


def test_examples_are_real_pictures(vit: Pretrained) -> None:
    china, flower = load_sample_images().images
    expected = [picture[:, left : left + 427] for picture in (china, flower) for left in (0, 106, 213)]
    for i, (example, picture) in enumerate(zip(vit.examples()[:6], expected, strict=True)):
        assert torch.equal(example.x, transform_of(vit.final)(picture))
        assert example.img == str(i)
        assert example.caption.startswith(("china.jpg", "flower.jpg"))
        assert "scikit-learn" in example.caption
        assert (int(vit.corrupt_picture(None, example).img) < 3) == (i >= 3)
    for example, name in zip(vit.examples()[6:], PICTURES, strict=True):
        assert torch.equal(example.x, transform_of(vit.final)(getattr(skimage.data, name)()))
        assert example.caption == f"{name}, from scikit-image"


def test_the_classes_of_a_clip_are_prompts(clip: Pretrained, clip_folder: Path) -> None:
    assert clip.labels == list(PROMPTS) and clip.prompts == "\n".join(PROMPTS)
    loaded, x = prisma.load(clip_folder), clip.examples()[0].x[None]
    assert loaded.text is not None
    for given in (clip, clip.prompted("a cat\ntwo cats")):
        similarity = loaded.text.similarity(loaded.model(x), given.labels)
        assert torch.allclose(given.final.model(x), similarity, atol=1e-5)
        scope: dict[str, Any] = {}
        exec(f"import prisma\n{given.code(0)}", scope)
        assert torch.allclose(scope["loaded"].model(x), similarity, atol=1e-5)
    assert Pretrained(str(clip_folder), ["a cat", "two cats"]).labels == ["a cat", "two cats"]


def test_a_model_without_classes_has_features(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "bare", model_of("no_head", torch.float32, image_size=8, channels=3), transform={
        "size": [8, 8], "mean": [0.5] * 3, "std": [0.5] * 3
    })  # fmt: skip
    assert Pretrained(str(tmp_path / "bare")).labels[11] == "feature 11"


def test_half_precision_takes_pictures(tmp_path: Path, clip_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = prisma.load(clip_folder)
    assert loaded.text is not None
    loaded.model.half()
    loaded.text.model.half()
    monkeypatch.setattr("prisma_app.pretrained.load", lambda _: loaded)
    half = Pretrained("open_clip/small")
    assert half.name == "open_clip/small"
    assert half.final.model(half.examples()[0].x[None]).dtype == torch.float32


def test_what_the_app_does_not_show(vit_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PrismaError, match="expected a model with a text side"):
        Pretrained(str(vit_folder), ["a cat"])
    with pytest.raises(PrismaError, match="found no such folder"):
        Pretrained(str(tmp_path / "nothing"))
    monkeypatch.setattr("prisma_app.pretrained.load", lambda _: Loaded(model_of("video"), None, ()))
    with pytest.raises(PrismaError, match="still images"):
        Pretrained("hf/some/video")
