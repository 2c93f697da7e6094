"""CIFAR from its binary version, in a folder and in an archive made here; a pickle is never opened."""

import gzip
import io
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from prisma.data.cifar import KINDS, cifar
from prisma.errors import PrismaError


def a_set(folder: Path, classes: int) -> dict[str, np.ndarray]:
    """Files of 10 rows for each batch, and their rows."""
    kind, random, made = KINDS[classes], np.random.RandomState(0), {}
    folder.mkdir(exist_ok=True)
    for name in (*kind.train, *kind.test):
        rows = random.randint(256, size=(10, kind.labels + 3072)).astype(np.uint8)
        rows[:, : kind.labels] %= classes
        (folder / name).write_bytes(rows.tobytes())
        made[name] = rows
    (folder / kind.names).write_text("".join(f"class {i}\n" for i in range(classes)) + "\n")
    return made


def archive_of(folder: Path, path: Path) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for file in sorted(folder.iterdir()):
            archive.add(file, f"cifar/{file.name}")
    return path


@pytest.mark.parametrize("classes", [10, 100])
def test_images_and_labels_are_those_of_the_files(tmp_path: Path, classes: int) -> None:
    made, kind = a_set(tmp_path / "set", classes), KINDS[classes]
    data = cifar(tmp_path / "set", classes)
    assert data.name == f"cifar{classes}" and data.labels[-1] == f"class {classes - 1}"
    for split, names in (("train", kind.train), ("test", kind.test)):
        rows = np.concatenate([made[name] for name in names])
        assert data.splits[split].labels.tolist() == rows[:, kind.labels - 1].tolist()
        red = torch.from_numpy(rows[:, kind.labels : kind.labels + 1024].reshape(-1, 32, 32))
        assert torch.equal(data.splits[split].images[:, 0], red)
    packed = cifar(archive_of(tmp_path / "set", tmp_path / "set.tar.gz"), classes)
    assert packed.sha256 == data.sha256 and packed.labels == data.labels


def test_a_pickle_stays_closed(tmp_path: Path) -> None:
    (tmp_path / "data_batch_1").write_bytes(b"cos\nsystem\n(S'exit 3'\ntR.")
    with pytest.raises(PrismaError, match="found the Python version, a pickle, which could run any code"):
        cifar(tmp_path)


def test_other_files_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    with pytest.raises(PrismaError, match="expected the 10 or the 100 classes of CIFAR; found 20"):
        cifar(folder, 20)
    a_set(folder, 10)
    (folder / "data_batch_3.bin").write_bytes(b"\0" * 100)
    with pytest.raises(PrismaError, match=r"expected rows of 3,073 bytes in data_batch_3.bin .*; found 100 bytes"):
        cifar(folder)
    (folder / "data_batch_3.bin").write_bytes(b"\x0b" * 3073)
    with pytest.raises(PrismaError, match=r"expected labels 0 to 9 in .*; found 11"):
        cifar(folder)
    (folder / "data_batch_3.bin").unlink()
    with pytest.raises(PrismaError, match=r"expected the file data_batch_3.bin of cifar10 in .*; found none"):
        cifar(folder)
    with pytest.raises(PrismaError, match=r"expected data_batch_3.bin in the archive .*; found none"):
        cifar(archive_of(folder, tmp_path / "set.tar.gz"))
    whole = (tmp_path / "set.tar.gz").read_bytes()
    for junk in (whole[: len(whole) // 2], b"junk", io.BytesIO(b"").getvalue()):
        (tmp_path / "set.tar.gz").write_bytes(junk)
        with pytest.raises(PrismaError, match=r"expected the archive of cifar10 at .*; found a damaged file"):
            cifar(tmp_path / "set.tar.gz")
    a_set(folder, 10)
    (folder / "batches.meta.txt").write_text("one\n")
    with pytest.raises(PrismaError, match=r"expected 10 names in batches.meta.txt of .*; found 1"):
        cifar(folder)


def test_a_header_that_states_a_size_beyond_all_bounds_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["prisma.data.cifar"], "LARGEST", 10_000)
    bomb = tarfile.TarInfo("more")
    bomb.type, bomb.size = tarfile.XHDTYPE, 20_000
    (tmp_path / "set.tar.gz").write_bytes(gzip.compress(bomb.tobuf() + bytes(20_480)))
    with pytest.raises(PrismaError, match=r"expected the archive of cifar10 at .*; found .*a part of 20,480 bytes"):
        cifar(tmp_path / "set.tar.gz")
