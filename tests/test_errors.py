"""Error messages offer the nearest names, and optional packages are named before any work."""

import pytest

from prisma.errors import (
    LONGEST_MESSAGE,
    PrismaError,
    PrismaWarning,
    by_number,
    expect_packages,
    is_text,
    listed,
    nearest,
    printable,
    quoted,
    shown,
    warn,
)


def test_the_nearest_names_come_first() -> None:
    assert nearest("attn.Z", ["attn.q", "mlp.post", "attn.z", "embed"], n=2) == "attn.z, attn.q"


def test_something_is_always_offered() -> None:
    assert nearest("xyz", ["embed"]) == "embed"
    assert nearest("xyz", []) == "none"


def test_it_is_a_value_error() -> None:
    assert issubclass(PrismaError, ValueError)


def test_a_warning_names_the_line_that_called_prisma() -> None:
    import torch

    namespace = {"__name__": "prisma.anything", "warn": warn, "torch": torch}
    exec("@torch.no_grad()\ndef inner():\n    warn('odd')\ndef outer():\n    inner()\n", namespace)
    with pytest.warns(PrismaWarning, match="odd") as found:
        namespace["outer"]()  # type: ignore[operator]
    assert found[0].filename == __file__


def test_a_package_that_is_not_there_is_named_before_any_work() -> None:
    expect_packages("torch", "numpy")
    with pytest.raises(
        PrismaError, match=r"expected the package no_such_package; found none: install it with pip install .*\[train\]"
    ):
        expect_packages("torch", "no_such_package", extra="train")


HOSTILE = "\x1b[31mred\u202etxt\u200b\nline\x00\udce9\ud800\u2028\x9b"


def test_names_are_shown_without_what_steers_a_terminal_or_turns_text_around() -> None:
    found = printable(HOSTILE)
    assert found == r"\x1b[31mred\u202etxt\u200b\nline\x00\xe9\ud800\u2028\x9b"
    assert found.isprintable()
    assert printable("a\u00a0b\u3000c") == "a b c"
    assert printable("Müller, 猫 🐈") == "Müller, 猫 🐈"


def test_every_message_is_one_printable_line_of_bounded_length() -> None:
    error = PrismaError(f"expected x; found {HOSTILE}")
    assert str(error).isprintable()
    assert str(error).startswith(r"expected x; found \x1b[31mred")
    long = str(PrismaError("expected " + "x" * 10**6 + "; use y"))
    assert len(long) == LONGEST_MESSAGE
    assert long.startswith("expected x") and long.endswith("x; use y") and "…" in long


def test_names_and_values_are_shortened() -> None:
    assert shown("cat") == "cat" and shown(3) == "3" and quoted("cat") == "'cat'"
    assert len(shown("x" * 1000)) == 80
    assert len(quoted("\x1b" * 1000)) == 80
    assert quoted(10**5000) == "a int that cannot be written"
    assert listed(["a", "b", "c"], 2) == "a, b and 1 more"
    assert listed(["a", "b"], 2, "; ") == "a; b"


def test_words_of_every_script_are_text_and_controls_are_not() -> None:
    assert all(is_text(word) for word in ("\u0645\u06cc\u200c\u062e", "crème\u00a0brûlée", "👩\u200d🚀", "", "a b"))
    assert not any(is_text(word) for word in ("a\nb", "\x1b[31m", "\ud800", "a\u202eb", "\u2028", "\x00"))


def test_names_with_numbers_are_sorted_as_people_count() -> None:
    names = [
        "main",
        "step-000128",
        "step-999999",
        "step-1000000",
        "a2b10",
        "a2b9",
        "a10",
        "a",
        "",
        "7",
        f"x{'9' * 5_000}",
    ]
    in_order = ["", "7", "a", "a2b9", "a2b10", "a10", "main", "step-000128", "step-999999", "step-1000000", names[-1]]
    assert sorted(names, key=by_number) == in_order
    assert sorted(["a٣", "a1", "a01"], key=by_number) == ["a01", "a1", "a٣"]  # other scripts' digits are text
