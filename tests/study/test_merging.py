"""Merged shards equal the whole; a summary has means over images that ignore NaN; a plot is drawn if one can be."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from prisma import PrismaError
from prisma.analysis.result import Result
from prisma.analysis.statistics import mean_and_error
from prisma.study.merging import merge_results, save_plot, summarise


@dataclass(frozen=True, kw_only=True, eq=False)
class Found(Result):
    AXES: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "values": ("image", "{axis}"),
        "effect": ("{axis}",),
        "shared": ("class",),
        "more": ("image",),
    }
    values: Tensor
    shared: Tensor
    more: Tensor | None = None

    @property
    def effect(self) -> Tensor:
        return self.values.nanmean(0)


def found(values: Tensor, **more: object) -> Found:
    shared = torch.arange(3.0)
    return Found(
        metadata={"analysis": "a test", "axis": "head", "pairs": len(values), **more}, values=values, shared=shared
    )


def test_merged_shards_are_the_whole() -> None:
    values = torch.randn(7, 4)
    parts = [found(some, seed=i, site="z") for i, some in enumerate(values.split(3))]
    whole = merge_results(parts, {"seed": 0, "corrupt": "other"})
    assert torch.equal(whole.values, values)
    assert torch.equal(whole.shared, parts[0].shared) and whole.more is None
    assert whole.axes["values"] == ("image", "head")
    expected = {"analysis": "a test", "axis": "head", "pairs": 7, "site": "z", "seed": 0, "corrupt": "other"}
    assert whole.metadata == expected


def test_shards_that_do_not_fit_together_are_refused() -> None:
    other = Found(metadata={"axis": "head", "pairs": 1}, values=torch.ones(1, 4), shared=torch.zeros(3))
    with pytest.raises(PrismaError, match="array shared of Found, which has no image axis, to be equal in all shards"):
        merge_results([found(torch.ones(1, 4)), other])
    with pytest.raises(PrismaError, match="found none"):
        merge_results([])


def test_means_and_standard_errors_ignore_nan() -> None:
    x = torch.tensor([[1.0, 5.0], [2.0, torch.nan], [6.0, torch.nan]])
    mean, error = mean_and_error(x)
    assert mean.tolist() == [3.0, 5.0]
    assert error[0].item() == pytest.approx(x[:, 0].std().item() / math.sqrt(3))
    assert error[1].isnan()


def test_a_summary_is_short_and_can_be_written_as_json() -> None:
    summary = summarise(found(torch.tensor([[1.0, torch.nan], [3.0, torch.nan]])))
    values = {"axes": ["image", "head"], "shape": [2, 2], "mean": [2.0, None], "stderr": [1.0, None]}
    assert summary["values"] == values
    assert summary["effect"] == {"axes": ["head"], "shape": [2], "values": [2.0, None]}
    assert summarise(found(torch.ones(2, 5000)))["values"] == {"axes": ["image", "head"], "shape": [2, 5000]}


@dataclass(frozen=True, kw_only=True, eq=False)
class Maps(Result):
    AXES: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "of_image": ("image",),
        "huge": ("image", "layer", "row", "column"),
        "map": ("image", "row", "column"),
    }
    of_image: Tensor
    huge: Tensor
    map: Tensor


def test_the_plot_is_of_the_first_array_that_can_be_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[Tensor, tuple[str, ...]]] = []

    def draw(values: Tensor, axes: tuple[str, ...], **_: object) -> object:
        drawn.append((values, axes))
        return real(values, axes)

    from prisma.study import merging

    real = merging.draw
    monkeypatch.setattr(merging, "draw", draw)
    maps = Maps(metadata={}, of_image=torch.ones(60), huge=torch.ones(60, 50, 2, 2), map=torch.rand(60, 3, 4))
    assert save_plot(maps, tmp_path / "plot.png")
    assert drawn[-1][1] == ("row", "column") and torch.equal(drawn[-1][0], maps.map.double().mean(0))
    assert (tmp_path / "plot.png").read_bytes()[1:4] == b"PNG"
    none = Maps(metadata={}, of_image=torch.ones(1), huge=torch.ones(1, 50, 2, 2), map=torch.ones(1, 0, 4))
    assert not save_plot(none, tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
