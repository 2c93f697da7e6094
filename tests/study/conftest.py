"""A small CLIP for the analyses that look at images through one."""

import pytest

from tests.pretrained.test_zero_shot import pair

CLIP = "a-small-clip"


@pytest.fixture(autouse=True)
def small_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under the name CLIP, a CLIP that takes the images of these tests."""
    monkeypatch.setattr("prisma.study.units.load", {CLIP: pair()}.__getitem__)
