"""Bars, and what is printed after them."""

import io
import sys

import pytest

from prisma.progress import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def said(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch, *, fails: bool, shown: bool = True) -> str:
    """What is on stderr after three of four items, and a message."""
    monkeypatch.setattr(sys, "stderr", stream)
    try:
        with progress(4, "heads", "image", done=1, shown=shown) as bar:
            for item in range(3):
                if fails and item == 2:
                    raise ValueError
                bar.update()
    except ValueError:
        print("refused", file=stream)
    return stream.getvalue()


def test_a_message_after_an_error_has_its_own_line(monkeypatch: pytest.MonkeyPatch) -> None:
    to_file = said(io.StringIO(), monkeypatch, fails=True)
    assert to_file.endswith("\nrefused\n") and "heads:" in to_file and "3/4" in to_file
    on_terminal = said(Terminal(), monkeypatch, fails=True).rpartition("\r")
    assert on_terminal[2] == "refused\n" and on_terminal[0].rpartition("\r")[2].strip() == "", "the bar is wiped"


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_a_bar_that_has_ended_stays(stream: type[io.StringIO], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = said(stream(), monkeypatch, fails=False)
    assert whole.endswith("\n") and "4/4" in whole.rpartition("\r")[2]
    assert said(stream(), monkeypatch, fails=False, shown=False) == ""
