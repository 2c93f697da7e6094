"""What the catalog knows of an analysis."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from prisma.analysis.result import Result
from prisma.study.inputs import ShardInputs


@dataclass(frozen=True)
class Analysis:
    """An analysis that can run over a data set."""

    summary: str  # one sentence
    options: Mapping[str, Any]  # the names from `options.OPTIONS` that it takes, with their defaults
    result: type[Result]
    function: Callable[[ShardInputs], Result]
    of_weights: bool = False  # whether it also runs without images
