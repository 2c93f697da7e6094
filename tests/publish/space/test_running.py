"""Waiting for a Space, and its address."""

from types import SimpleNamespace

import pytest

from prisma import PrismaError
from prisma.publish.space import Plan
from prisma.publish.space.running import Address, address_of, expect_running
from tests.publish.space.fake_hub import FakeHub

WHERE = Address("https://hub.test/spaces/lab/explorer", "https://lab-explorer.hf.space", False)


def wait(fake: FakeHub, planned: Plan, timeout: float = 5.0) -> str:
    return expect_running(fake, planned, WHERE, "new", timeout, poll=0.001)


def test_it_waits_through_building_and_starting(fake: FakeHub, planned: Plan) -> None:
    fake.stages = ["BUILDING", "RUNNING_BUILDING", "APP_STARTING", "RUNNING_APP_STARTING", "RUNNING"]
    assert wait(fake, planned) == "RUNNING"
    assert fake.calls.count("get_space_runtime") == 5


def test_a_space_that_runs_another_commit_is_waited_for(fake: FakeHub, planned: Plan) -> None:
    fake.raw = {"sha": "old"}
    with pytest.raises(PrismaError, match=r"to run within 0.01 seconds; found it in the stage RUNNING: run the"):
        wait(fake, planned, 0.01)
    fake.raw = {"sha": "new"}
    assert wait(fake, planned) == "RUNNING"


@pytest.mark.parametrize("stage", ["SLEEPING", "PAUSED", "STOPPED"])
def test_one_that_sleeps_is_woken_once(fake: FakeHub, planned: Plan, stage: str) -> None:
    fake.stages = [stage, stage, "APP_STARTING", "RUNNING"]
    assert wait(fake, planned) == "RUNNING"
    assert fake.calls.count("restart_space") == 1


@pytest.mark.parametrize(
    ("stage", "log"),
    [("BUILD_ERROR", "build"), ("CONFIG_ERROR", "build"), ("NO_APP_FILE", "build"), ("RUNTIME_ERROR", "container")],
)
def test_a_failure_names_the_stage_and_the_log(fake: FakeHub, planned: Plan, stage: str, log: str) -> None:
    fake.stages, fake.raw = ["BUILDING", stage], {"errorMessage": "no such\nmodule"}
    with pytest.raises(PrismaError) as found:
        wait(fake, planned)
    assert f"in the stage {stage} (no such module): its log is at {WHERE.page}?logs={log}" in str(found.value)


def test_the_time_is_limited(fake: FakeHub, planned: Plan) -> None:
    fake.stages = ["BUILDING"]
    with pytest.raises(PrismaError, match=r"within 0.01 seconds; found it in the stage BUILDING: run the"):
        wait(fake, planned, 0.01)


@pytest.mark.parametrize(
    ("raw", "host", "expected"),
    [
        ({"domains": [{"domain": "lab-explorer.hf.space", "stage": "READY"}]}, None, "https://lab-explorer.hf.space"),
        ({"domains": []}, "https://lab-explorer.hf.space/", "https://lab-explorer.hf.space"),
        ({"domains": [{"domain": "127.0.0.1:8000"}]}, None, "http://127.0.0.1:8000"),
        ({"domains": [{"domain": "lab-explorer.hf.space"}]}, "http://127.0.0.1:7", "http://127.0.0.1:7"),
        ({}, "http://localhost:8000/a", "http://localhost:8000/a"),
        ({}, "http://elsewhere.test", "https://elsewhere.test"),
        ({}, None, "https://lab-explorer.hf.space"),
    ],
)
def test_the_address_is_https_but_on_this_machine(
    fake: FakeHub, planned: Plan, monkeypatch: pytest.MonkeyPatch, raw: dict[str, object], host: str, expected: str
) -> None:
    fake.raw = raw
    monkeypatch.setattr(fake, "space_info", lambda repo: SimpleNamespace(host=host), raising=False)
    assert address_of(fake, planned) == expected
