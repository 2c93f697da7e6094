"""Reading the original's archive, from small ones of the same form."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prisma.data.dsprites_file import read_dsprites
from prisma.errors import PrismaError

COUNTS, SIDES = (3, 2, 2, 2, 2), (4, 4)
N = 48


class Trap:
    """Unpickling this would be noticed."""

    def __reduce__(self) -> Any:
        return (Path("unpickled").write_text, ("x",))


def arrays() -> dict[str, np.ndarray]:
    images = np.random.RandomState(0).randint(2, size=(N, *SIDES)).astype(np.uint8)
    classes = np.stack(np.unravel_index(np.arange(N), (1, *COUNTS)), 1).astype(np.int64)
    return {"imgs": images, "latents_classes": classes}


def write(path: Path, found: dict[str, np.ndarray]) -> Path:
    np.savez_compressed(path, **found)  # type: ignore[arg-type]
    return path


def read(path: Path) -> np.ndarray:
    parts = list(read_dsprites(path, COUNTS, SIDES, 10))
    assert [start for start, _ in parts] == list(range(0, N, 10))[: len(parts)]
    return np.concatenate([images for _, images in parts])


def test_the_images_come_in_their_order_and_the_pickle_stays_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "d.npz", arrays())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("metadata.npy", pickle.dumps(Trap()))
    found = read(path)
    assert np.array_equal(found, arrays()["imgs"]) and found.flags.writeable
    assert not (tmp_path / "unpickled").exists()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"imgs": None}, "an archive without .*imgs.npy"),
        ({"latents_classes": None}, "an archive without .*latents_classes.npy"),
        ({"imgs": np.zeros((N, 4, 5), np.uint8)}, r"imgs.npy .* uint8 \[48, 4, 4\]; found .* 5"),
        ({"imgs": np.zeros((N, *SIDES), np.float32)}, "found .*float32"),
        ({"imgs": np.full((N, *SIDES), 255, np.uint8)}, "to be 0 and 1; found 255"),
        ({"imgs": np.zeros((N - 1, *SIDES), np.uint8)}, "found .*47"),
        ({"imgs": np.asfortranarray(arrays()["imgs"])}, "expected imgs.npy"),
        ({"imgs": np.array([None] * N, object)}, "found .*"),
        ({"latents_classes": arrays()["latents_classes"][::-1].copy()}, "found other classes"),
        ({"latents_classes": arrays()["latents_classes"][:, 1:].copy()}, "expected latents_classes.npy"),
    ],
)
def test_another_archive_is_one_sentence(tmp_path: Path, change: dict[str, Any], sentence: str) -> None:
    made = {name: x for name, x in {**arrays(), **change}.items() if x is not None}
    with pytest.raises(PrismaError, match=sentence) as error:
        read(write(tmp_path / "d.npz", made))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.99])
def test_a_file_that_is_cut_off_is_one_sentence(tmp_path: Path, share: float) -> None:
    path = write(tmp_path / "d.npz", arrays())
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(PrismaError, match=r"expected the dSprites archive \(.npz\) at .*; found a damaged or other"):
        read(path)


def test_a_byte_that_changed_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    np.savez(path, **arrays())  # type: ignore[arg-type]
    data = bytearray(path.read_bytes())
    data[data.index(arrays()["imgs"].tobytes()) + 300] ^= 1
    path.write_bytes(data)
    with pytest.raises(PrismaError, match="Bad CRC-32"):
        read(path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(PrismaError, match=r"expected the dSprites archive at .*; found no such file"):
        read(tmp_path / "absent.npz")
