"""Numbers over training: planted changes, against a search by hand."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from prisma.analysis.directions.fourier_components import FourierComponents
from prisma.analysis.modularity.modularity import Modularity
from prisma.analysis.result import Result
from prisma.errors import PrismaError
from prisma.study.trajectory import Trajectory, changes, expect_array, trajectory


@dataclass(frozen=True, kw_only=True, eq=False)
class Numbers(Result):
    AXES: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "whole": ("layer",), "score": ("image", "layer", "head"), "other": ("image",),
    }  # fmt: skip
    whole: Tensor
    score: Tensor
    other: Tensor


STEPS = (0, 1, 4, 16, 64, 256)


def results(noise: float = 0.1) -> dict[int, Result]:
    """Layer 1, head 0 goes from 0 to 1 at step 16; the others stay."""
    generator = torch.Generator().manual_seed(0)
    found: dict[int, Result] = {}
    for step in STEPS:
        score = noise * torch.randn(40, 2, 3, generator=generator)
        score[:, 1, 0] += step >= 16
        found[step] = Numbers(metadata={"analysis": "numbers"}, whole=torch.zeros(2), score=score, other=score[:, 0, 0])
    return found


def test_a_planted_change_is_found_with_a_narrow_interval() -> None:
    found = trajectory(results())
    assert found.metadata["array"] == "score" and found.metadata["steps"] == list(STEPS)
    planted = 3  # layer 1, head 0
    assert found.name_of(planted) == "layer 1, head 0"
    assert found.change[planted] == 16 and found.change_interval[:, planted].tolist() == [16, 16]
    low, high = found.jump_interval[:, planted]
    assert low < found.jump[planted] < high and abs(found.jump[planted] - 1) < 0.05 and high - low < 0.1
    torch.testing.assert_close(found.mean[3], results()[16].arrays["score"].double().mean(0).flatten())
    widths = (found.change_interval[1] - found.change_interval[0]).tolist()
    assert all(width > 0 for i, width in enumerate(widths) if i != planted), "noise has no change point that stays"


def test_numbers_have_the_names_that_their_analysis_gives() -> None:
    images, zeros = torch.rand(4, 1), torch.zeros(4)
    known = dict.fromkeys(("loss", "restricted_loss", "excluded_loss"), zeros)
    shares = dict.fromkeys(("embedding", "logits"), torch.ones(2) / 2)
    of_step = [
        FourierComponents(
            metadata={"analysis": "x"}, contribution=torch.cat([images, images + i], 1), **known, **shares
        )
        for i in range(3)
    ]
    found = trajectory(dict(enumerate(of_step)), "contribution")
    assert [found.name_of(i) for i in range(2)] == ["frequency 1", "frequency 2"]
    assert found.metadata["names"] == {"frequency": ["1", "2"]}
    assert trajectory(dict(enumerate(of_step)), "loss").metadata["names"] == {}


def test_splits_are_those_of_a_search_over_all() -> None:
    values = torch.randn(5, 7, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    values[2, 3, 1] = torch.nan
    split, jump, splits, jumps = changes(values)
    assert splits.shape == jumps.shape == (500, 4)
    for n in range(4):
        y = values[:, :, n].nanmean(1)
        errors = [(y[:c] - y[:c].mean()).square().sum() + (y[c:] - y[c:].mean()).square().sum() for c in range(1, 5)]
        best = min(range(4), key=lambda c: errors[c].item()) + 1
        assert split[n] == best
        assert jump[n].item() == pytest.approx((y[best:].mean() - y[:best].mean()).item())


def test_a_result_is_saved_drawn_and_read(tmp_path) -> None:  # type: ignore[no-untyped-def]
    found = trajectory(results(), "other")
    assert found.metadata["shape"] == [] and found.name_of(0) == "other"
    found.to_npz(tmp_path / "a.npz")
    assert torch.equal(Trajectory.from_npz(tmp_path / "a.npz").change, found.change)
    lines = trajectory(results()).plot().axes[0].lines
    assert len(lines) == 6 and lines[3].get_label() == "layer 1, head 0"


def test_what_cannot_be_compared_is_refused() -> None:
    found = results()
    with pytest.raises(PrismaError, match="expected the results of two checkpoints or more; found 1"):
        trajectory({0: found[0]})
    with pytest.raises(
        PrismaError, match="expected an array with an image axis; found 'whole'; the nearest: score, other"
    ):
        trajectory(found, "whole")
    short = Numbers(
        metadata={"analysis": "numbers"}, whole=torch.zeros(2), score=torch.zeros(3, 2, 3), other=torch.zeros(3)
    )
    with pytest.raises(
        PrismaError, match=r"expected score of the shape \[40, 2, 3\] at every checkpoint; found \[3, 2, 3\]"
    ):
        trajectory({**found, 999: short})


def test_a_wrong_array_is_known_from_the_class_of_results() -> None:
    expect_array("numbers", Numbers, None)
    expect_array("numbers", Numbers, "other")
    with pytest.raises(
        PrismaError,
        match="expected an array of numbers with an image axis; found 'scores'; the nearest: score, other",
    ):
        expect_array("numbers", Numbers, "scores")
    with pytest.raises(PrismaError, match="of modularity with an image axis, to look for changes in; found none: its"):
        expect_array("modularity", Modularity, None)
