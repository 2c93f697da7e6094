"""`python -m prisma` is the command."""

import runpy
import sys

import pytest

from prisma import __version__


def test_it_is_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["prisma", "--version"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("prisma", run_name="__main__")
    assert not ended.value.code and __version__ in capsys.readouterr().out
