"""Pictures are drawn from the values, and the same values give the same bytes."""

from functools import partial

from prisma.mechanisms import Mechanism, mechanism
from prisma.mechanisms.pictures import pictures
from tests.mechanisms.test_findings import CARD
from tests.mechanisms.test_over_training import at
from tests.planted_mouse import subject


def test_each_step_with_a_picture_has_one() -> None:
    card = mechanism(subject(checkpoints={step: partial(at, step) for step in (0, 8, 64)}), limit=16, pairs=12)
    drawn = pictures(card)
    assert set(drawn) == {"mechanism/heads.png", "mechanism/circuit.png", "mechanism/dynamics.png"}
    assert all(data.startswith(b"\x89PNG") and 5_000 < len(data) < 500_000 for data in drawn.values())
    assert pictures(Mechanism.parse(card.to_json())) == drawn
    assert set(pictures(CARD)) == {"mechanism/heads.png"}
