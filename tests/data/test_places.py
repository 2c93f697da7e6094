"""Tasks by the place of their data: NAME:PATH, with a size for pictures; and tasks whose data are elsewhere."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from prisma.data import add, is_added, task
from prisma.data.own import task_of
from prisma.data.places import ABSENT, READERS
from prisma.data.task import Task
from prisma.errors import PrismaError
from tests.data.test_cifar import a_set as a_cifar_set
from tests.data.test_mnist import a_set as an_mnist_set
from tests.data.test_picture_sets import a_picture


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRISMA_CACHE", str(tmp_path / "cache"))


def test_files_of_a_set(tmp_path: Path) -> None:
    an_mnist_set(tmp_path)
    found = task(f"mnist:{tmp_path}")
    assert found.name == "mnist" and found.is_here and found is task(f"mnist:{tmp_path}")
    known = ABSENT["mnist"]
    assert (found.labels, found.transform, found.source) == (known.labels, known.transform, known.source)
    for classes in (10, 100):
        a_cifar_set(tmp_path / str(classes), classes)
        assert task(f"cifar{classes}:{tmp_path / str(classes)}").name == f"cifar{classes}"
    with pytest.raises(PrismaError, match="expected mnist:PATH, whose images have one size; found the size 14"):
        task(f"mnist-14:{tmp_path}")


def test_folders_of_pictures_have_a_size(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for i in range(2):
            a_picture(tmp_path / "pets" / split / f"c{i}" / "x.png", 9)
    sizes = {"folder": 64, "folder-16": 16, "imagenet-8": 8, "tinyimagenet-8": None}
    for name, size in sizes.items():
        if size is not None:
            found = task(f"{name}:{tmp_path / 'pets'}")
            assert found.transform.size == (size, size) and found.splits["test"].images.shape == (2, 3, size, size)
    assert task(f"folder:{tmp_path / 'pets'}").name == "folder-pets"
    assert task(f"imagenet-8:{tmp_path / 'pets'}").name == "imagenet"
    assert ABSENT["imagenet"].transform.size == (224, 224) and ABSENT["imagenet"].transform.shortest == 256


def test_the_original_dsprites_has_a_name_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that its hash is not compared with that of our drawings. Four images stand for it."""
    module = sys.modules["prisma.data.dsprites"]
    drawn = module._make  # type: ignore[attr-defined]
    for name, value in {"COUNTS": (2, 1, 2, 1, 1), "IMAGES": 4, "TRAIN": 3}.items():
        monkeypatch.setattr(module, name, value)
    pixels = torch.from_numpy(np.random.RandomState(0).randint(2, size=(4, 64, 64)).astype(bool))
    monkeypatch.setattr(module, "_pictures", lambda path, device: [(slice(0, 4), pixels)])
    found = task("dsprites-orientation:some.npz")
    assert found.name == "dsprites-orientation-original" and found.license == "apache-2.0"
    assert sum(len(split.labels) for split in found.splits.values()) == 4
    assert drawn is module._make  # type: ignore[attr-defined]
    for target in ("", "-scale", "-position", "-all"):
        assert f"dsprites{target}" in READERS


@pytest.mark.parametrize("name", ["mnist", "imagenet"])
def test_absent_data_say_how_to_give_them(name: str) -> None:
    there = task(name)
    assert not there.is_here and there is ABSENT[name]
    with pytest.raises(PrismaError, match=f"expected the place of the data of {name}: .*--data PATH.*{name}:PATH"):
        _ = there.splits


def test_other_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PrismaError, match="there is no task 'mnits' that is read from a path; the nearest: mnist"):
        task(f"mnits:{tmp_path}")
    with pytest.raises(PrismaError, match=r"expected the file train-images-idx3-ubyte or .* in .*; found none"):
        task(f"mnist:{tmp_path}")


def test_own_tasks_are_known_by_name() -> None:
    images, labels = torch.rand(20, 1, 4, 4), torch.arange(20) % 2
    own = task_of("mine-here", (images, labels))
    assert not is_added("mine-here")
    assert add(own) is own and task("mine-here") is own and is_added("mine-here")
    assert isinstance(add(replace(own)), Task), "the same data again"
    with pytest.raises(PrismaError, match="expected a new name for other data; found 'mine-here'"):
        add(task_of("mine-here", (images.flip(0), labels)))
    for taken in ("digits", "circle-7"):
        with pytest.raises(PrismaError, match=f"expected a name that no task of the package has; found '{taken}'"):
            add(task_of(taken, (images, labels)))
