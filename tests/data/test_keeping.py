"""Kept tensors: in a folder that the environment names, or nowhere; and never in the way."""

from pathlib import Path

import pytest
import torch

from prisma.data.keeping import keep, read_kept

TENSORS = {"a": torch.tensor([True, False]), "b.c": torch.arange(3).flip(0)}


def test_there_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRISMA_CACHE", str(tmp_path / "here"))
    assert read_kept("f00") is None
    keep("f00", TENSORS)
    found = read_kept("f00")
    assert found is not None and found.keys() == TENSORS.keys()
    assert all(torch.equal(found[name], x) for name, x in TENSORS.items())
    assert [path.name for path in (tmp_path / "here" / "tasks").iterdir()] == ["f00.safetensors"]
    (tmp_path / "here" / "tasks" / "f00.safetensors").write_bytes(b"\0" * 9)
    assert read_kept("f00") is None


@pytest.mark.parametrize("base", ["", "xdg"])
def test_by_default_in_the_cache_of_the_user(base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PRISMA_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / base) if base else "")
    keep("f00", TENSORS)
    assert (tmp_path / (base or ".cache") / "prisma" / "tasks" / "f00.safetensors").is_file()


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("PRISMA_CACHE", str(tmp_path / "file"))
    keep("f00", TENSORS)
    assert read_kept("f00") is None
