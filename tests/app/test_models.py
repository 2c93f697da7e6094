"""Mice as the app reads them: any checkpoint, examples, and pictures from outside."""

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import prisma
from app.models import Mouse, mice
from app.subject import INK, pixels, prefix_names
from prisma import PrismaError
from prisma.checkpoint import read_tensors
from prisma.repository import Published
from tests.app.conftest import DIGITS, GLYPHS


@pytest.fixture
def mouse(lab: Path) -> Mouse:
    return Mouse(Published(DIGITS, lab))


def test_every_checkpoint_is_the_published_one(mouse: Mouse, lab: Path) -> None:
    assert mouse.steps == [0, 1, 2, 4, 8, 16, 32, 40]
    for index, step in enumerate(mouse.steps):
        published = prisma.load(DIGITS, revision=f"step-{step:06d}", hub=lab).model.state_dict()
        ours = mouse.at(index).model.state_dict()
        assert all(torch.equal(ours[name], published[name]) for name in published)
        assert mouse.index_of(str(step)) == index


@pytest.mark.parametrize("index", [-1, 8, 1.5, True, None, "0", [0], "x" * 9000])
def test_a_checkpoint_that_is_not_there(mouse: Mouse, index: Any) -> None:
    with pytest.raises(PrismaError, match=r"expected a checkpoint from 0 to 7, found .{1,20}$"):
        mouse.at(index)


@pytest.mark.parametrize("step", ["3", "-1", "", "1e3", "²"])
def test_a_step_that_was_not_published(mouse: Mouse, step: str) -> None:
    with pytest.raises(PrismaError, match="publishes the steps 0, 1, 2"):
        mouse.index_of(step)


def test_examples_are_the_probe_as_the_model_takes_it(mouse: Mouse, lab: Path) -> None:
    probe, _ = read_tensors(Published(DIGITS, lab).file("probe.safetensors"))
    loaded = prisma.load(DIGITS, hub=lab)
    assert loaded.transform is not None
    for i, example in enumerate(mouse.examples()):
        assert torch.equal(example.x, loaded.transform.normalise(probe["images"][i]))
        assert example.caption == f"Test image {i}, labelled {int(probe['labels'][i])}"
    assert mouse.thumbnails().shape == (len(mouse.examples()), 8, 8, 1)
    other = mouse.other_example(mouse.example(0))
    assert probe["labels"][other.example] != probe["labels"][0]


@pytest.mark.parametrize("index", [-1, 10_000, 0.5, True, None, {}])
def test_an_example_that_is_not_there(mouse: Mouse, index: Any) -> None:
    with pytest.raises(PrismaError, match="expected an example from 0 to"):
        mouse.example(index)


def test_an_upload_is_what_the_transform_makes_of_it(mouse: Mouse, tmp_path: Path) -> None:
    Image.effect_noise((40, 30), 90).convert("RGBA").save(tmp_path / "a.png")
    transform = mouse.final.transform
    assert transform is not None
    assert torch.equal(mouse.upload(tmp_path / "a.png").x, transform(tmp_path / "a.png"))


def test_uploads_that_are_no_images(mouse: Mouse, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no picture")
    Image.new("1", (8000, 8000)).save(tmp_path / "huge.png")
    for name, sentence in (("text.png", "expected an image"), ("huge.png", "40,000,000 pixels, found 8,000 x 8,000")):
        with pytest.raises(PrismaError, match=sentence):
            mouse.upload(tmp_path / name)


def test_a_drawing_is_white_ink_on_black(mouse: Mouse) -> None:
    ink = np.zeros((INK, INK), dtype=np.uint8)
    ink[:, INK // 2 :] = 255
    drawn = mouse.drawing(base64.b64encode(ink.tobytes()).decode())
    shown = np.asarray(pixels(mouse.final, drawn.x[None]).shape)
    assert shown.tolist() == [1, 8, 8, 1]
    assert drawn.x[0, :, -1].min() > drawn.x[0, :, 0].max()


@pytest.mark.parametrize("ink", [None, 3, "", "!!", base64.b64encode(b"12").decode(), "A" * 10**6])
def test_a_drawing_of_another_size(mouse: Mouse, ink: Any) -> None:
    with pytest.raises(PrismaError, match=f"expected a drawing of {INK} x {INK} bytes"):
        mouse.drawing(ink)


def test_which_mice_are_on_offer(lab: Path, tmp_path: Path) -> None:
    assert mice(lab, None) == mice(lab, GLYPHS) == [DIGITS, GLYPHS]
    assert mice(None, "some/mouse") == ["some/mouse"]
    for hub, model, sentence in (
        (None, None, "found neither"),
        (tmp_path / "none", None, "no such folder"),
        (tmp_path, None, "found none"),
        (lab, "lab/digit", "the nearest: lab/digits"),
        (None, "nonsense", "OWNER/NAME"),
    ):
        with pytest.raises(PrismaError, match=sentence):
            mice(hub, model)


def test_prefix_tokens_have_names(mouse: Mouse) -> None:
    assert prefix_names(mouse.final) == ["class token"]
