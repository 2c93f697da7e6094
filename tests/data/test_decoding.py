"""Decoding once: in order, in workers, kept in a file or in memory; unreadable pictures counted, named or refused."""

import io
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from prisma.data import decoding
from prisma.data.decoding import Picture, UnreadableError, decoded, picture_of
from prisma.errors import PrismaError

SHAPE = (3, 2, 2)


def some_pictures(n: int, wrong: tuple[int, ...] = (), seen: set[int] | None = None) -> Iterator[Picture]:
    def read(i: int) -> tuple[torch.Tensor, int]:
        if seen is not None:
            seen.add(threading.get_ident())
        if i in wrong:
            raise UnreadableError(f"picture {i}")
        return torch.full(SHAPE, i, dtype=torch.uint8), i % 3

    return (Picture(f"p{i}", lambda i=i: read(i)) for i in range(n))  # type: ignore[misc]


@pytest.mark.parametrize("key", ["key", None])
@pytest.mark.parametrize("cache", ["on", ""])
def test_in_order_whoever_decodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str | None, cache: str) -> None:
    monkeypatch.setenv("PRISMA_CACHE", cache and str(tmp_path))
    monkeypatch.setattr(decoding, "IN_FLIGHT", 5)
    for workers in (1, 4):
        found = decoded(some_pictures(50), 60, SHAPE, key and f"{key} {workers}", workers=workers)
        assert found.images[:, 0, 0, 0].tolist() == list(range(50)) and found.images.shape == (50, *SHAPE)
        assert found.labels.tolist() == [i % 3 for i in range(50)] and found.left_out == ()
    assert bool(list(tmp_path.iterdir())) == bool(key and cache)


def test_what_was_decoded_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRISMA_CACHE", str(tmp_path))
    with pytest.warns(UserWarning, match="1 of 200"):
        first = decoded(some_pictures(200, wrong=(7,)), 200, SHAPE, "key")
    with pytest.warns(UserWarning, match="1 of 200"):
        again = decoded(iter(()), 200, SHAPE, "key")
    assert torch.equal(first.images, again.images) and torch.equal(first.labels, again.labels)
    assert again.left_out == ("p7",) and len(again.labels) == 199 and again.images[7, 0, 0, 0] == 8
    files = sorted((tmp_path / "pictures").iterdir())
    assert [path.suffix for path in files] == [".bin", ".json"] and files[0].stat().st_size == 199 * 12
    with pytest.raises(PrismaError, match=r"at most 0.0% of 200 pictures to be unreadable; found 1: p7"):
        decoded(iter(()), 200, SHAPE, "key", skipped=0.0)
    for damaged in ('{"labels": [1, 2', "{}", '{"labels": ["x"], "left_out": []}'):
        files[1].write_text(damaged)
        assert len(decoded(some_pictures(9), 200, SHAPE, "key").labels) == 9, "made again"
    files[0].write_bytes(b"\0" * 5)
    assert torch.equal(decoded(some_pictures(199), 200, SHAPE, "key").labels, torch.arange(199) % 3), "made again"


def test_few_unreadable_pictures_are_left_out_and_said() -> None:
    with pytest.warns(UserWarning, match="2 of 100 pictures cannot be decoded and are left out: p0, p40"):
        found = decoded(some_pictures(100, wrong=(0, 40)), 100, SHAPE, None, skipped=0.02)
    assert found.left_out == ("p0", "p40") and found.labels.tolist()[0] == 1
    message = r"expected at most 1.0% of 100 pictures to be unreadable; found 5: p1, p2, p3 and 2 more"
    with pytest.raises(PrismaError, match=message):
        decoded(some_pictures(100, wrong=(1, 2, 3, 4, 5)), 100, SHAPE, None)
    with pytest.raises(PrismaError, match=r"to be unreadable; found 0: no picture"):
        decoded(iter(()), 5, SHAPE, None)


def test_any_other_error_is_no_unreadable_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing half done stays behind."""
    monkeypatch.setenv("PRISMA_CACHE", str(tmp_path))

    def refuse() -> tuple[torch.Tensor, int]:
        raise PrismaError("another size")

    with pytest.raises(PrismaError, match="another size"):
        decoded(iter([Picture("p", refuse)]), 1, SHAPE, "key", skipped=1.0)
    assert not list((tmp_path / "pictures").iterdir())


def test_the_picture_of_bytes() -> None:
    out = io.BytesIO()
    Image.fromarray(np.full((3, 4, 3), 77, np.uint8)).save(out, "PNG")
    assert np.asarray(picture_of(out.getvalue()))[2, 3, 1] == 77
    for junk in (b"", b"junk", out.getvalue()[:50]):
        with pytest.raises(UnreadableError, match="expected the bytes of a picture; found"):
            picture_of(junk)


def test_too_little_space_is_said_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRISMA_CACHE", str(tmp_path))
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=5e8))
    with pytest.raises(PrismaError, match=r"expected 1.2 GB of free space in .*; found 0.5 GB: choose another folder"):
        decoded(iter(()), 10**8, SHAPE, "key")
    assert not list((tmp_path / "pictures").iterdir())
