"""docs/estimates.md and the table of the index are what their script writes of the measured numbers."""

import json

import pytest
import torch

import prisma
from tools.estimates import NUMBERS, PAIRS, disjoint_pairs, pearson, ranks
from tools.estimates_page import BEGIN, END, INDEX, MICE, PAGE, PICTURE, lowest, page, trust_table

FOUND = json.loads(NUMBERS.read_text())


def test_the_page_and_the_table_are_what_the_numbers_say() -> None:
    assert PAGE.read_text() == page(FOUND), "run python -m tools.estimates"
    assert INDEX.read_text().split(BEGIN)[1].split(END)[0] == f"\n{trust_table(FOUND)}\n"
    assert PICTURE.exists() and FOUND["pairs"] == PAIRS >= 60
    assert list(dict.fromkeys(row["mouse"] for row in FOUND["rows"])) == list(MICE)


@pytest.mark.parametrize("mouse", ["circle", "induction"])
def test_the_numbers_are_those_of_the_mice(mouse: str) -> None:
    model, case = prisma.load(f"mice/{mouse}").model, disjoint_pairs(mouse, PAIRS)
    exact = prisma.activation_patching(model, *case[:2], "attn.z", case[2]).changes.flatten(1)
    found = prisma.relevance_patching(model, *case).heads.flatten(1)
    row = next(x for x in FOUND["rows"] if (x["mouse"], x["kind"], x["method"]) == (mouse, "heads", "RelP"))
    assert pearson(found.mean(0).double(), exact.mean(0).double()).item() == pytest.approx(row["signed"][0], abs=2e-3)
    sizes = [ranks(x.abs().mean(0).double()) for x in (found, exact)]
    assert pearson(*sizes).item() == pytest.approx(row["sizes"][0], abs=2e-3)


def test_pairs_are_disjoint_and_of_different_classes() -> None:
    clean, corrupt, metric = disjoint_pairs("digits", 64)
    assert len(torch.cat([clean, corrupt]).unique(dim=0)) >= 126  # two of the test images look alike
    assert (
        isinstance(metric, prisma.LogitDiff) and not (torch.tensor(metric.correct) == torch.tensor(metric.wrong)).any()
    )


def test_ranks_and_the_lowest() -> None:
    assert ranks(torch.tensor([3.0, 1.0, 3.0, 2.0])).tolist() == [3.5, 1, 3.5, 2]
    assert pearson(torch.ones(3).double(), torch.arange(3.0).double()) == 0
    rows = [
        {"kind": "heads", "method": m, "parts": n, "signed": [x, 0, 1]}
        for m, n, x in (("A", 8, 0.9), ("A", 8, 0.2), ("B", 8, 0.5), ("B", 4, 0.0))
    ]
    assert lowest(rows, "heads", "signed") == {"B": 0.5, "A": 0.2}
