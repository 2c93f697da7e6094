"""Pairs of inputs, clean and corrupt: which of the two runs is changed, and which one the new values come from."""

from torch import Tensor

from prisma.errors import PrismaError

OTHER = {"clean": "corrupt", "corrupt": "clean"}


def target_and_source(clean: Tensor, corrupt: Tensor, into: str) -> tuple[Tensor, Tensor]:
    """(inputs of the runs that are changed, inputs of the runs that the new values come from).

    Raises:
        PrismaError: the shapes differ, there are no pairs, or `into` is neither clean nor corrupt.
    """
    expect_pairs(clean, corrupt)
    return (clean, corrupt) if source_of(into) == "corrupt" else (corrupt, clean)


def source_of(into: str) -> str:
    """The run that new values come from: clean or corrupt. Raises PrismaError if `into` is neither."""
    if into not in OTHER:
        raise PrismaError(f"expected into to be clean or corrupt; found {into!r}")
    return OTHER[into]


def expect_pairs(clean: Tensor, corrupt: Tensor) -> None:
    """Raise PrismaError unless there is a corrupt input of the same shape for each clean one, and at least one pair."""
    if clean.shape == corrupt.shape and not len(clean):
        raise PrismaError("expected at least one pair of clean and corrupt; found none")
    if clean.shape != corrupt.shape:
        shapes = f"{list(clean.shape)} and {list(corrupt.shape)}"
        raise PrismaError(f"clean and corrupt must hold pairs of one shape; found {shapes}{_hint(clean, corrupt)}")


def _hint(clean: Tensor, corrupt: Tensor) -> str:
    """What to write where one of the two holds one input for all of the other's."""
    for name, one, other, several in (("corrupt", corrupt, "clean", clean), ("clean", clean, "corrupt", corrupt)):
        if len(several) > 1 and one.shape in ((1, *several.shape[1:]), several.shape[1:]):
            return f": if it is meant for all, use {name}.expand_as({other})"
    return ""
