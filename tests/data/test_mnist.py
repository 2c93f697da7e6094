"""MNIST from its files, plain and gzipped, on files made here; and whatever else may be there."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from prisma.data.mnist import FILES, mnist, read_idx
from prisma.errors import PrismaError


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def a_set(folder: Path, zipped: bool = False) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    random, made = np.random.RandomState(0), {}
    for split, n in (("train", 30), ("test", 20)):
        made[split] = random.randint(256, size=(n, 28, 28)), np.arange(n) % 10
        for name, array in zip(FILES[split], made[split], strict=True):
            data = idx(array)
            (folder / (name + ".gz" * zipped)).write_bytes(gzip.compress(data) if zipped else data)
    return made


@pytest.mark.parametrize("zipped", [True, False])
def test_images_and_labels_are_those_of_the_files(tmp_path: Path, zipped: bool) -> None:
    made = a_set(tmp_path, zipped)
    data = mnist(tmp_path)
    assert (data.name, data.labels[3], data.transform.size) == ("mnist", "3", (28, 28))
    for split, (images, labels) in made.items():
        assert torch.equal(data.splits[split].images, torch.from_numpy(images.astype(np.uint8))[:, None])
        assert data.splits[split].labels.tolist() == labels.tolist()
    x, _ = data.inputs("test", 1)
    torch.testing.assert_close(x[0, 0] * 0.3081 + 0.1307, torch.from_numpy(made["test"][0][0] / 255).float())
    assert data.sha256 == mnist(tmp_path).sha256


def test_names_with_a_dot(tmp_path: Path) -> None:
    a_set(tmp_path)
    expected = mnist(tmp_path).sha256
    for path in list(tmp_path.iterdir()):
        path.rename(path.with_name(path.name.replace("-idx", ".idx")))
    assert mnist(tmp_path).sha256 == expected


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("train-images-idx3-ubyte", lambda data: data[:-5], "expected 23,520 bytes after .*; found 23,515"),
        ("train-labels-idx1-ubyte", lambda data: b"\0\0\x09\x01" + data[4:], "expected an idx file of bytes"),
        ("train-labels-idx1-ubyte", lambda data: b"", "expected an idx file of bytes"),
        ("train-labels-idx1-ubyte", lambda data: idx(np.arange(29)), "expected as many images of 28x28"),
        ("train-labels-idx1-ubyte", lambda data: idx(np.arange(30)), "expected labels 0 to 9 in .*; found 29"),
        ("t10k-images-idx3-ubyte", lambda data: idx(np.zeros((20, 8, 8))), "expected as many images of 28x28"),
        ("t10k-images-idx3-ubyte", lambda data: gzip.compress(data)[:-9], "expected a gzipped file at .*; found a dam"),
    ],
)  # fmt: skip
def test_other_files_are_refused(tmp_path: Path, file: str, change: object, message: str) -> None:
    a_set(tmp_path)
    (tmp_path / file).write_bytes(change((tmp_path / file).read_bytes()))  # type: ignore[operator]
    with pytest.raises(PrismaError, match=message):
        mnist(tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    a_set(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(PrismaError, match=r"expected the file t10k-labels-idx1-ubyte or .*\.gz in .*; found none"):
        mnist(tmp_path)
    with pytest.raises(PrismaError, match=r"expected a file at .*; found no such file"):
        read_idx(tmp_path / "nothing", 1)
