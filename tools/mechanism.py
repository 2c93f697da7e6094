"""The examples of docs/mechanism.md: the mechanism card of a shipped mouse, and of one with checkpoints its dynamics.

python -m tools.mechanism            write them from docs/mechanism.json and docs/mechanism/trained.json
python -m tools.mechanism --measure  first measure a mouse of the package, and the same recipe trained here (a minute)
"""

import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from prisma.mechanisms import Mechanism, mechanism
from prisma.mechanisms import page as rendered
from prisma.mechanisms.catalog import STEPS
from prisma.mechanisms.findings import SOURCE
from prisma.mechanisms.pictures import pictures
from prisma.recipes import recipe
from prisma.train import train

DOCS = Path(__file__).parents[1] / "docs"
PAGE, NUMBERS, TRAINED = DOCS / "mechanism.md", DOCS / SOURCE, DOCS / "mechanism" / "trained.json"
RECIPE = "digits"
OVER_TRAINING = "dynamics"


def marks(name: str, source: Path) -> tuple[str, str]:
    return (
        f"<!-- {name}:begin (written by tools/mechanism.py from {source.relative_to(DOCS)}) -->",
        f"<!-- {name}:end -->",
    )


def example(card: Mechanism) -> str:
    """The page of the card, with headings one level lower."""
    return re.sub(r"^#", "##", rendered(card), flags=re.MULTILINE)


def dynamics(card: Mechanism) -> str:
    """What the page of the card says of its training, without the heading."""
    title = next(step.title for step in STEPS if step.name == OVER_TRAINING)
    return rendered(card).partition(f"## {title}\n\n")[2].rpartition("\n\nVersion ")[0] + "\n"


def page(text: str, card: Mechanism, trained: Mechanism) -> str:
    """docs/mechanism.md with these examples."""
    parts = (("example", NUMBERS, example(card)), ("dynamics", TRAINED, dynamics(trained)))
    for name, source, content in parts:
        begin, end = marks(name, source)
        before, _, rest = text.partition(begin)
        text = f"{before}{begin}\n\n{content}\n{end}{rest.partition(end)[2]}"
    return text


def measure() -> None:
    """Both cards; of the mouse that is trained here, the picture of its training alone."""
    with TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        train(recipe(RECIPE), run, progress=False)
        for ref, source in ((f"mice/{RECIPE}", NUMBERS), (run, TRAINED)):
            card = mechanism(ref, say=print)
            source.parent.mkdir(exist_ok=True)
            source.write_bytes(card.to_json())
            for name, data in pictures(card).items():
                if source == NUMBERS or OVER_TRAINING in name:
                    (DOCS / name).write_bytes(data)


def main() -> None:
    if "--measure" in sys.argv[1:]:
        measure()
    cards = [Mechanism.parse(source.read_bytes()) for source in (NUMBERS, TRAINED)]
    PAGE.write_text(page(PAGE.read_text(), *cards))


if __name__ == "__main__":
    main()
