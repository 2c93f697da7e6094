"""Tables, settings, and what a stop says."""

import pytest
import typer

from prisma import PrismaError
from prisma.cli.shared import interruptible, settings_of, table


def test_a_table_has_its_columns_under_each_other() -> None:
    lines = table([{"mouse": "digits", "n": 1}, {"mouse": "circle", "n": 1234}]).splitlines()
    assert lines == ["mouse   n", "digits  1", "circle  1234"]


def test_settings_are_pairs() -> None:
    assert settings_of(["a=1", " b = x=y "]) == {"a": "1", "b": "x=y"}
    with pytest.raises(typer.BadParameter, match="key=value, found 'steps'"):
        settings_of(["steps"])


def test_a_stop_becomes_advice() -> None:
    with pytest.raises(PrismaError, match=r"^stopped; go on like this$"), interruptible("go on like this"):
        raise KeyboardInterrupt
