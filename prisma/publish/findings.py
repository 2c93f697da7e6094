"""What an audit finds, and how a problem is put into words that are safe to print."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from prisma.errors import LONGEST_MESSAGE, PrismaError, printable
from prisma.publish.calls import RefusedError, UnreachableError

LONGEST_LABEL = 200  # characters of a label, as a finding shows it
NOT_THERE = 404


@dataclass(frozen=True)
class Finding:
    """A problem of one revision. Both texts are printable and short, whatever a stranger wrote."""

    revision: str  # a label, such as main or step-000128; of several repositories, or folders, their names
    problem: str  # what was expected and what was found

    def __post_init__(self) -> None:
        object.__setattr__(self, "revision", printable(self.revision, LONGEST_LABEL))
        object.__setattr__(self, "problem", printable(self.problem, LONGEST_MESSAGE))

    def to_dict(self) -> dict[str, str]:
        return asdict(self)


@contextmanager
def noted(problems: list[str], folder: Path | None = None) -> Iterator[None]:
    """Within, an error about what is published becomes a problem; the Hub's silence or refusal does not.

    Args:
        folder: a folder of files of the repository, whose own path is left out of the problem.
    """
    try:
        yield
    except UnreachableError:
        raise
    except RefusedError as error:
        if error.status != NOT_THERE:
            raise
        problems.append(str(error))
    except PrismaError as error:
        problems.append(str(error) if folder is None else str(error).replace(f"{folder}{os.sep}", ""))


def gathered(found: Iterable[str], folder: Path | None = None) -> list[str]:
    """All problems, and as the last one an error that ended the search for them; see `noted`."""
    problems = list[str]()
    with noted(problems, folder):
        for problem in found:
            problems.append(problem)  # not a comprehension: what was found before an error counts
    return problems
