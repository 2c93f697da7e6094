"""Publishing a run with all its checkpoints, auditing what is published, and taking a checkpoint back."""

from prisma.publish.auditing import Finding, audit
from prisma.publish.diffing import Difference, diff
from prisma.publish.forecasting import Forecast, forecast
from prisma.publish.publishing import Report, preview, publish
from prisma.publish.watching import watch
from prisma.publish.yanking import YankReport, yank

__all__ = [
    "Difference",
    "Finding",
    "Forecast",
    "Report",
    "YankReport",
    "audit",
    "diff",
    "forecast",
    "preview",
    "publish",
    "watch",
    "yank",
]
