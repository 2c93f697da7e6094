"""Tables, settings, and the advice after an interruption."""

import re
import signal

import pytest
import typer

from prisma.cli.shared import interruptible, settings_of, table


def test_a_table_has_its_columns_under_each_other() -> None:
    lines = table(
        [{"mouse": "digits", "n": 1, "of": "[bold]:x:"}, {"mouse": "circle", "n": 1234, "of": ""}]
    ).splitlines()
    assert lines == ["mouse      n  of", "digits     1  [bold]:x:", "circle  1234"]


def test_a_long_cell_is_one_line_in_a_pipe_and_folded_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"name": "x" * 300, "summary": "word " * 100}]
    assert len(table(rows).splitlines()) == 2
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    folded = re.sub(r"\x1b\[[0-9;]*m", "", table(rows))
    assert all(len(line) <= 80 for line in folded.splitlines())
    assert (folded.count("x"), folded.count("word")) == (300, 100)


def test_settings_are_pairs() -> None:
    assert settings_of(["a=1", " b = x=y "]) == {"a": "1", "b": "x=y"}
    with pytest.raises(typer.BadParameter, match="key=value; found 'steps'"):
        settings_of(["steps"])


def test_a_stop_becomes_advice(capsys: pytest.CaptureFixture[str]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        before = signal.getsignal(number)
        with pytest.raises(typer.Exit) as ended, interruptible("go on like this"):
            signal.raise_signal(number)
        assert ended.value.exit_code == 128 + number and signal.getsignal(number) == before
        assert capsys.readouterr().err == "prisma: stopped; go on like this\n"
