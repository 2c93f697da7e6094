"""What every analysis returns."""

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis.strategies import DataObject, binary, data, integers
from torch import Tensor

from prisma import PrismaError
from prisma.analysis.result import Effect, PairedEffect, Result


@dataclass(frozen=True, kw_only=True, eq=False)
class Example(Result):
    AXES: ClassVar[Mapping[str, tuple[str, ...]]] = {"effect": ("layer", "{axis}"), "extra": ("image",)}
    effect: Tensor
    extra: Tensor | None = None


def example(extra: bool = True) -> Example:
    effect = torch.arange(6.0).view(2, 3).requires_grad_()
    metadata = {"analysis": "example", "axis": "head"}
    return Example(metadata=metadata, effect=effect, extra=torch.arange(2) if extra else None)


def test_axes_are_filled_from_what_produced_it() -> None:
    assert example().axes == {"effect": ("layer", "head"), "extra": ("image",)}
    assert example(extra=False).axes == {"effect": ("layer", "head")}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_becomes_float32(dtype: torch.dtype) -> None:
    found = Example(metadata={"axis": "head"}, effect=torch.ones(2, 3, dtype=dtype), extra=torch.arange(2))
    assert (found.effect.dtype, found.extra.dtype) == (torch.float32, torch.long)  # type: ignore[union-attr]


@pytest.mark.parametrize("extra", [True, False])
def test_a_file_holds_all_of_it(tmp_path: Path, extra: bool) -> None:
    path = example(extra).to_npz(tmp_path / "deep" / "example.npz")
    again = Example.from_npz(path)
    assert again.metadata == example().metadata
    assert again.axes == example(extra).axes
    assert all(torch.equal(x, again.arrays[name]) for name, x in example(extra).arrays.items())
    assert [file.name for file in path.parent.iterdir()] == ["example.npz"]


def test_half_precision_is_stored_as_float32(tmp_path: Path) -> None:
    half = Example(metadata={"analysis": "example", "axis": "head"}, effect=torch.ones(1, 2, dtype=torch.bfloat16))
    assert Example.from_npz(half.to_npz(tmp_path / "half.npz")).effect.dtype == torch.float32


def test_it_is_json() -> None:
    said = json.loads(json.dumps(example().to_dict()))
    assert said["metadata"] == {"analysis": "example", "axis": "head"}
    assert said["arrays"]["effect"] == {"axes": ["layer", "head"], "values": [[0, 1, 2], [3, 4, 5]]}


def test_what_is_not_finite_is_none_in_json() -> None:
    effect = torch.tensor([[1.0, torch.nan, -torch.inf]], dtype=torch.bfloat16)
    said = Example(metadata={"analysis": "example", "axis": "head"}, effect=effect).to_dict()
    assert json.loads(json.dumps(said, allow_nan=False))["arrays"]["effect"]["values"] == [[1.0, None, None]]


def test_what_is_no_saved_result_of_the_class_is_refused(tmp_path: Path) -> None:
    @dataclass(frozen=True, kw_only=True, eq=False)
    class Other(Result):
        AXES: ClassVar[Mapping[str, tuple[str, ...]]] = {"effect": ("layer", "head"), "values": ("image",)}
        effect: Tensor
        values: Tensor

    whole = example().to_npz(tmp_path / "example.npz")
    (tmp_path / "half.npz").write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    (tmp_path / "empty.npz").write_bytes(b"")
    for kind, name in ((Other, "example"), (Example, "half"), (Example, "empty"), (Example, "none")):
        with pytest.raises(PrismaError, match=f"expected a saved {kind.__name__} at .*{name}.npz; found something"):
            kind.from_npz(tmp_path / f"{name}.npz")


def test_a_plot_shows_the_first_array_or_the_named_one() -> None:
    assert example().plot().axes[0].get_xlabel() == "head"
    assert example().plot("extra").axes[0].get_xlabel() == "image"
    with pytest.raises(PrismaError, match="Example has no array 'efect'; the nearest: effect"):
        example().plot("efect")


def test_other_files_and_shapes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "other.npz").write_bytes(b"no")
    for name in ("other.npz", "missing.npz"):
        with pytest.raises(PrismaError, match="expected a saved Example at"):
            Example.from_npz(tmp_path / name)
    with pytest.raises(PrismaError, match=r"expected effect to have the axes layer, head; found \[3\]"):
        Example(metadata={"axis": "head"}, effect=torch.ones(3))


@dataclass(frozen=True, kw_only=True, eq=False)
class ExampleEffect(Effect):
    values: Tensor

    @property
    def per_image(self) -> Tensor:
        return self.values


def test_an_interval_is_as_wide_as_the_standard_error_says() -> None:
    values = torch.randn(400, 3, generator=torch.Generator().manual_seed(1)).double() * torch.tensor([1.0, 5.0, 0.0])
    found = ExampleEffect(metadata={}, values=values)
    low, high = found.interval()
    torch.testing.assert_close((high - low) / 2, 1.96 * found.stderr, rtol=0.08, atol=1e-12)
    torch.testing.assert_close((high + low) / 2, found.effect, rtol=0.0, atol=0.05)
    narrow = found.interval(level=0.5)
    assert torch.equal(found.interval(level=0.5), narrow) and (narrow[1] - narrow[0] <= high - low).all()


@dataclass(frozen=True, kw_only=True, eq=False)
class ExamplePairs(PairedEffect):
    """Effects that are the metric itself, as in activation patching."""

    values: Tensor

    @property
    def per_image(self) -> Tensor:
        return self.values

    @property
    def changes(self) -> Tensor:
        return self.values - self.changed_run[:, None]


@pytest.mark.parametrize("into", ["clean", "corrupt"])
def test_a_change_has_the_error_of_the_differences_of_pairs(into: str) -> None:
    """Metrics within 10 of each other, changes within 0.1: the error of the metric is a hundred times as large."""
    clean, corrupt, noise = 10 * torch.randn(3, 200, generator=torch.Generator().manual_seed(0)).double()
    run, other = (clean, corrupt) if into == "clean" else (corrupt, clean)
    values = torch.stack([run + 1 + noise / 100, run, other], dim=1)
    found = ExamplePairs(metadata={"into": into}, clean=clean, corrupt=corrupt, values=values)
    differences = [[value - base for value in row] for row, base in zip(values.tolist(), run.tolist(), strict=True)]
    error = np.std(differences, axis=0, ddof=1) / 200**0.5
    np.testing.assert_allclose(found.change, np.mean(differences, axis=0), atol=1e-12)
    np.testing.assert_allclose(found.change_stderr, error, atol=1e-12)
    assert found.change_stderr[0] < found.stderr[0] / 80 and found.change_stderr[1] == 0

    rows = torch.randint(200, (1000, 200), generator=torch.Generator().manual_seed(0)).tolist()
    draws = np.array([np.mean([differences[i] for i in some], axis=0) for some in rows])
    np.testing.assert_allclose(found.interval("change"), np.quantile(draws, [0.025, 0.975], axis=0), atol=1e-12)
    low, high = found.interval("normalised")
    assert low[2] == pytest.approx(1) and high[2] == pytest.approx(1)  # in every draw, the whole difference
    shares = draws / draws[:, 2:]
    np.testing.assert_allclose(torch.stack([low, high]), np.quantile(shares, [0.025, 0.975], axis=0), rtol=1e-9)
    with pytest.raises(PrismaError, match="expected one of effect, change, normalised; found 'stderr'"):
        found.interval("stderr")


def test_an_archive_that_unpacks_to_more_than_it_states_or_may_is_refused(tmp_path: Path) -> None:
    """A header that states 8 TB, a thousand and one arrays, and zeros that unpack to more than a result may have."""
    path = tmp_path / "bomb.npz"
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (10**6, 10**6)})
    cases = {
        "to hold .1000000, 1000000. values; found fewer bytes": {"effect.npy": header.getvalue()},
        "at most 1,000 arrays of .* found 1,001": {f"{i}.npy": b"" for i in range(1001)},
    }
    for sentence, members in cases.items():
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        with pytest.raises(PrismaError, match=rf"expected a saved Example at .*; found something else .*{sentence}"):
            Example.from_npz(path)


def test_zeros_that_unpack_to_more_than_the_bound_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prisma.analysis.result.RESULT", 100)
    with pytest.raises(PrismaError, match="at most 1,000 arrays of 100 bytes in all; found"):
        Example.from_npz(example().to_npz(tmp_path / "large.npz"))


@settings(max_examples=60, deadline=None)
@given(data())
def test_a_damaged_archive_is_refused_or_read(draw: DataObject) -> None:
    """Bytes that were changed, cut or moved: one sentence, or a result."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "result.npz"
        whole = bytearray(example().to_npz(path).read_bytes())
        for _ in range(draw.draw(integers(1, 4))):
            at = draw.draw(integers(0, len(whole) - 1))
            whole[at : at + draw.draw(integers(0, 8))] = draw.draw(binary(max_size=8))
        path.write_bytes(whole)
        try:
            assert isinstance(Example.from_npz(path), Example)
        except PrismaError as error:
            assert "\n" not in str(error) and str(path) in str(error)
