"""A data set in the form of the Hub, streamed from a folder of Parquet shards made here."""

from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from prisma.data.hub_sets import hub_set
from prisma.errors import PrismaError


def shards(
    folder: Path, split: str, greys: list[int], n: int, spoiled: tuple[int, ...] = (), secret: bool = False
) -> None:
    """Rows of grey pictures with labels in turn, in `n` Parquet files."""
    folder.mkdir(exist_ok=True)
    for k, part in enumerate(np.array_split(greys, n)):
        files = []
        for grey in part:
            file = folder.parent / f"{split}-{grey}.png"
            Image.fromarray(np.full((8, 10, 3), grey, np.uint8)).save(file)
            data = file.read_bytes()
            files.append({"bytes": data[:40] if grey in spoiled else data, "path": None})
        kinds = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
        labels = [-1 if secret else int(grey) % 2 for grey in part]
        rows = datasets.Dataset.from_dict({"image": files, "label": labels}, features=kinds)
        rows.to_parquet(str(folder / f"{split}-{k:05}-of-{n:05}.parquet"))


@pytest.fixture(autouse=True)
def quiet() -> None:
    datasets.disable_progress_bars()


def test_streamed_shard_after_shard(tmp_path: Path) -> None:
    shards(tmp_path / "set", "train", list(range(0, 60)), 3, spoiled=(31,))
    shards(tmp_path / "set", "test", list(range(100, 110)), 1)
    with pytest.warns(UserWarning, match="1 of 60 pictures cannot be decoded and are left out: row 31"):
        data = hub_set(tmp_path / "set", 4, first=60, skipped=0.02)
    assert (data.name, data.labels) == ("set", ("a", "b"))
    wanted = [i for i in range(60) if i != 31]
    assert data.splits["train"].images[:, 1, 2, 2].tolist() == wanted
    assert data.splits["train"].labels.tolist() == [i % 2 for i in wanted]
    assert data.splits["test"].images.shape == (10, 3, 4, 4)
    few = hub_set(tmp_path / "set", 4, first=20)
    assert len(few.splits["train"].labels) == 20 and few.sha256 != data.sha256
    with pytest.raises(PrismaError, match=r"expected at most 1.0% of 60 pictures"):
        hub_set(tmp_path / "set", 4, first=60)


def test_a_split_is_drawn_and_other_sets_are_refused(tmp_path: Path) -> None:
    shards(tmp_path / "set", "train", list(range(0, 40)), 2)
    data = hub_set(tmp_path / "set", 4, first=100)
    assert data.splits["test"].labels.bincount().tolist() == [2, 2]
    assert torch.cat([split.labels for split in data.splits.values()]).bincount().tolist() == [20, 20]
    with pytest.raises(PrismaError, match=r"expected .* to state how many rows it has; found that it does not"):
        hub_set(tmp_path / "set", 4)
    rows = datasets.Dataset.from_dict({"text": ["x"], "label": [0]})
    (tmp_path / "other").mkdir()
    rows.to_parquet(str(tmp_path / "other" / "train.parquet"))
    with pytest.raises(PrismaError, match=r"expected columns of images and of named labels in .*; found \['"):
        hub_set(tmp_path / "other", 4, first=1)
    (tmp_path / "empty").mkdir()
    with pytest.raises(PrismaError, match="expected a data set of the Hub or a folder of one at"):
        hub_set(tmp_path / "empty", 4, first=1)


def test_a_split_without_labels_is_no_test(tmp_path: Path) -> None:
    shards(tmp_path / "set", "train", list(range(0, 40)), 1)
    shards(tmp_path / "set", "test", list(range(100, 110)), 1, secret=True)
    shards(tmp_path / "set", "validation", list(range(200, 206)), 1)
    data = hub_set(tmp_path / "set", 4, first=50)
    assert data.splits["test"].images[:, 0, 0, 0].tolist() == list(range(200, 206))
    shards(tmp_path / "other", "train", list(range(0, 10)), 1, secret=True)
    with pytest.raises(PrismaError, match=r"expected labels from 0 to 1 in train; found -1 in row 0"):
        hub_set(tmp_path / "other", 4, first=50)
