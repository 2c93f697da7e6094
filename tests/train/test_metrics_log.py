from pathlib import Path

import pytest

from prisma.errors import PrismaError
from prisma.run_folder import read_metrics
from prisma.train.metrics_log import MetricsLog


def test_lines_are_there_as_soon_as_they_are_written(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(path, 0) as log:
        for step in range(3):
            log.write({"step": step, "loss": step / 3})
            assert read_metrics(path)[-1] == {"step": step, "loss": step / 3}
        log.sync()


def test_reopened_at_a_step_keeps_what_came_before(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(path, 0) as log:
        for step in range(5):
            log.write({"step": step, "loss": 1.0})
    with path.open("a") as file:
        file.write('{"step": 5, "lo')  # killed in the middle of a line
    with MetricsLog(path, 3) as log:
        log.write({"step": 3, "loss": 2.0})
    assert [(line["step"], line["loss"]) for line in read_metrics(path)] == [(0, 1), (1, 1), (2, 1), (3, 2)]


def test_a_line_that_cannot_be_written_is_one_sentence() -> None:
    full = Path("/dev/full")  # every write says that the disk is full
    log = MetricsLog.__new__(MetricsLog)
    log.path, log._file = full, full.open("a", buffering=1)
    with pytest.raises(PrismaError, match="could not write /dev/full: No space left on device"), log:
        log.write({"step": 0})
