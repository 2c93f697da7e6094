"""Saved tensors are read, and nothing else in a pickle is run."""

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from prisma.errors import PrismaError
from prisma.sparse.unpickling import Stub, read_saved, tensors_of


class Settings:
    """An object of a class that a reader need not have."""

    def __init__(self) -> None:
        self.d_in, self.names = 4, ["a"]


class Evil:
    """An object whose pickle calls a function."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_tensors_come_back_and_objects_are_stubs(tmp_path: Path) -> None:
    base = torch.arange(12.0).view(3, 4)
    saved = {
        "cfg": Settings(), "state_dict": {"a": base.T, "b": base[1:].half(), "c": torch.nn.Parameter(torch.ones(2)),
        "d": torch.tensor(3), "e": torch.empty(0, 2), "f": torch.ones(2, dtype=torch.bfloat16)},
    }  # fmt: skip
    torch.save(saved, tmp_path / "a.pt")
    found = read_saved(tmp_path / "a.pt")
    assert isinstance(found["cfg"], Stub) and found["cfg"].d_in == 4 and found["cfg"].stub_of.endswith("Settings")
    tensors = tensors_of(found)
    assert list(tensors) == list(saved["state_dict"])  # type: ignore[call-overload]
    for name, x in saved["state_dict"].items():  # type: ignore[attr-defined]
        assert torch.equal(tensors[name], x) and tensors[name].dtype == x.dtype
    tensors["a"][0, 0] = 99
    assert tensors["b"][0, 0] != 99 and base[0, 0] == 0


def test_nothing_is_run(tmp_path: Path) -> None:
    torch.save({"cfg": Evil(tmp_path / "was run"), "w": torch.ones(2)}, tmp_path / "a.pt")
    found = read_saved(tmp_path / "a.pt")
    assert not (tmp_path / "was run").exists() and tensors_of(found)["w"].tolist() == [1, 1]


def test_other_files_and_tensors_larger_than_their_numbers_are_refused(tmp_path: Path) -> None:
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(
        PrismaError, match=r"expected tensors that torch\.save wrote, at .*plain.pkl; found something else"
    ):
        read_saved(tmp_path / "plain.pkl")
    torch.save({"a": torch.ones(2), "n": 65_432}, tmp_path / "a.pt")
    data = (tmp_path / "a.pt").read_bytes()
    (tmp_path / "b.pt").write_bytes(b'{"schema": 1}\n' + data)
    assert tensors_of(read_saved(tmp_path / "b.pt", skip=14))["a"].tolist() == [1, 1]
    torch.save({"a": torch.ones(2).as_strided((2,), (1,))}, tmp_path / "c.pt")
    whole = (tmp_path / "c.pt").read_bytes()
    assert whole.count(b"K\x02\x85") >= 1  # the size (2,) of the tensor
    (tmp_path / "c.pt").write_bytes(whole.replace(b"K\x02\x85", b"K\x7f\x85"))
    with pytest.raises(PrismaError, match="found something else"):
        read_saved(tmp_path / "c.pt")
