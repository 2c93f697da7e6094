"""Which conversions were verified, and their errors: the table that `make parity` measured, part of the package."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

TABLE = Path(__file__).with_suffix(".json")


@dataclass(frozen=True)
class Proof:
    """One architecture of one family: the largest relative differences, or why it is refused."""

    family: str
    library: str
    case: str
    float64: float | None = None
    float32: float | None = None
    refused: str | None = None


@cache
def proofs() -> tuple[Proof, ...]:
    """Every architecture that `make parity` compares, in its order."""
    return tuple(Proof(**row) for row in json.loads(TABLE.read_text())["proofs"])


def versions() -> dict[str, str]:
    """The versions of the libraries with which the table was measured."""
    found: dict[str, str] = json.loads(TABLE.read_text())["versions"]
    return found


def summary(rows: Sequence[Proof]) -> list[dict[str, Any]]:
    """One row per family: how many architectures are exact, their largest errors, and how many are refused."""
    families = dict.fromkeys((row.library, row.family) for row in rows)
    return [_family(library, family, [row for row in rows if row.family == family]) for library, family in families]


def _family(library: str, family: str, rows: Sequence[Proof]) -> dict[str, Any]:
    exact = [row for row in rows if row.refused is None]
    return {
        "library": library,
        "family": family,
        "exact": len(exact),
        "float64": max((row.float64 or 0.0 for row in exact), default=None),
        "float32": max((row.float32 or 0.0 for row in exact), default=None),
        "refused": len(rows) - len(exact),
    }
