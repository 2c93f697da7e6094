"""What is made when it is first asked for: once, by whoever comes first, and again where that failed."""

import threading

import pytest
from prisma_app.later import Later, LaterApp
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from prisma import PrismaError


def test_many_who_ask_at_once_get_the_same() -> None:
    made, leave, found = [], threading.Event(), []

    def make() -> object:
        made.append(object())
        leave.wait(5)
        return made[-1]

    later = Later(make)
    threads = [threading.Thread(target=lambda: found.append(later())) for _ in range(4)]
    for thread in threads:
        thread.start()
    leave.set()
    for thread in threads:
        thread.join()
    assert len(made) == 1 and found == made * 4


def test_what_failed_is_tried_again() -> None:
    answers = iter([PrismaError("not yet"), 7])

    def make() -> object:
        answer = next(answers)
        if isinstance(answer, PrismaError):
            raise answer
        return answer

    later = Later(make)
    with pytest.raises(PrismaError, match="not yet"):
        later()
    assert later() == later() == 7


def test_an_application_is_made_by_its_first_request() -> None:
    made = []

    def make() -> Starlette:
        made.append(1)
        return Starlette(routes=[Route("/there", lambda _: PlainTextResponse("here"))])

    client = TestClient(Starlette(routes=[Mount("/prisma", app=LaterApp(make))]))
    assert made == []
    assert [client.get("/prisma/there").text, client.get("/prisma/there").text, made] == ["here", "here", [1]]
