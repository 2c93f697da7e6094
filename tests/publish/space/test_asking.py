"""Errors of the Hub's client as sentences, in which nothing of the request is left."""

import pickle
import re
import traceback

import pytest

from prisma import PrismaError
from prisma.publish.space.asking import asked, without_token
from tests.publish.space.fake_hub import refusal

TOKEN = "hf_secretsecretsecret"


def failing(error: Exception) -> PrismaError:
    def call() -> None:
        raise error

    with pytest.raises(PrismaError) as found:
        asked("make the Space a/b", call)
    return found.value


def test_an_answer_is_the_answer() -> None:
    assert asked("add", lambda a, b: a + b, 1, b=2) == 3
    assert asked("ask", lambda: None) is None


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (401, "hf auth login"),
        (402, "--static makes a static Space of precomputed views, free for all; --hardware zero-a10g"),
        (403, "a token that may write there"),
        (404, "check the name"),
        (412, "run the command again"),
        (429, "wait until the Hub takes requests again"),
        (500, r"could not make the Space a/b \(status 500: no\)"),
    ],
)
def test_a_refusal_says_what_to_do(status: int, advice: str) -> None:
    error = failing(refusal(status))
    assert str(error).startswith("could not make the Space a/b")
    assert re.search(advice, str(error))


def test_nothing_of_the_request_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    error = failing(refusal(500, f"Bearer {TOKEN} is bad", TOKEN))
    assert "Bearer <token> is bad" in str(error)
    assert error.__context__ is None and error.__cause__ is None
    assert TOKEN not in "".join(traceback.format_exception(error)) and TOKEN.encode() not in pickle.dumps(error)


def test_a_hub_that_does_not_answer_is_a_sentence() -> None:
    from huggingface_hub.utils._http import httpx2 as http

    assert "could not make the Space a/b (no route)" in str(failing(http.ConnectError("no route")))
    assert "could not make the Space a/b (cut)" in str(failing(OSError("cut")))


def test_a_mistake_in_our_code_is_no_refusal() -> None:
    with pytest.raises(KeyError):
        asked("ask", {}.__getitem__, 3)


def test_words_are_one_line() -> None:
    assert without_token("a\nb\x1b[0m", 503) == "status 503: a b\\x1b[0m"
