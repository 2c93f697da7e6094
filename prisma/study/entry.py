"""What the catalog knows of an analysis."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from prisma.analysis.class_space.passes import Reader
from prisma.analysis.result import Result
from prisma.study.inputs import ShardInputs


class ResultReader(Reader, Protocol):
    """A reader of a run that has a result in the end."""

    def result(self) -> Result:
        """The result."""


@dataclass(frozen=True)
class Analysis:
    """An analysis that can run over a data set."""

    summary: str  # one sentence
    options: Mapping[str, Any]  # the names from `options.OPTIONS` that it takes, with their defaults
    result: type[Result]
    function: Callable[[ShardInputs], Result]
    of_weights: bool = False  # whether it also runs without images
    networks: bool = False  # whether it also reads networks of other libraries, as these have them
    reader: Callable[[ShardInputs], ResultReader | None] | None = None  # for a run that several analyses share, if any
