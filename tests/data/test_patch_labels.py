"""Patch labels, against a loop over every pixel; of tasks, and of segmentations as ImageNet-S has them."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from prisma.data import task
from prisma.data.patch_labels import PatchLabels, Segmentations, _shares, patch_labels
from prisma.data.task import coverage
from prisma.data.transform import Transform
from prisma.errors import PrismaError


def slow_shares(things: Tensor, p: int, q: int, n_names: int) -> Tensor:
    n, height, width = things.shape
    found = torch.zeros(n, height // p, width // q, n_names)
    for i in range(n):
        for row in range(height):
            for column in range(width):
                if (name := int(things[i, row, column])) > 0:
                    found[i, row // p, column // q, name - 1] += 1
    return found / (p * q)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(0, 99))
def test_shares_are_those_of_a_loop_over_pixels(p: int, q: int, h: int, w: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    things = torch.randint(0, 4, (2, h * p, w * q), generator=generator)
    torch.testing.assert_close(_shares(things, (p, q), 3), slow_shares(things, p, q, 3), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["sprites", "clevr"])
@pytest.mark.parametrize("patch", [1, 2, 4, (2, 4)])
def test_of_tasks(name: str, patch: int | tuple[int, int]) -> None:
    data = task(name)
    split, chosen = data.splits["test"], [0, 7, 1]
    assert split.masks is not None
    found = patch_labels(data, "test", patch, chosen)
    torch.testing.assert_close(found.coverage, coverage(split.masks[chosen], patch))
    for at, i in enumerate(chosen):
        expected = Counter[str]()
        for k, mask in enumerate(split.object_masks()[i]):
            label = int(split.labels[i]) if split.kinds is None else int(split.kinds[i, k])
            if mask.any():
                expected[found.names[label]] += int(mask.sum())
        area = patch * patch if isinstance(patch, int) else patch[0] * patch[1]
        pixels = (found.shares[at].sum((0, 1)) * area).round().long().tolist()
        assert {name: n for name, n in zip(found.names, pixels, strict=True) if n} == expected


def test_a_patch_has_a_list_of_names() -> None:
    labels = PatchLabels(torch.tensor([[[[0.25, 0.5, 0.25, 0.0]]]]), ("a", "b", "c", "d"))
    assert labels.at(0, 0, 0) == ["b", "a", "c"]
    assert labels.at(0, 0, 0, least=0.3) == ["b"]
    assert labels.coverage.tolist() == [[[1.0]]]


def test_what_has_no_patches_or_masks_is_refused() -> None:
    with pytest.raises(PrismaError, match="expected a task whose images have masks; found circle-7"):
        patch_labels(task("circle-7"), "test", 4)
    with pytest.raises(PrismaError, match="expected a split of the task sprites: train or test; found 'val'"):
        patch_labels(task("sprites"), "val", 4)
    for patch in (5, 0, -4):
        with pytest.raises(PrismaError, match=f"whole patches of {patch}x{patch}; found"):
            patch_labels(task("sprites"), "test", patch, [0])
    for wrong in ("8", 8.0, (8,), [8, 8], True):
        with pytest.raises(PrismaError, match=r"expected a patch size in pixels, a side or \(height, width\); found"):
            patch_labels(task("sprites"), "test", wrong, [0])  # type: ignore[arg-type]


def a_map(path: Path, numbers: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    colours = np.stack([numbers % 256, numbers // 256, np.full_like(numbers, 9)], -1)
    Image.fromarray(colours.astype(np.uint8)).save(path)


def test_segmentations_on_disk(tmp_path: Path) -> None:
    """Classes above 255, a number for what nobody judged, and a map that is resized and cut as its picture."""
    classes = [f"class {k}" for k in range(1, 301)]
    numbers = np.zeros((16, 24), int)
    numbers[:, 4:8], numbers[:8, 8:12], numbers[8:, 12:20] = 300, 2, 1000
    a_map(tmp_path / "b" / "one.png", numbers)
    a_map(tmp_path / "a" / "two.png", np.full((16, 16), 256))
    transform = Transform(size=(8, 8), shortest=8, mean=(0.5,) * 3, std=(0.5,) * 3)
    found = Segmentations.of_folder(tmp_path, transform, classes)
    assert found.names == ("a/two", "b/one") and len(found) == 2
    seen = torch.from_numpy(numbers[::2, ::2])[:, 2:10]  # half the size, then the centre
    assert torch.equal(found.maps([1])[0], torch.where(seen == 1000, 0, seen))
    labels = found.patch_labels([1, 0], 4)
    assert labels.at(0, 0, 0) == ["class 2", "class 300"]
    assert labels.at(0, 1, 1) == [] and labels.at(1, 1, 1) == ["class 256"]
    assert labels.shares[0, 0, 0, 299] == 0.5 and labels.shares[0, 0, 0, 1] == 0.5
    with pytest.raises(PrismaError, match=r"expected classes 0 to 2 \(or 1000\) in .*two.png; found 256"):
        Segmentations.of_folder(tmp_path, transform).maps([0])


def test_folders_without_segmentations_are_refused(tmp_path: Path) -> None:
    transform = Transform(size=(8, 8), mean=(0.5,) * 3, std=(0.5,) * 3)
    with pytest.raises(PrismaError, match=r"expected segmentations in .*, as PNG files; found none"):
        Segmentations.of_folder(tmp_path, transform)
    a_map(tmp_path / "one.png", np.zeros((8, 8), int))
    with pytest.raises(PrismaError, match=r"expected a subfolder of .* for every class, or their names; found neither"):
        Segmentations.of_folder(tmp_path, transform)


def test_rows_that_are_none_and_endings_in_capitals(tmp_path: Path) -> None:
    for rows in ([2000], [-2001], ["a"], [0.5]):
        with pytest.raises(PrismaError, match="expected rows from 0 to 1,999; found"):
            patch_labels(task("clevr"), "test", 8, rows)  # type: ignore[arg-type]
    last = patch_labels(task("clevr"), "test", 8, [-1]).shares
    assert torch.equal(last, patch_labels(task("clevr"), "test", 8, slice(1999, None)).shares)
    (tmp_path / "a").mkdir()
    a_map(tmp_path / "a" / "one.PNG", np.ones((8, 8), int))
    found = Segmentations.of_folder(tmp_path, Transform(size=(8, 8), mean=(0.0,) * 3, std=(1.0,) * 3))
    assert found.names == ("a/one",) and found.patch_labels([0], 4).shares.tolist() == [[[[1.0]] * 2] * 2]
