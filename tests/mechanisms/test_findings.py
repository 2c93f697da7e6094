"""The values of a card: they read back to themselves, and what is not a card is refused in one sentence."""

import json
import math
from dataclasses import replace

import pytest
import torch

from prisma.errors import PrismaError
from prisma.mechanisms.findings import Finding, Mechanism, Row, StepFindings, Table, flat, rounded, with_interval

CARD = Mechanism(
    "lab/tiny", "a" * 64, "digits", "accuracy", 24, 8, 0, 1, 2, True,
    (
        StepFindings("answers", (Finding("accuracy", (), (0.5, 0.25, 0.75, 12.0, 24.0, 0.125), in_card=True),)),
        StepFindings(
            "heads",
            (Finding("heads", (), (1.0, 2.0), in_card=True),),
            (Table("heads", (Row("0.1", ((), (), (0.3, 0.1, 0.5)), "needed"),)),),
        ),
    ),
    "0.1.0",
)  # fmt: skip


def test_it_reads_back_to_itself_and_the_same_card_gives_the_same_bytes() -> None:
    data = CARD.to_json()
    assert Mechanism.parse(data) == CARD and Mechanism.parse(data).to_json() == data
    assert CARD.step("heads").row("heads", "0.1").cells[2] == (0.3, 0.1, 0.5)
    for call in (lambda: CARD.step("lens"), lambda: CARD.step("heads").row("heads", "9.9")):
        with pytest.raises(PrismaError):
            call()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"format": 2}, "expected format 1"),
        ({"weights": "A" * 64}, "expected the SHA-256 of the weights"),
        ({"model": "lab/<script>"}, "expected the name of a model"),
        ({"model": "[x](http://evil)"}, "expected the name of a model"),
        ({"task": "digits`\n# Bought"}, "expected names of parts"),
        ({"version": "![](x)"}, "expected names of parts"),
        ({"steps": {}}, "expected steps to be a list"),
        ({"steps": [{"step": "heads"}]}, "lacks the field findings"),
        ({"images": "many"}, "expected images to be a whole number"),
        ({"owner": "me"}, "unknown field 'owner'"),
    ],
)
def test_what_is_no_card_is_refused(change: dict[str, object], sentence: str) -> None:
    values = json.loads(CARD.to_json()) | change
    with pytest.raises(PrismaError, match=sentence) as error:
        Mechanism.parse(json.dumps(values).encode())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b"[1, 2]", b"[" * 10_000, b'{"format": 1}', b" " * (17 << 20)])
def test_bytes_of_another_kind_are_refused(data: bytes) -> None:
    with pytest.raises(PrismaError):
        Mechanism.parse(data)


def test_names_of_rows_and_findings_are_checked_too() -> None:
    for names in (("a\nb",), ("<b>",), ("",), ("x" * 81,)):
        step = StepFindings("heads", (Finding("unnamed_needed", names, (1, 1, 1)),))
        with pytest.raises(PrismaError, match="expected names of parts"):
            replace(CARD, steps=(step,))


def test_numbers_have_three_digits_and_the_last_bits_are_nothing() -> None:
    assert [rounded(x) for x in (0.123456, -1234.5, 7, 1e-17, -9e-6, 0.000123)] == [0.123, -1230.0, 7, 0, 0, 0.0001]
    assert not any(math.copysign(1, rounded(x)) < 0 for x in (-0.0, -9e-6)), "minus nothing, in the JSON alone"
    assert with_interval(torch.tensor(0.5), torch.tensor([0.25001, 1e-9])) == (0.5, 0.25, 0)
    assert flat(1, (2, 3), ()) == (1.0, 2.0, 3.0)
    for wrong in (float("nan"), float("inf")):
        with pytest.raises(PrismaError, match="finite"):
            rounded(wrong)
