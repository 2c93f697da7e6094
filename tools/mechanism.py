"""The example of docs/mechanism.md: the mechanism card of a shipped mouse, between two marks.

python -m tools.mechanism            write it from docs/mechanism.json
python -m tools.mechanism --measure  measure docs/mechanism.json and the pictures first (half a minute)
"""

import re
import sys
from pathlib import Path

from prisma.mechanisms import Mechanism, mechanism
from prisma.mechanisms import page as rendered
from prisma.mechanisms.findings import SOURCE
from prisma.mechanisms.pictures import pictures

DOCS = Path(__file__).parents[1] / "docs"
PAGE, NUMBERS = DOCS / "mechanism.md", DOCS / SOURCE
MOUSE = "mice/digits"
BEGIN, END = "<!-- example:begin (written by tools/mechanism.py from mechanism.json) -->", "<!-- example:end -->"


def example(card: Mechanism) -> str:
    """The page of the card, with headings one level lower."""
    return re.sub(r"^#", "##", rendered(card), flags=re.MULTILINE)


def page(text: str, card: Mechanism) -> str:
    """docs/mechanism.md with this example."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{example(card)}\n{END}{rest.partition(END)[2]}"


def main() -> None:
    if "--measure" in sys.argv[1:]:
        card = mechanism(MOUSE, say=print)
        NUMBERS.write_bytes(card.to_json())
        for name, data in pictures(card).items():
            (DOCS / name).parent.mkdir(exist_ok=True)
            (DOCS / name).write_bytes(data)
    card = Mechanism.parse(NUMBERS.read_bytes())
    PAGE.write_text(page(PAGE.read_text(), card))


if __name__ == "__main__":
    main()
