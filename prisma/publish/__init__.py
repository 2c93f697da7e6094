"""Publishing a finished run with all its checkpoints, and auditing what is published."""

from prisma.publish.auditing import audit
from prisma.publish.findings import Finding
from prisma.publish.publishing import Report, preview, publish

__all__ = ["Finding", "Report", "audit", "preview", "publish"]
