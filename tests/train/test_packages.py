import pytest

from prisma.errors import PrismaError
from prisma.train.packages import expect_packages


def test_a_package_that_is_not_there_is_named_before_any_work() -> None:
    expect_packages("torch", "numpy")
    with pytest.raises(PrismaError, match=r"expected the package no_such_package, found none; pip install"):
        expect_packages("torch", "no_such_package")
