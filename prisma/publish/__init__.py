"""Publishing a finished run with all its checkpoints, and auditing what is published."""

from prisma.publish.auditing import Finding, audit
from prisma.publish.forecasting import Forecast, forecast
from prisma.publish.publishing import Report, preview, publish

__all__ = ["Finding", "Forecast", "Report", "audit", "forecast", "preview", "publish"]
