"""What programs can ask the app. That it is served is tested in `tests/publish/space/test_smoke.py`."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from prisma_app.api import answer_of
from prisma_app.models import Mouse

import prisma
from prisma import PrismaError
from tests.app.conftest import DIGITS


def test_the_answer_is_the_logits_of_the_asked_checkpoint(find: Callable[[Any], Mouse]) -> None:
    mouse = find(DIGITS)
    found = answer_of(mouse, 8.0, 3)
    loaded = prisma.load(DIGITS, revision="step-000008", hub=mouse.published.hub)
    assert loaded.transform is not None
    x = loaded.transform.normalise(mouse.published.probe()[0][3:4])
    assert torch.allclose(torch.tensor(found["logits"]), loaded.model(x)[0], atol=1e-6)
    assert (found["model"], found["step"], found["labels"]) == (DIGITS, 8, [str(i) for i in range(10)])
    assert found["image"].startswith("Test image 3")


@pytest.mark.parametrize(
    ("step", "image", "message"),
    [
        (3, 0, "publishes the steps 0, 1, 2, 4, 8, 16, 32, 40; found '3'"),
        (8.5, 0, "expected a training step, a whole number; found '8.5'"),
        (float("nan"), 0, "expected a training step, a whole number; found 'nan'"),
        (float("inf"), 0, "expected a training step, a whole number; found 'inf'"),
        (True, 0, "expected a training step, a whole number; found 'True'"),
        (8, -1, "expected an example from 0 to 19; found -1"),
        (8, 1e300, "expected the number of an example, a whole number"),
        (8, "0", "expected the number of an example, a whole number; found '0'"),
    ],
)
def test_what_anyone_may_send_is_checked(find: Callable[[Any], Mouse], step: Any, image: Any, message: str) -> None:
    with pytest.raises(PrismaError, match=message):
        answer_of(find(DIGITS), step, image)
