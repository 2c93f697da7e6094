"""What a mechanism card states: findings and tables of numbers, as JSON values. No sentence is stored.

Numbers are rounded to three digits, and four decimals, where they are made: the page prints exactly what the JSON has,
and rounding in the last bits changes neither. A number with an interval is three numbers: the value, and the ends of
the interval.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from prisma.bounds import JSON
from prisma.errors import PrismaError, quoted, shown
from prisma.fields import from_dict
from prisma.files import to_json
from prisma.reading import parse_json

FORMAT = 1
DIGITS, DECIMALS = 3, 4
"""What is smaller is 0, so a head that writes nothing is not needed, whichever way its last bits go."""
SOURCE = "mechanism.json"
"""The file that holds all numbers of a card."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_., >|-]{0,79}")
_REPO = re.compile(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)?")
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Finding:
    """One sentence of a card: which of `sentences.SENTENCES`, and what is put into it."""

    says: str
    names: tuple[str, ...] = ()  # of heads, scores, edges
    numbers: tuple[float, ...] = ()
    in_card: bool = False  # whether the model card has it too, and not the page alone


@dataclass(frozen=True)
class Row:
    """A row of a table: a name, and cells of no number, of a number, or of a number with the ends of its interval."""

    name: str
    cells: tuple[tuple[float, ...], ...]
    words: str = ""  # which of `sentences.WORDS` stands in the last column


@dataclass(frozen=True)
class Table:
    name: str  # which of `sentences.COLUMNS`
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class StepFindings:
    """What one step found; of a step that does not apply, the one sentence that says why."""

    step: str
    findings: tuple[Finding, ...]
    tables: tuple[Table, ...] = ()

    def table(self, name: str) -> tuple[Row, ...]:
        """The rows of a table; none if there is no such table."""
        return next((table.rows for table in self.tables if table.name == name), ())

    def row(self, table: str, name: str) -> Row:
        """A row by name. Raises PrismaError if there is none."""
        for row in self.table(table):
            if row.name == name:
                return row
        raise PrismaError(f"expected a row {quoted(name)} in the table {table} of {self.step}; found none")


@dataclass(frozen=True)
class Mechanism:
    """A mechanism card as values: how it was made, and what each step found.

    `page(...)` and `section(...)` put it into words; nothing else decides what they say.
    """

    model: str  # a name that may be printed: OWNER/NAME, mice/NAME, or the name of a folder
    weights: str  # SHA-256 of the weights that were analysed
    task: str
    measure: str  # what is counted of each image: see `measures`
    images: int
    pairs: int  # that were asked for
    seed: int
    n_layers: int
    n_heads: int
    has_mlps: bool
    steps: tuple[StepFindings, ...]
    version: str  # of Prisma
    format: int = FORMAT

    def __post_init__(self) -> None:
        _expect_printable(self)

    def step(self, name: str) -> StepFindings:
        """What a step found. Raises PrismaError if there is no such step."""
        for one in self.steps:
            if one.step == name:
                return one
        raise PrismaError(f"expected a step among {', '.join(one.step for one in self.steps)}; found {quoted(name)}")

    def to_json(self) -> bytes:
        """The bytes of `mechanism.json`: the same card gives the same bytes."""
        return to_json(asdict(self))

    @classmethod
    def parse(cls, data: bytes) -> "Mechanism":
        """The inverse of `to_json`. The bytes may be a stranger's.

        Raises:
            PrismaError: they are not those of a card of this format, or hold names that cannot be printed as they are.
        """
        if len(data) > JSON:
            raise PrismaError(f"expected {SOURCE} of at most {JSON:,} bytes; found {len(data):,}")
        try:
            values: Any = parse_json(data.decode(), SOURCE)
        except UnicodeDecodeError:
            raise PrismaError(f"expected text in UTF-8 in {SOURCE}; found other bytes") from None
        if isinstance(values, dict) and values.get("format") != FORMAT:
            raise PrismaError(
                f"expected format {FORMAT} in {SOURCE}; found {shown(values.get('format'))}: run `prisma mechanism` "
                f"again"
            )
        return from_dict(cls, values, SOURCE)


def rounded(value: float | Tensor) -> float:
    """Three digits and at most four decimals, as the page prints them; a whole number stays whole.

    Raises:
        PrismaError: it is not finite.
    """
    x = float(value)
    if not math.isfinite(x):
        raise PrismaError(f"expected finite numbers for a mechanism card; found {x}")
    return (x if x == int(x) else round(float(f"{x:.{DIGITS}g}"), DECIMALS)) + 0.0  # and never -0


def with_interval(value: float | Tensor, ends: Tensor | Sequence[float]) -> tuple[float, float, float]:
    """(the value, the lower and the upper end), rounded."""
    low, high = (float(x) for x in ends)
    return rounded(value), rounded(low), rounded(high)


def flat(*parts: float | Iterable[float]) -> tuple[float, ...]:
    """Numbers and intervals, one after the other."""
    return tuple(float(x) for part in parts for x in (part if isinstance(part, Iterable) else (part,)))


def _expect_printable(card: Mechanism) -> None:
    """Raise PrismaError unless all names are of the kind that this module makes, so that the page can print them."""
    names = [name for one in card.steps for finding in one.findings for name in finding.names]
    names += [row.name for one in card.steps for table in one.tables for row in table.rows]
    for name in (*names, card.task, card.version):
        if not _NAME.fullmatch(name):
            raise PrismaError(f"expected names of parts, of a task and of a version in {SOURCE}; found {quoted(name)}")
    if not _REPO.fullmatch(card.model) or len(card.model) > 200:
        raise PrismaError(f"expected the name of a model in {SOURCE}; found {quoted(card.model)}")
    if not _HASH.fullmatch(card.weights):
        raise PrismaError(f"expected the SHA-256 of the weights in {SOURCE}; found {quoted(card.weights)}")
    numbers = [x for one in card.steps for finding in one.findings for x in finding.numbers]
    numbers += [x for one in card.steps for table in one.tables for row in table.rows for c in row.cells for x in c]
    if not all(math.isfinite(x) for x in numbers):
        raise PrismaError(f"expected finite numbers in {SOURCE}; found others")
