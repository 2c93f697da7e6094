"""A Hub in the place of the client's, and a Space that is planned once."""

from pathlib import Path

import huggingface_hub
import pytest

from prisma.publish.space import Plan, plan
from tests.publish.space.fake_hub import FakeHub

SPACE = "lab/explorer"


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    """The Hub, as the client's `HfApi`."""
    hub = FakeHub()
    monkeypatch.setattr(huggingface_hub, "HfApi", hub)
    return hub


@pytest.fixture(scope="module")
def planned(finished_hub: Path) -> Plan:
    """The Space of lab/tiny, from a folder hub that nobody may change."""
    return plan(SPACE, [], finished_hub)
