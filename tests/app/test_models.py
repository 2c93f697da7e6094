"""Mice as the app reads them: any checkpoint, and the probe as examples."""

from pathlib import Path
from typing import Any

import pytest
import torch
from prisma_app.models import Mouse, mice

import prisma
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
    with pytest.raises(PrismaError, match=r"expected a checkpoint from 0 to 7; found .{1,20}$"):
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
