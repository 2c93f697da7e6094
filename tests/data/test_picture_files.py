"""Which files of a folder are pictures, and what is said about the others."""

import os
from pathlib import Path

import pytest
from PIL import Image

from prisma import PrismaError
from prisma.data.picture_files import picture_files
from prisma.data.pictures import pictures
from prisma.data.transform import Transform


def picture(path: Path, kind: str = "PNG") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), "red").save(path, format=kind)


def names_of(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in picture_files(folder).files]


def test_linked_class_folders_are_read_once_and_loops_end(tmp_path: Path) -> None:
    data, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    picture(data / "cats" / "1.png")
    picture(elsewhere / "2.png")
    (data / "dogs").symlink_to(elsewhere)
    (data / "cats" / "back").symlink_to(data)
    (elsewhere / "here").symlink_to(elsewhere)
    (data / "again").symlink_to(data / "cats")
    (data / "circle").symlink_to(data / "circle")
    (data / "lost").symlink_to("nowhere")
    (data / "one").symlink_to(data / "cats" / "1.png")
    found = picture_files(data)
    assert names_of(data) == ["cats/1.png", "dogs/2.png", "one"]
    assert found.skipped == {"links to a folder that is read already": 3, "links to nothing": 2}
    assert found.left_out == "3 links to a folder that is read already, 2 links to nothing"


def test_a_picture_is_known_by_its_ending_or_its_first_bytes(tmp_path: Path) -> None:
    picture(tmp_path / "no ending")
    picture(tmp_path / "upper.JPG", "JPEG")
    picture(tmp_path / "upper.PnG")
    picture(tmp_path / "other.data", "WEBP")
    picture(tmp_path / "wrong.png", "JPEG")
    picture(tmp_path / ".hidden.png")
    (tmp_path / ".DS_Store").write_bytes(b"Bud1")
    (tmp_path / "notes.txt").write_text("words")
    (tmp_path / "labels").write_text("0")
    (tmp_path / "features.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    os.mkfifo(tmp_path / "pipe.png")
    found = picture_files(tmp_path)
    assert names_of(tmp_path) == ["no ending", "other.data", "upper.JPG", "upper.PnG", "wrong.png"]
    assert found.skipped == {"hidden": 2, "not pictures": 3, "pipes, sockets or devices": 1}


def test_an_empty_folder_says_what_was_left_out(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("words")
    square = Transform(size=(8, 8), mean=(0.5,) * 3, std=(0.5,) * 3)
    with pytest.raises(PrismaError, match=r"expected pictures in .*; found none \(left out: 1 not pictures\)"):
        pictures(tmp_path, square, (3, 8, 8))


def test_names_that_are_not_utf8_or_have_line_breaks_are_read_and_shown(tmp_path: Path) -> None:
    square = Transform(size=(8, 8), mean=(0.5,) * 3, std=(0.5,) * 3)
    for name in (b"caf\xe9.png", b"line\nbreak.png", b"\x1b[31mred.png"):
        picture(tmp_path / os.fsdecode(name))
    found = pictures(tmp_path, square, (3, 8, 8))
    assert found.names == ("\\x1b[31mred.png", "caf\\xe9.png", "line\\nbreak.png")
    assert found.read(range(3)).shape == (3, 3, 8, 8)
    assert len(found.sha256) == 64


def test_too_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prisma.data.picture_files.PICTURE_FILES", 2)
    for i in range(3):
        (tmp_path / f"{i}.png").touch()
    with pytest.raises(PrismaError, match="expected at most 2 files in"):
        picture_files(tmp_path)
