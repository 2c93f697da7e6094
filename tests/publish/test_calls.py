"""Faults that pass are waited for, refusals are one sentence, and no error holds the token."""

import json
import pickle
import traceback
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest
from huggingface_hub import HfApi, constants, get_session
from huggingface_hub.errors import HfHubHTTPError

from prisma.errors import PrismaError
from prisma.publish.calls import HOUR, REASONS, TRIES, Calls, RefusedError, UnansweredError
from tests.hubserver.running import TOKEN, Hub


class Clock:
    """A clock that runs while somebody sleeps."""

    def __init__(self) -> None:
        self.now, self.slept = 1e9, list[float]()

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def calls(clock: Clock) -> Calls:
    return Calls(say=lambda _: None, sleep=clock.sleep, clock=lambda: clock.now)


def failing(*faults: Exception) -> Callable[[], str]:
    """A call that fails so, and then succeeds."""
    left = list(faults)

    def call() -> str:
        if left:
            raise left.pop(0)
        return "done"

    return call


def answer(status: int, text: str = "no", **headers: str) -> HfHubHTTPError:
    request = httpx2.Request("POST", "http://hub", headers={"Authorization": f"Bearer {TOKEN}"})
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return HfHubHTTPError(text, response=httpx2.Response(status, request=request, headers=named), server_message=text)


def wrapped(error: Exception) -> Exception:
    """As the client raises it out of a thread that uploads."""
    try:
        raise RuntimeError("Error while uploading") from error
    except RuntimeError as outer:
        return outer


def in_ten_seconds() -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=10), usegmt=True)


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
@pytest.mark.parametrize("wrap", [lambda error: error, wrapped])
def test_faults_that_pass_are_waited_for_longer_each_time(
    status: int, wrap: Callable[[Exception], Exception], calls: Calls, clock: Clock
) -> None:
    assert calls.ask("x", failing(*(wrap(answer(status)) for _ in range(4)))) == "done"
    assert clock.slept == [1, 2, 4, 8]


@pytest.mark.parametrize(
    ("headers", "text", "seconds"),
    [
        ({"RateLimit": '"api";r=0;t=55'}, "", 56),
        ({"RateLimit": '"api";r=0;t=55', "Retry_After": "9"}, "", 56),
        ({"RateLimit": '"api";r=3;t=55', "Retry_After": "9"}, "", 10),
        ({"Retry_After": "0"}, "", 1),
        ({"RateLimit": '"api";r=949;t=100'}, "limit for repository commits (128 per hour)", HOUR + 1),
        ({"Retry_After": "-5"}, "", 1),
        ({"Retry_After": "soon"}, "", 1),
        ({"Retry_After": "99999"}, "", 3700),
        ({}, "", 1),
    ],
)
def test_the_hubs_own_words_about_waiting(
    headers: dict[str, str], text: str, seconds: float, calls: Calls, clock: Clock
) -> None:
    assert calls.ask("x", failing(answer(429, text, **headers))) == "done"
    assert clock.slept == [seconds]


def test_a_date_to_wait_for(calls: Calls, clock: Clock) -> None:
    calls.ask("x", failing(answer(503, Retry_After=in_ten_seconds())))
    assert 8 < clock.slept[0] < 12


def test_a_fault_that_does_not_pass_is_one_sentence(calls: Calls, clock: Clock) -> None:
    with pytest.raises(PrismaError, match=r"^expected the Hub to make a thing; found status 503: no, 8 times: try"):
        calls.ask("make a thing", failing(*(answer(503) for _ in range(TRIES))))
    assert len(clock.slept) == TRIES - 1


def test_a_limit_of_requests_is_waited_for_without_end(calls: Calls) -> None:
    assert calls.ask("x", failing(*(answer(429) for _ in range(50)))) == "done"


@pytest.mark.parametrize("fault", [answer(500), answer(504), httpx2.ReadError("cut"), httpx2.ReadTimeout("late")])
def test_a_call_that_may_have_had_its_effect_is_not_repeated(fault: Exception, calls: Calls, clock: Clock) -> None:
    with pytest.raises(UnansweredError):
        calls.ask("x", failing(fault), once=True)
    assert clock.slept == []
    assert calls.ask("x", failing(answer(429)), once=True) == "done"  # which says that nothing was done


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 409, 412, 422])
def test_a_refusal_is_one_sentence_with_what_to_do(status: int, calls: Calls, clock: Clock) -> None:
    with pytest.raises(RefusedError) as error:
        calls.ask("make a thing", failing(answer(status, "because  of\nthis")))
    text = str(error.value)
    reason = REASONS.get(status, "status {status}: {text}").format(status=status, text="because of this")
    assert text == f"expected the Hub to make a thing; found {reason}"
    assert error.value.status == status
    assert clock.slept == []


def test_a_secret_is_nowhere(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "odd-secret")
    said = list[str]()
    calls.say = said.append
    faults = [answer(status, f"bad {TOKEN} odd-secret", RateLimit="r=0;t=90") for status in (401, 403, 500, 429)]
    errors = list[BaseException]()
    for fault in [*faults, wrapped(faults[0]), ValueError(f"bad {TOKEN}"), OSError(f"no {TOKEN}")]:
        for once in (False, True):
            try:
                calls.ask("x", failing(*[fault] * TRIES), once=once)
            except (PrismaError, UnansweredError) as error:
                errors.append(error)
    assert len(errors) == 12  # only 429 succeeds in the end
    for error in errors:
        assert error.__cause__ is error.__context__ is None
        held = [str(error), repr(error), *traceback.format_exception(error), *map(repr, error.args), *said]
        held.append(repr(pickle.loads(pickle.dumps(error)).__dict__))
        held.append(repr(pickle.dumps(error)))
        assert not [text for text in held if TOKEN in text or "odd-secret" in text]
    assert len(said) == 16 + TRIES - 1  # 429 is repeated in any case, 500 without `once`


def test_a_refusal_can_be_sent_to_another_process(calls: Calls) -> None:
    with pytest.raises(RefusedError) as error:
        calls.ask("x", failing(answer(403)))
    again = pickle.loads(pickle.dumps(error.value))
    assert (str(again), again.status) == (str(error.value), 403)


def test_errors_that_are_not_the_clients_pass_through(calls: Calls) -> None:
    for error in (PrismaError("ours"), KeyError("a slip"), TypeError("a slip")):
        with pytest.raises(type(error)):
            calls.ask("x", failing(error))


def test_an_answer_that_is_no_json_is_asked_for_again(calls: Calls, clock: Clock) -> None:
    """What the Hub's check of a card answers while it is down."""
    assert calls.ask("x", failing(json.JSONDecodeError("no", "", 0))) == "done"
    assert clock.slept == [1]


def test_no_network_is_said_at_once_but_an_interruption_is_waited_for(calls: Calls, clock: Clock) -> None:
    with pytest.raises(PrismaError, match=r"found no connection to it \(refused\): connect to the network"):
        calls.ask("x", failing(httpx2.ConnectError("refused")))
    assert clock.slept == []
    calls.ask("x", failing())
    assert calls.ask("x", failing(httpx2.ConnectError("refused"), httpx2.RemoteProtocolError("cut"))) == "done"


def test_offline_is_said_at_once(server: Hub, monkeypatch: pytest.MonkeyPatch, calls: Calls) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(PrismaError, match="found that HF_HUB_OFFLINE is set: unset it to use the Hub"):
        calls.ask("x", lambda: HfApi().model_info("lab/x"))


def test_commits_of_an_hour_are_paced(calls: Calls, clock: Clock) -> None:
    calls.commits_per_hour = 3
    moments = list[float]()
    for _ in range(8):
        calls.expect_pace()
        moments.append(clock.now)
        calls.committed()
        clock.now += 60
    assert clock.slept == [HOUR - 180 + 1] * 2
    assert all(b - a > HOUR for a, b in zip(moments, moments[3:], strict=False))


def test_a_long_wait_is_said_and_a_short_one_is_not(calls: Calls) -> None:
    said = list[str]()
    calls.say = said.append
    calls.ask("take a commit", failing(answer(429, "slow", RateLimit="r=0;t=600"), answer(503)))
    assert said == [
        "waiting 10 minutes for the Hub to take a commit (status 429: slow); to stop and go on later is safe"
    ]


def test_waiting_in_another_thread_ends_when_it_is_stopped() -> None:
    calls = Calls()
    calls.stop()
    with pytest.raises(PrismaError, match="it was stopped: publish again"):
        calls.pause(1000)
    calls.begin()
    calls.pause(0.001)


def test_requests_are_counted_and_others_are_not(server: Hub, calls: Calls, tmp_path: Path) -> None:
    api: Any = HfApi()
    with calls.counting():
        calls.ask("x", lambda: api.create_repo("lab/x"))
        calls.ask("x", lambda: api.upload_file(path_or_fileobj=bytes(2000), path_in_repo="w.bin", repo_id="lab/x"))
        get_session().get(f"{server.url}/", timeout=10)
    get_session().get(f"{server.url}/", timeout=10)
    assert calls.requests == sum(row["origin"] == "hub" for row in server.requests) - 1
    assert len(server.asked("lfs_put")) == 1
