"""What a file is, told by its first bytes."""

from pathlib import Path

import pytest
import torch

from prisma.checkpoint import to_safetensors
from prisma.contents import LFS_POINTER, contents_of

FILES = {
    b"": "an empty file",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 3\n": LFS_POINTER,
    b"GGUF\x03": "a GGUF file",
    b"\x89HDF\r\n": "an HDF5 file, as Keras writes",
    b"<!DOCTYPE html><html>": "a web page: download the file itself",
    b"\x80\x04pickle": "a pickle",
    b"nothing known": None,
}


@pytest.mark.parametrize("data", FILES)
def test_a_file_is_known_by_its_first_bytes(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(data)
    assert contents_of(tmp_path / "file") == FILES[data]


def test_weights_whatever_their_name(tmp_path: Path) -> None:
    torch.save({"x": torch.zeros(1)}, tmp_path / "model.safetensors")
    assert contents_of(tmp_path / "model.safetensors") == "a zip archive, as torch.save writes pickles"
    (tmp_path / "pytorch_model.bin").write_bytes(to_safetensors({"x": torch.zeros(1)}, {}))
    assert contents_of(tmp_path / "pytorch_model.bin") == "safetensors"


def test_what_cannot_be_read(tmp_path: Path) -> None:
    assert contents_of(tmp_path / "absent") == "no such file"


def test_a_header_of_any_length_is_that_of_safetensors(tmp_path: Path) -> None:
    """Its first byte is a part of the length: 0x680 begins as a pickle does, 0x4B50 as a zip archive."""
    for length in (0x680, 0x1F8B):
        (tmp_path / "file").write_bytes(length.to_bytes(8, "little") + b'{"x": 1}')
        assert contents_of(tmp_path / "file") == "safetensors"
