"""The head of the page: what a model is, and what it answers."""

from collections.abc import Callable
from pathlib import Path

import torch
from prisma_app.answers import THUMBNAIL, answer_of, answer_view, model_view
from prisma_app.library import Library, Scene
from prisma_app.state import State

import prisma
from prisma.repository import Published
from tests.app.conftest import DIGITS
from tests.app.unpack import assert_near, read


def test_a_model_is_what_was_published(scene: Callable[..., Scene], lab: Path) -> None:
    found = model_view(scene(model=DIGITS))
    loaded = prisma.load(DIGITS, hub=lab)
    facts, config = found.facts, loaded.config
    assert (facts["layers"], facts["heads"], list(facts["grid"])) == (config.n_layers, config.n_heads, [4, 4])
    assert facts["parameters"] == sum(p.numel() for p in loaded.model.parameters())
    assert facts["steps"] == [0, 1, 2, 4, 8, 16, 32, 40]
    assert facts["labels"] == [str(i) for i in range(10)] and facts["prefix"] == ["class token"]
    images, labels = Published(DIGITS, lab).probe()
    assert [example["label"] for example in facts["examples"]] == labels[:20].tolist()
    assert [example["img"] for example in facts["examples"]] == [str(i) for i in range(20)]
    assert_near(read(found, "thumbnails") / 255, images[:20].permute(0, 2, 3, 1), 1 / 500)
    assert 0 < facts["accuracy"]["value"] < 1 and facts["accuracy"]["n"] == 360
    assert "lab/digits" in facts["card"] or "digits" in facts["card"]


def test_large_pictures_have_small_thumbnails(vit_library: Library) -> None:
    found = model_view(vit_library.scene(State()))
    assert found.arrays["thumbnails"].shape == (11, THUMBNAIL, THUMBNAIL, 3)
    assert found.facts["metrics"] == ["logit", "probability", "logit_diff"]


def test_the_answer_is_the_models(scene: Callable[..., Scene], lab: Path) -> None:
    found = answer_view(scene(model=DIGITS, step=32, img="4"))
    loaded = prisma.load(DIGITS, "step-000032", hub=lab)
    assert loaded.transform is not None
    logits = loaded.model(loaded.transform.normalise(Published(DIGITS, lab).probe()[0][4:5]))[0]
    assert_near(read(found, "probability"), logits.softmax(-1))
    top = found.facts["top"][0]
    assert top["class"] == int(logits.argmax()) and top["label"] == str(top["class"])
    assert found.facts["label"] == str(int(Published(DIGITS, lab).probe()[1][4]))
    assert torch.allclose(torch.tensor(answer_of(scene(model=DIGITS, step=32, img="4"))["logits"]), logits)
