"""A mechanism card in Markdown: the page, and the section of the model card. Both are functions of its values alone."""

from prisma.mechanisms.catalog import STEPS, Step
from prisma.mechanisms.findings import SOURCE, Mechanism, Row, StepFindings, Table
from prisma.mechanisms.sentences import (
    COLUMNS,
    Columns,
    is_reason,
    measure_of,
    row_words,
    sentences,
    shown_cell,
    shown_number,
)

PAGE = "mechanism.md"
PICTURES = "mechanism"
"""The folder of the pictures."""
MOST_ROWS = 32
ALT = {
    "heads": "How much worse the answers get without each head, with intervals",
    "circuit": "The circuit as a graph: heads and MLPs by layer, and the edges between them",
    "dynamics": "The answers, and how much worse they get without single heads, over training",
}
"""Step -> what its picture shows."""


def pictured(card: Mechanism) -> tuple[str, ...]:
    """The steps of a card that have a picture."""
    tables = {"heads": "heads", "circuit": "edges", "dynamics": "curves"}
    return tuple(one.step for one in card.steps if one.step in tables and one.table(tables[one.step]))


def page(card: Mechanism) -> str:
    """`mechanism.md`. Raises PrismaError where the values of a card are not those of this version of Prisma."""
    by_name = {step.name: step for step in STEPS}
    parts = [
        f"# Mechanism of {card.model}",
        f"What the parts of this mouse do, by `prisma mechanism`, on {card.images:,} test images of the task "
        f"`{card.task}` and at most {card.pairs:,} pairs of them (seed {card.seed}). Every sentence is one of a fixed "
        f"list, filled in with numbers that are in [`{SOURCE}`]({SOURCE}). Numbers in brackets are the ends of an "
        f"interval of 95 %.",
    ]
    for one in card.steps:
        if one.step in by_name:
            parts += _step(card, by_name[one.step], one)
    parts.append(
        f"Version {card.version} of Prisma; the SHA-256 of the weights begins with `{card.weights[:12]}`. One training "
        "run: other seeds may give other heads the same work."
    )
    return "\n\n".join(parts) + "\n"


def section(card: Mechanism) -> str:
    """What the model card gets: a heading, the main findings, a picture, and the way to the page."""
    lines = [line for one in card.steps for line in sentences(card, one.step, in_card=True)]
    parts = [
        "## Mechanism",
        f"What its parts do, by `prisma mechanism` on {card.images:,} test images, with intervals of 95 %. "
        f"[The page]({PAGE}) has all findings, how they were measured and how to read them; "
        f"[`{SOURCE}`]({SOURCE}) has the numbers.",
        "\n".join(f"- {line}" for line in lines) or "No step applies to this mouse; the page says why.",
    ]
    if "heads" in pictured(card):
        parts.append(_picture("heads"))
    return "\n\n".join(parts) + "\n"


def _step(card: Mechanism, step: Step, found: StepFindings) -> list[str]:
    """Heading, sentences, picture, how to read them, and tables."""
    parts = [f"## {step.title}", "\n".join(f"- {line}" for line in sentences(card, step.name))]
    if any(is_reason(finding) for finding in found.findings):
        return parts
    if step.name in pictured(card):
        parts.append(_picture(step.name))
    made = f" Made with {', '.join(f'`{name}`' for name in step.analyses)}." if step.analyses else ""
    parts.append(f"*How to read it.* {step.reading}{made}")
    return parts + [_table(card, table) for table in found.tables if table.name in COLUMNS]


def _picture(name: str) -> str:
    return f"![{ALT[name]}]({PICTURES}/{name}.png)"


def _table(card: Mechanism, table: Table) -> str:
    columns, of = COLUMNS[table.name], measure_of(card.measure)
    heads = [columns.name, *(cell.format(noun=of.noun, worse=of.worse) for cell in columns.cells)]
    heads += [columns.words] if columns.words else []
    lines = [_line(heads), _line(["---", *["---:"] * len(columns.cells), *["---"] * bool(columns.words)])]
    lines += [_line(_cells(row, columns)) for row in table.rows[:MOST_ROWS]]
    more = len(table.rows) - MOST_ROWS
    if more > 0:
        lines.append(f"\n{more:,} more rows are in [`{SOURCE}`]({SOURCE}).")
    return "\n".join(lines)


def _cells(row: Row, columns: Columns) -> list[str]:
    cells = [shown_cell(cell) for cell in row.cells[: len(columns.cells)]]
    cells += [""] * (len(columns.cells) - len(cells))
    return [row.name.replace("|", "\\|").replace(" > ", " → "), *cells, *([row_words(row)] if columns.words else [])]


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def told(card: Mechanism) -> str:
    """All findings as plain lines, for a terminal."""
    lines = [f"{card.model}, {shown_number(card.images)} test images of {card.task}:"]
    for step in STEPS:
        lines += ["", step.title, *(f"- {line}" for line in sentences(card, step.name))]
    return "\n".join(lines)
