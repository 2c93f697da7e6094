"""A run that Ctrl-C stops at a step, so that a test can resume it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from prisma.train import Recipe, train


def train_until(step: int, recipe: Recipe, out: Path) -> None:
    """Train until the line of `step` in `metrics.jsonl` is written, and no further."""

    def stop(line: Mapping[str, Any]) -> None:
        if line["step"] == step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, out, device="cpu", progress=False, watch=stop)
