"""The example of docs/mechanism.md is what its numbers render to, and they are of the mouse in the package."""

from prisma.checkpoint import WEIGHTS
from prisma.files import sha256
from prisma.mechanisms import Mechanism
from prisma.mechanisms.page import pictured
from prisma.repository import MICE
from tools.mechanism import DOCS, NUMBERS, PAGE, page

CARD = Mechanism.parse(NUMBERS.read_bytes())


def test_the_page_is_what_the_numbers_render_to() -> None:
    text = PAGE.read_text()
    assert text == page(text, CARD), "run python -m tools.mechanism"
    assert CARD.weights == sha256(MICE / "digits" / WEIGHTS), "run python -m tools.mechanism --measure"
    assert all((DOCS / "mechanism" / f"{name}.png").is_file() for name in pictured(CARD))
