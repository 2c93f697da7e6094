"""The paths of a pair: both forms are the library's path patching, and its Python computes them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from prisma_app.library import Library, Scene
from prisma_app.state import State
from prisma_app.views.patching import maps, paths_code, paths_values, view

import prisma
from prisma import PrismaError
from tests.app.conftest import DIGITS, GLYPHS
from tests.app.unpack import unpack

KEYS = {"model": DIGITS, "img": "3", "corrupt": "7", "metric": "logit", "into": "corrupt"}


def test_both_forms_are_path_patching(scene: Callable[..., Scene]) -> None:
    there = scene(**KEYS)
    facts, arrays = unpack(view(there, 5).pack())
    asked = (there.loaded.model, there.picture.x[None], there.corrupt.x[None], prisma.Logit(facts["state"]["target"]))
    found = [prisma.path_patching(*asked, mlps=form, into="corrupt") for form in facts["forms"]]
    assert facts["forms"] == ["frozen", "recomputed"] and facts["mlps"]
    assert (facts["senders"], facts["receivers"]) == (found[0].metadata["senders"], found[0].metadata["receivers"])
    wanted = torch.stack([path.change for path in found])
    torch.testing.assert_close(arrays["changes"], wanted.double(), rtol=0, atol=1e-6)
    assert (wanted[0] - wanted[1]).abs().max() > 1e-3
    answer, made = paths_values(there), dict[str, Any]()
    exec(paths_code(there), made)
    torch.testing.assert_close(torch.tensor(answer["values"]), wanted, rtol=0, atol=1e-6)
    torch.testing.assert_close(torch.stack(made["changes"]), wanted, rtol=0, atol=1e-6)
    assert answer["axes"] == ["form", "sender", "receiver"] and answer["pair"] == {"clean": "3", "corrupt": "7"}
    assert answer["clean"] == pytest.approx(found[0].clean.item(), abs=1e-6)


def test_without_mlps_the_forms_are_the_same(scene: Callable[..., Scene]) -> None:
    facts, arrays = unpack(view(scene(model=GLYPHS), 5).pack())
    assert not facts["mlps"] and torch.equal(arrays["changes"][0], arrays["changes"][1])


def test_what_takes_too_long_is_one_sentence(vit_library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maps, "CIRCUIT", 1)
    with pytest.raises(PrismaError, match="expected a model that is small enough to run once for each edge"):
        view(vit_library.scene(State.of({"img": "1"})), 5)
