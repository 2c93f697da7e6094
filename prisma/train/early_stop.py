"""Ending a run early: is it accurate enough, or has the number that has to get better not done so for long?"""

from collections.abc import Iterable, Mapping
from typing import Any

from prisma.train.config import TrainConfig


class EarlyStop:
    """Of one run: it is shown the line of every checkpoint, in order, and says when the run ends, and why."""

    def __init__(self, config: TrainConfig, lines: Iterable[Mapping[str, Any]] = ()) -> None:
        """lines: of the steps before, as `metrics.jsonl` has them, so that a resumed run ends where it would have."""
        self.config, self._best = config, (float("inf"), 0)  # the best value, lower is better, and its step
        for line in lines:
            self.ends(line)

    def ends(self, line: Mapping[str, Any]) -> str | None:
        """Why the run ends at this line's step; None if it goes on."""
        return self._is_enough(line) or self._is_stuck(line)

    def _is_enough(self, line: Mapping[str, Any]) -> str | None:
        enough, accuracy = self.config.stop_at_accuracy, line.get("test_accuracy", 0.0)
        if not enough or accuracy < enough:
            return None
        return f"a test_accuracy of {accuracy:.6g}, which is at least {enough:.6g}"

    def _is_stuck(self, line: Mapping[str, Any]) -> str | None:
        """A value as good as the best is none better."""
        name = self.config.stop_on
        if not self.config.patience or name not in line:
            return None
        sign = 1 if name.endswith("loss") else -1
        if sign * line[name] < self._best[0]:
            self._best = sign * line[name], line["step"]
        best, step = sign * self._best[0], self._best[1]
        if line["step"] - step < self.config.patience:
            return None
        return f"no better {name} than {best:.6g}, which was that of step {step}, in {line['step'] - step} steps"
