"""The example of docs/mechanism.md is what its numbers render to, and they are of the mouse in the package."""

from prisma.checkpoint import WEIGHTS
from prisma.files import sha256
from prisma.mechanisms import Mechanism
from prisma.mechanisms.page import pictured
from prisma.repository import MICE
from tools.mechanism import DOCS, NUMBERS, PAGE, TRAINED, page

CARD, OVER_TRAINING = (Mechanism.parse(source.read_bytes()) for source in (NUMBERS, TRAINED))


def test_the_page_is_what_the_numbers_render_to() -> None:
    text = PAGE.read_text()
    assert text == page(text, CARD, OVER_TRAINING), "run python -m tools.mechanism"
    assert CARD.weights == sha256(MICE / "digits" / WEIGHTS), "run python -m tools.mechanism --measure"
    shown = {*pictured(CARD), "dynamics"}
    assert all(f"(mechanism/{name}.png)" in text and (DOCS / "mechanism" / f"{name}.png").is_file() for name in shown)


def test_the_mouse_with_checkpoints_learned_and_came_to_need_its_heads() -> None:
    said = {finding.names: finding for finding in OVER_TRAINING.step("dynamics").findings if finding.says == "change"}
    first, last, *_ = said["accuracy",].numbers
    assert first < 0.2 and last > 0.9 and len(said) > 1
    assert OVER_TRAINING.task == CARD.task == "digits" and "dynamics" in pictured(OVER_TRAINING)
