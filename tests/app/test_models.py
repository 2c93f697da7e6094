"""Mice as the app reads them: any checkpoint, and the probe as examples."""

from pathlib import Path
from typing import Any

import pytest
import torch
from prisma_app.library import Library
from prisma_app.models import N_EXAMPLES, Mouse, Shipped, mice, pinned, shipped
from prisma_app.state import State
from prisma_app.views import training

import prisma
from prisma import PrismaError
from prisma.checkpoint import read_tensors
from prisma.data import task
from prisma.publish import publish
from prisma.recipes import recipe
from prisma.repository import Published
from prisma.train import train
from tests.app.conftest import DIGITS, GLYPHS


@pytest.fixture
def mouse(lab: Path) -> Mouse:
    return Mouse(Published(DIGITS, lab))


def test_every_checkpoint_is_the_published_one(mouse: Mouse, lab: Path) -> None:
    assert mouse.steps == [0, 1, 2, 4, 8, 16, 32, 40]
    for step in mouse.steps:
        published = prisma.load(DIGITS, revision=f"step-{step:06d}", hub=lab).model.state_dict()
        ours = mouse.at(step).model.state_dict()
        assert all(torch.equal(ours[name], published[name]) for name in published)
        scope: dict[str, Any] = {"prisma": prisma}
        exec(mouse.code(step), scope)
        assert all(torch.equal(scope["loaded"].model.state_dict()[name], x) for name, x in published.items())


def test_it_is_read_at_its_commit_when_main_moves(mouse: Mouse, lab: Path) -> None:
    there = pinned(mouse, None)
    assert there.published.commit == mouse.rev and there.steps == mouse.steps


def test_mice_in_the_package_have_the_images_of_their_task() -> None:
    for name in shipped():
        subject = Shipped(name)
        examples = subject.examples()
        assert len(examples) == N_EXAMPLES and subject.final.labels
        assert len(set(subject.kinds())) >= 4, name
        probe = subject.probe()
        assert probe is not None
        x, y = probe
        accuracy = (subject.final.model(x).argmax(-1) == y).double().mean()
        assert accuracy > 0.9, name
        scope: dict[str, Any] = {"task": task, "prisma": prisma}
        exec(f"{subject.code(0)}\nx = {subject.code_of(examples[3])}", scope)
        assert torch.equal(scope["x"][0], examples[3].x)


def test_examples_are_the_probe_as_the_model_takes_it(mouse: Mouse, lab: Path) -> None:
    probe, _ = read_tensors(Published(DIGITS, lab).file("probe.safetensors"))
    loaded = prisma.load(DIGITS, hub=lab)
    assert loaded.transform is not None
    for i, example in enumerate(mouse.examples()):
        assert torch.equal(example.x, loaded.transform.normalise(probe["images"][i]))
        assert example.caption == f"Test image {i}, labelled {int(probe['labels'][i])}"
        assert example.label == int(probe["labels"][i])
    images, labels = mouse.probe() or (None, None)
    assert images is not None and labels is not None and len(images) == len(probe["images"])


def test_which_mice_are_on_offer(lab: Path, tmp_path: Path) -> None:
    assert mice(lab, None) == mice(lab, GLYPHS) == [DIGITS, GLYPHS]
    assert mice(None, "some/mouse") == ["some/mouse"]
    for hub, model, sentence in (
        (tmp_path / "none", None, "no such folder"),
        (tmp_path, None, "found none"),
        (lab, "lab/digit", "the nearest: lab/digits"),
        (None, "nonsense", "OWNER/NAME"),
    ):
        with pytest.raises(PrismaError, match=sentence):
            mice(hub, model)


def test_a_mouse_that_tells_no_classes_has_no_accuracy_and_examples_without_a_class(tmp_path: Path) -> None:
    short = recipe("digits-masked").override({"steps": "2", "warmup": "1", "batch_size": "8", "d_model": "8"})
    found = train(short, tmp_path / "run", device="cpu", progress=False)
    publish(tmp_path / "run", "lab/masked", tmp_path / "hub", progress=False)
    mouse = Mouse(Published("lab/masked", tmp_path / "hub"))
    about = mouse.about()
    assert about["accuracy"] is None
    assert about["result"] == {"name": "test r2", "value": found["results"][0]["value"], "n": 360}
    assert mouse.probe() is None and mouse.kinds() == list(range(N_EXAMPLES))
    assert {example.label for example in mouse.examples()} == {None}
    assert mouse.examples()[3].caption == "Test image 3" and mouse.labels[:2] == ["feature 0", "feature 1"]
    assert mouse.corrupt_picture(None, mouse.examples()[0]).img == "1"
    scene = Library(["lab/masked"], lambda name: mouse).scene(State(model="lab/masked"))
    assert {"test_r2", "test_loss"} < set(training.view(scene).facts["curves"])
