"""The app from the command line: what it cannot serve is told in one sentence. Served it is by `tests/app`."""

from collections.abc import Callable

import pytest


@pytest.mark.parametrize(
    ("command", "expected", "found"),
    [
        (["app", "--hub", "absent"], "folder hub", "absent"),
        (["app", "--prompts", "a cat, a dog"], "prompts are the classes of a CLIP", "model=None"),
        (["app", "--model", "./absent"], "checkpoint folder", "absent"),
    ],
)
def test_mistakes_get_one_sentence(mistake: Callable[..., str], command: list[str], expected: str, found: str) -> None:
    err = mistake(*command)
    assert expected in err
    assert found in err
