"""The list of pretrained models, and a model's own weights checked."""

import json
from pathlib import Path

import pytest

from prisma.pretrained import loading
from prisma.pretrained.parity import Parity
from tests.cli.running import Prisma, one_sentence
from tests.pretrained.test_loading import of_timm


def test_models_lists_the_families_and_their_errors(prisma: Prisma) -> None:
    code, out, _ = prisma("models")
    assert code == 0
    assert "timm VisionTransformer" in out
    rows = json.loads(prisma("models", "--json")[1])
    assert all(row["float64"] <= 1e-9 and row["float32"] <= 1e-5 for row in rows if row["exact"])


def test_models_checks_weights_that_a_user_has(prisma: Prisma, tmp_path: Path) -> None:
    of_timm(tmp_path / "saved")
    code, out, _ = prisma("models", "--check", "saved", "--json")
    assert code == 0
    assert [row["where"] for row in json.loads(out)] == ["layer 0", "layer 1", "output"]
    code, out, _ = prisma("models", "--check", "saved", "--image-size", "64")
    assert code == 0 and len(out.splitlines()) == 4
    code, _, err = prisma("models", "--check", "timm/swin_tiny_patch4_window7_224")
    assert code == 1
    assert "attention within windows" in one_sentence(err)


def test_models_fails_where_a_difference_is_too_large(prisma: Prisma, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "check", lambda *_, **__: {"image": Parity(0.1, (1e-7,))})
    code, out, _ = prisma("models", "--check", "anything")
    assert code == 1
    assert "1.0e-01" in out
