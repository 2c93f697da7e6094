"""The stated list names analyses that are there."""

import prisma
from prisma.mechanisms.catalog import STEPS


def test_the_steps_are_those_that_are_stated() -> None:
    assert [step.name for step in STEPS] == ["answers", "heads", "lens", "patching", "circuit", "dynamics"]
    for step in STEPS:
        assert all(name in prisma.__all__ for name in step.analyses)
        assert step.reading.endswith(".") and "\n" not in step.reading
