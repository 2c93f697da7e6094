"""Sets of pictures in folders made here: who is in which split, with which label; and whatever else is there."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from prisma.data.picture_sets import drawn_for_testing, picture_set
from prisma.errors import PrismaError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRISMA_CACHE", str(tmp_path / "cache"))


def a_picture(path: Path, grey: int, size: tuple[int, int] = (8, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), grey, np.uint8)).save(path)


def greys(data: torch.Tensor) -> list[int]:
    return [int(x) for x in data[:, 0, 0, 0]]


def test_train_and_val(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for i, name in enumerate(("cat", "dog")):
        for k in range(3):
            a_picture(root / "train" / name / f"{k}.png", 10 * i + k, (8, 12))
        a_picture(root / "val" / name / "x.png", 100 + i)
    data = picture_set(root, 4)
    assert (data.name, data.labels, data.transform.size) == ("set", ("cat", "dog"), (4, 4))
    assert greys(data.splits["train"].images) == [0, 1, 2, 10, 11, 12]
    assert data.splits["train"].labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert greys(data.splits["test"].images) == [100, 101] and data.splits["test"].labels.tolist() == [0, 1]
    assert data.splits["train"].images.shape == (6, 3, 4, 4)
    assert picture_set(root, 4).sha256 == data.sha256 != picture_set(root, 8).sha256
    a_picture(root / "train" / "cat" / "0.png", 99)
    assert picture_set(root, 4).sha256 != data.sha256
    a_picture(root / "val" / "bird" / "x.png", 0)
    with pytest.raises(PrismaError, match=r"expected the same classes in .*; found bird in one of them"):
        picture_set(root, 4)


def test_a_split_is_drawn_where_none_is_given(tmp_path: Path) -> None:
    for name, n in (("cat", 20), ("dog", 10), ("owl", 2)):
        for k in range(n):
            a_picture(tmp_path / "set" / name / f"{k:02}.png", k)
    data = picture_set(tmp_path / "set", 8)
    assert data.splits["test"].labels.bincount().tolist() == [2, 1, 1]
    assert data.splits["train"].labels.bincount().tolist() == [18, 9, 1]
    for label, n in enumerate((20, 10, 2)):
        parts = [split.images[split.labels == label] for split in data.splits.values()]
        assert sorted(greys(torch.cat(parts))) == list(range(n)), "each picture once"


@pytest.mark.parametrize("n", [0, 1, 2, 5, 100])
def test_how_many_are_drawn(n: int) -> None:
    labels = np.arange(3 * n) % 3
    chosen = drawn_for_testing(labels, 4)
    expected = {0: 0, 1: 0, 2: 1, 5: 1, 100: 10}[n]
    assert [int(chosen[labels == k].sum()) for k in range(3)] == [expected] * 3
    assert (chosen == drawn_for_testing(labels, 4)).all()


def test_what_cannot_be_decoded_is_left_out_or_refused(tmp_path: Path) -> None:
    for i in range(2):
        for k in range(40):
            a_picture(tmp_path / "set" / f"c{i}" / f"{k}.png", k)
    whole = (tmp_path / "set" / "c0" / "7.png").read_bytes()
    (tmp_path / "set" / "c0" / "7.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PrismaError, match=r"expected at most 1.0% of 72 pictures to be unreadable; found 1: c0/7.png"):
        picture_set(tmp_path / "set", 8)
    with pytest.warns(UserWarning, match="1 of 72 pictures cannot be decoded and are left out: c0/7.png"):
        data = picture_set(tmp_path / "set", 8, skipped=0.02)
    assert len(data.splits["train"].labels) == 71


def test_other_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PrismaError, match="expected a folder of pictures at"):
        picture_set(tmp_path / "none")
    a_picture(tmp_path / "set" / "one" / "x.png", 0)
    with pytest.raises(PrismaError, match=r"expected a subfolder of pictures for each of two classes .*; found 1"):
        picture_set(tmp_path / "set")
    (tmp_path / "set" / "train").mkdir()
    with pytest.raises(PrismaError, match=r"expected val/ or test/ beside train/ in .*; found none"):
        picture_set(tmp_path / "set")
    with pytest.raises(PrismaError, match="there is no layout 'imagnet' of pictures; the nearest: imagenet"):
        picture_set(tmp_path / "set", layout="imagnet")


def test_tiny_imagenet(tmp_path: Path) -> None:
    root = tmp_path / "tiny-imagenet-200"
    for i, wnid in enumerate(("n01", "n02")):
        a_picture(root / "train" / wnid / "images" / f"{wnid}_0.JPEG", 40 * i)
        a_picture(root / "val" / "images" / f"val_{i}.JPEG", 100 + 40 * i)
    a_picture(root / "test" / "images" / "test_0.JPEG", 0)
    lines = ["val_0.JPEG\tn02\t0\t0\t7\t7", "val_1.JPEG\tn01\t0\t0\t7\t7"]
    (root / "val" / "val_annotations.txt").write_text("\n".join(lines))
    (root / "words.txt").write_text("n01\tgoldfish, Carassius auratus\nn02\ttabby\nn03\tlion\n")
    data = picture_set(root, 8, layout="tinyimagenet")
    assert data.labels == ("goldfish, Carassius auratus", "tabby")
    assert greys(data.splits["test"].images) == [100, 140] and data.splits["test"].labels.tolist() == [1, 0]
    assert greys(data.splits["train"].images) == [0, 40]
    (root / "val" / "val_annotations.txt").write_text(lines[0])
    with pytest.raises(PrismaError, match=r"expected the class of .*val_1.JPEG in its list, .*; found None"):
        picture_set(root, 8, layout="tinyimagenet")


def test_imagenet_as_kaggle_packs_it_and_as_folders(tmp_path: Path) -> None:
    packed, plain = tmp_path / "packed", tmp_path / "plain"
    inside = packed / "ILSVRC" / "Data" / "CLS-LOC"
    for i, wnid in enumerate(("n01", "n02")):
        for root in (inside, plain):
            a_picture(root / "train" / wnid / f"{wnid}_0.JPEG", 40 * i, (9, 12))
        a_picture(inside / "val" / f"ILSVRC2012_val_{i}.JPEG", 100 + 40 * i)
        a_picture(plain / "val" / wnid / f"ILSVRC2012_val_{1 - i}.JPEG", 140 - 40 * i)
    solution = "ImageId,PredictionString\nILSVRC2012_val_0,n02 1 2 3 4\nILSVRC2012_val_1,n01 1 2 3 4 n01 5 6 7 8 \n"
    (packed / "LOC_val_solution.csv").write_text(solution)
    (packed / "LOC_synset_mapping.txt").write_text("n01 tench, Tinca tinca\nn02 goldfish\n")
    found, same = picture_set(packed, 7, layout="imagenet"), picture_set(plain, 7, layout="imagenet")
    assert found.labels == ("tench, Tinca tinca", "goldfish") and same.labels == ("n01", "n02")
    assert found.splits["test"].labels.tolist() == [1, 0] and same.splits["test"].labels.tolist() == [0, 1]
    assert greys(found.splits["test"].images) == [100, 140] and greys(same.splits["test"].images) == [140, 100]
    assert torch.equal(found.splits["train"].images, same.splits["train"].images)
    assert (found.transform.size, found.transform.shortest) == ((7, 7), 8)


def test_sets_with_files_of_one_size_and_time_are_not_taken_for_each_other(tmp_path: Path) -> None:
    hashes = set[str]()
    for grey in (50, 200):
        for name in ("a", "b"):
            (tmp_path / str(grey) / name).mkdir(parents=True)
            for i in range(3):
                file = tmp_path / str(grey) / name / f"{i}.bmp"
                Image.fromarray(np.full((4, 4, 3), grey, np.uint8)).save(file)
                os.utime(file, ns=(0, 0))  # as from an archive
        hashes.add(picture_set(tmp_path / str(grey), 4).sha256)
    assert len(hashes) == 2
    for file in (tmp_path / "50").rglob("*.bmp"):
        Image.fromarray(np.full((4, 4, 3), 99, np.uint8)).save(file)
        os.utime(file, ns=(0, 0))
    assert picture_set(tmp_path / "50", 4).sha256 not in hashes
