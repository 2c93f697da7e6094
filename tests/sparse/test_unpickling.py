"""Saved tensors are read, and nothing else in a pickle is run."""

import pickle
import zipfile
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


def saved_pickle(path: Path, data: bytes, numbers: bytes = bytes(16)) -> Path:
    """An archive as `torch.save` writes it, with a pickle of our own."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", data)
        archive.writestr("x/data/0", numbers)
    return path


PID = b"(U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK\x04tQ"  # a persistent id: four numbers
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"


@pytest.mark.parametrize(
    ("size", "stride"),
    [(b"J\x00\xca\x9a\x3b", b"K\x00"), (b"K\x05", b"K\x01"), (b"K\x03", b"K\x02"), (b"K\x08", b"K\x00")],
)
def test_a_tensor_has_no_more_numbers_than_are_stored(size: bytes, stride: bytes, tmp_path: Path) -> None:
    """A stride of zero would make a billion numbers of four."""
    tensor = REBUILD + b"(" + PID + b"K\x00(" + size + b"t(" + stride + b"tI00\n}tR"
    with pytest.raises(PrismaError, match="a tensor that is larger than its numbers"):
        read_saved(saved_pickle(tmp_path / "a.pt", b"}U\x01w" + tensor + b"s."))
    one = REBUILD + b"(" + PID + b"K\x00(K\x02K\x02t(K\x02K\x01tI00\n}tR"
    assert tensors_of(read_saved(saved_pickle(tmp_path / "b.pt", b"}U\x01w" + one + b"s.")))["w"].shape == (2, 2)


@pytest.mark.parametrize("target", ["tensor", "function"])
def test_a_pickle_cannot_give_a_tensor_or_a_function_a_state(target: str, tmp_path: Path) -> None:
    """torch's tensors take a size of any number as their state."""
    made = REBUILD + (b"(" + PID + b"K\x00(K\x04t(K\x01tI00\n}tR" if target == "tensor" else b"")
    with pytest.raises(PrismaError, match="a state for an object that has none"):
        read_saved(saved_pickle(tmp_path / "a.pt", b"}U\x01w" + made + b"}U\x01aK\x01sbs."))


def test_numbers_that_are_named_often_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[str] = []
    real = zipfile.ZipFile.read
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda z, name, *a: reads.append(name) or real(z, name, *a))
    names = b"".join(b"U\x02w%d" % i + PID + b"s" for i in range(9))
    tensors = tensors_of(read_saved(saved_pickle(tmp_path / "a.pt", b"}" + names + b".")))
    assert len(tensors) == 9 and reads.count("x/data/0") == 1


def test_dicts_that_name_each_other_are_looked_at_once(tmp_path: Path) -> None:
    inner: dict[str, Any] = {"x": 1}
    for _ in range(60):
        inner = {"a": inner, "b": inner}
    around: dict[str, Any] = {}
    around["self"] = around
    torch.save({"many": inner, "around": around, "w": {"state_dict": {"w": torch.ones(2)}}}, tmp_path / "a.pt")
    assert tensors_of(read_saved(tmp_path / "a.pt"))["w"].tolist() == [1, 1]
    first = {"autoencoder": {"z": 1}, "other": {"late": torch.ones(1)}, "state_dict": {"w": torch.ones(2)}}
    torch.save(first, tmp_path / "b.pt")
    assert list(tensors_of(read_saved(tmp_path / "b.pt"))) == ["w"]
