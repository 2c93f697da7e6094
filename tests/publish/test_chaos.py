"""A small sample of `benchmarks.chaos`: killed or disturbed at any moment, publishing is completed by the same call."""

from pathlib import Path

from benchmarks import chaos
from tests.hubserver.running import Hub


def test_kills_in_a_folder_hub(tmp_path: Path) -> None:
    found = chaos.kills(3, 1, tmp_path, None)
    assert (found.trials, found.completed) == (3, 3)
    assert found.stopped


def test_kills_on_the_hub(server: Hub, tmp_path: Path) -> None:
    found = chaos.kills(3, 1, tmp_path, server)
    assert (found.completed, found.uploads, found.twice) == (3, 12, 0)
    assert found.stopped


def test_faults_of_the_disk(tmp_path: Path) -> None:
    assert chaos.disk_faults(4, 1, tmp_path).completed == 4


def test_faults_of_the_hub(server: Hub, tmp_path: Path) -> None:
    found = chaos.server_faults(16, 1, tmp_path, server)
    assert (found.completed, found.uploads, found.twice) == (16, 64, 0)


def test_kills_and_faults_of_audits(server: Hub, run: Path, tmp_path: Path) -> None:
    for place in (None, server):
        found = chaos.audited_kills(2, 1, tmp_path / str(place), run, place)
        assert (found.completed, found.labels, found.twice) == (2, 2 * 6, 0)
    found = chaos.audited_faults(8, 1, tmp_path, run, server)
    assert (found.completed, found.labels, found.twice) == (8, 8 * 6, 0)


def test_the_table() -> None:
    lines = [chaos.Line("killed, the Hub", 3, 2, 4, 3, 12, 0)]
    assert chaos.table(lines).splitlines()[2] == "| killed, the Hub | 3 | 2 | 4 | 3 | 12 | 0 |"
