"""The time of a run: summed over its parts, unknown if a part was not timed, and in no file but the results."""

import json
import time
from pathlib import Path

import pytest

from prisma.errors import PrismaError
from prisma.train import Recipe, train
from prisma.train.clock import CLOCK, Clock
from prisma.train.metrics_log import MetricsLog


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which a test sets."""
    times = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: times[-1])
    return times


def test_the_parts_of_a_run_are_summed(tmp_path: Path, now: list[float]) -> None:
    first = Clock(tmp_path, 0)
    now.append(110.04)
    first.save()
    now.append(150.0)  # lost in a kill
    second = Clock(tmp_path, 7)
    now.append(152.0)
    assert second.stated == {"seconds": 12.0}
    second.remove()
    assert not (tmp_path / CLOCK).exists()


def test_a_new_run_does_not_count_what_is_there(tmp_path: Path, now: list[float]) -> None:
    (tmp_path / CLOCK).write_text('{"seconds": 9}')
    assert Clock(tmp_path, 0).stated == {"seconds": 0.0}


@pytest.mark.parametrize("content", [None, "", "{}", '{"seconds": true}', '{"seconds": -1}', '{"seconds": "1"}'])
def test_a_part_that_was_not_timed_leaves_the_time_unknown(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / CLOCK).write_text(content)
    clock = Clock(tmp_path, 3)
    assert clock.stated == {}
    clock.save()
    assert content is not None or not (tmp_path / CLOCK).exists()


def test_results_state_it(tiny: Recipe, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = json.loads((whole / "results.json").read_text())["seconds"]
    assert 0 < seconds < 300 and not (whole / CLOCK).exists()
    out, write = tmp_path / "run", MetricsLog.write

    def torn(log: MetricsLog, line: dict[str, float]) -> None:
        write(log, line)
        if line["step"] == 40:
            (out / CLOCK).write_text('{"seconds": 1000}')
            raise PrismaError("stopped")

    with monkeypatch.context() as patch, pytest.raises(PrismaError, match="stopped"):
        patch.setattr(MetricsLog, "write", torn)
        train(tiny, out, device="cpu", progress=False)
    assert 1000 < train(tiny, out, resume=True, device="cpu", progress=False)["seconds"] < 1300
