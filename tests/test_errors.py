"""Error messages offer the nearest names, and optional packages are named before any work."""

import pytest

from prisma.errors import PrismaError, expect_packages, nearest


def test_the_nearest_names_come_first() -> None:
    assert nearest("attn.Z", ["attn.q", "mlp.post", "attn.z", "embed"], n=2) == "attn.z, attn.q"


def test_something_is_always_offered() -> None:
    assert nearest("xyz", ["embed"]) == "embed"
    assert nearest("xyz", []) == "none"


def test_it_is_a_value_error() -> None:
    assert issubclass(PrismaError, ValueError)


def test_a_package_that_is_not_there_is_named_before_any_work() -> None:
    expect_packages("torch", "numpy")
    with pytest.raises(
        PrismaError, match=r"expected the package no_such_package; found none: install it with pip install .*\[train\]"
    ):
        expect_packages("torch", "no_such_package", extra="train")
