"""Mechanism cards: what the parts of a mouse do, measured by a stated list of analyses, in sentences of one table."""

from prisma.mechanisms.findings import Finding, Mechanism, Row, StepFindings, Table
from prisma.mechanisms.mechanism import mechanism
from prisma.mechanisms.page import page, section

__all__ = ["Finding", "Mechanism", "Row", "StepFindings", "Table", "mechanism", "page", "section"]
