"""Which run is changed, and which one the new values come from."""

import pytest
import torch

from prisma import PrismaError
from prisma.analysis.patching.pairs import source_of, target_and_source


def test_values_come_from_the_other_run() -> None:
    clean, corrupt = torch.zeros(2, 1), torch.ones(2, 1)
    for into, expected in {"clean": (clean, corrupt), "corrupt": (corrupt, clean)}.items():
        assert all(x is y for x, y in zip(target_and_source(clean, corrupt, into), expected, strict=True))
    assert (source_of("clean"), source_of("corrupt")) == ("corrupt", "clean")
    with pytest.raises(PrismaError, match="expected into to be clean or corrupt; found 'both'"):
        target_and_source(clean, corrupt, "both")
    with pytest.raises(PrismaError, match=r"pairs of one shape; found \[2, 1\] and \[1, 1\]"):
        target_and_source(clean, corrupt[:1], "clean")
    with pytest.raises(PrismaError, match="expected at least one pair of clean and corrupt; found none"):
        target_and_source(clean[:0], corrupt[:0], "clean")


def test_one_input_for_several_is_told_how_to_be_written() -> None:
    clean, one = torch.zeros(3, 2, 4, 4), torch.ones(1, 2, 4, 4)
    for corrupt in (one, one[0]):
        with pytest.raises(PrismaError, match=r"if it is meant for all, use corrupt\.expand_as\(clean\)$"):
            target_and_source(clean, corrupt, "clean")
        with pytest.raises(PrismaError, match=r"use clean\.expand_as\(corrupt\)$"):
            target_and_source(corrupt, clean, "clean")
    with pytest.raises(PrismaError, match=r"found \[3, 2, 4, 4\] and \[2, 2, 4, 4\]$"):
        target_and_source(clean, torch.ones(2, 2, 4, 4), "clean")
